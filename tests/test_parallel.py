"""Side-by-side work keeps its order and leaves the thread count as it was."""

from __future__ import annotations

import threading

import pytest
import torch

from bridge_edge import memory
from bridge_edge.parallel import is_small, side_by_side


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_results_keep_their_order_and_work_runs_at_once() -> None:
    meeting = threading.Barrier(2, timeout=20)

    def work(number: int) -> tuple[int, int]:
        meeting.wait()  # passes only when two calls are inside at the same time
        return number, torch.get_num_threads()

    with side_by_side(torch.nn.Linear(2, 2)) as run:
        found = list(run(work, range(4)))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert {threads for _, threads in found} == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_the_thread_count_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), side_by_side(torch.nn.Linear(2, 2)) as run:
        list(run(lambda n: 1 // n, [1, 0]))
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_large_model_works_one_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_edge.parallel.SMALL", 1)
    model = torch.nn.Linear(2, 2)
    assert not is_small(model)
    with side_by_side(model) as run:
        assert run is map


@pytest.mark.usefixtures("two_threads")
def test_a_model_that_draws_works_one_piece_at_a_time_while_it_trains() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.3))
    with side_by_side(model) as run:
        assert run is map
    with side_by_side(model.eval()) as run:
        assert run is not map


def test_release_returns_without_complaint_and_frees_cycles() -> None:
    class Node:
        alive = 0

        def __init__(self) -> None:
            Node.alive += 1
            self.me = self

        def __del__(self) -> None:
            Node.alive -= 1

    Node()
    assert Node.alive == 1
    memory.release()
    assert Node.alive == 0
