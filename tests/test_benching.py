from __future__ import annotations

import os

import pytest

from bridge_edge.benching import Request, numbers, options_of, pinned
from bridge_edge.errors import UserError


def test_lists_of_numbers() -> None:
    assert numbers("512, 128,512", "--depth") == (512, 128)
    assert numbers("", "--depth") == ()
    assert numbers("0,4", "--depth", least=0) == (0, 4)
    for text in ("0", "a", "1.5", "-3"):
        with pytest.raises(UserError, match="--threads"):
            numbers(text, "--threads")


def test_a_depth_alone_brings_the_fields_lengths() -> None:
    assert options_of(Request()).prompt_tokens == ()
    found = options_of(Request(depth="0,256", threads="1,2"))
    assert (found.prompt_tokens, found.generate_tokens, found.depths) == ((512,), (128,), (0, 256))
    assert found.thread_counts == (1, 2)
    assert options_of(Request(generate_tokens="16")).prompt_tokens == ()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_pinning_ends_with_the_work() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
    with pytest.raises(UserError, match="cannot pin 4096"), pinned(4096):
        pass
