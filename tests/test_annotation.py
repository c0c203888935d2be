"""What the student is shown of the assistant's annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge_edge.annotation import Annotation, _keep, surest
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.errors import UserError
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe

POOL = [Sample(f"What of case {i}?", "Yes" if i % 2 else "No") for i in range(6)]
TEXTS = (
    "2 + 2 = 4. 4 is less than 5.\nAnswer: No",
    "2 + 2 = 5. 5 is equal to 5.\nAnswer: Yes",  # a false sum
    "3 is less than 5.\nAnswer: Yes",  # the gold answer is No
    "Nothing to add.\nAnswer: Yes",
    "2 + 3 = 5.\nAnswer: No",
    "no answer at all",
)


def recipe(*changes: str) -> Recipe:
    return load_recipe(["recipe=legal", *changes])


def raw(cut: int | None = None) -> dict[str, dict[str, object]]:
    return {
        s.id: {"text": text, "logprob": -0.1 * i, "ended": i != cut, "tokens": 10}
        for i, (s, text) in enumerate(zip(POOL, TEXTS, strict=True))
    }


def kept(out: Path) -> list[str]:
    return [s.prompt for s in read_jsonl(out / "annotations.jsonl")]


@pytest.fixture
def generic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool above belongs to no domain, so no checker of one may look at it."""

    class Blind:
        def check(self, *_: object) -> object:
            return type("Check", (), {"steps": True})

    monkeypatch.setattr("bridge_edge.annotation.load_task", lambda _: Blind())


@pytest.mark.usefixtures("generic")
@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ((), [0, 3, 4]),
        (("annotate.arithmetic=false",), [0, 1, 3, 4]),
        (("annotate.keep=all",), [0, 2, 3, 4]),
        (("annotate.surest=0.5",), [0, 3]),
    ],
)
def test_each_filter_takes_what_it_says(changes: tuple[str, ...], left: list[int], tmp_path: Path) -> None:
    metrics = _keep(recipe("annotate.surest=1.0", *changes), POOL, raw(), tmp_path)
    assert kept(tmp_path) == [POOL[i].prompt for i in left]
    taken = sum(metrics[name] for name in ("unparsed", "answer_missed", "false_arithmetic", "unsure"))
    assert (metrics["kept"], metrics["pool"], metrics["tokens"]) == (len(left), 6, 60)
    assert taken == 6 - len(left)


@pytest.mark.usefixtures("generic")
def test_a_completion_cut_off_at_the_bound_is_not_kept(tmp_path: Path) -> None:
    metrics = _keep(recipe("annotate.surest=1.0"), POOL, raw(cut=0), tmp_path)
    assert kept(tmp_path) == [POOL[3].prompt, POOL[4].prompt]
    assert metrics["unparsed"] == 2


@pytest.mark.usefixtures("generic")
def test_nothing_usable_is_said(tmp_path: Path) -> None:
    empty = {k: {**v, "text": "?"} for k, v in raw().items()}
    with pytest.raises(UserError, match="no annotation of the assistant was usable"):
        _keep(recipe(), POOL, empty, tmp_path)
    assert not (tmp_path / "annotations.jsonl").exists()


def test_the_surest_are_taken_within_each_answer() -> None:
    sure = [Annotation(Sample(f"y{i}", "Yes"), -0.01 * i) for i in range(8)]
    unsure = [Annotation(Sample(f"n{i}", "No"), -1.0 - i) for i in range(4)]
    chosen = surest([*unsure, *sure], 0.5)
    assert [s.prompt for s in chosen] == ["n0", "n1", "y0", "y1", "y2", "y3"]
    assert [s.prompt for s in surest(unsure, 0.01)] == ["n0"]  # never an answer without an example
    assert json.dumps([s.prompt for s in surest(sure, 1.0)]) == json.dumps([f"y{i}" for i in range(8)])
