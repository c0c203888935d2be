"""The key that the teachers of these tests read."""

from __future__ import annotations

import pytest

from tests.teacher.toys import KEY


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_edge.teacher.keys._taken", {})
    monkeypatch.setenv("TOY_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
