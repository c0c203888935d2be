"""Independent pieces of work on separate CPU cores.

What: micro-batches of one optimiser step, parts of the optimiser, and batches of a generation run side by side in
threads, each on one core (torch releases the interpreter lock inside its operators).
Why: the operators of a small model are too short to be worth splitting over cores; splitting the work above them is.
Not covered: models large enough to keep all cores busy inside one operator; those run one piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

SMALL = 50_000_000
"""Parameters up to which a model's operators are too short to be split."""

T = TypeVar("T")
R = TypeVar("R")
Map = Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]


def is_small(model: torch.nn.Module) -> bool:
    return sum(p.numel() for p in model.parameters()) < SMALL


def draws(model: torch.nn.Module) -> bool:
    """Whether a forward pass draws from torch's one random state: side by side, who draws first would be chance."""
    dropout = getattr(getattr(model, "config", None), "attention_dropout", 0.0)
    return model.training and bool(dropout or any(isinstance(m, torch.nn.Dropout) and m.p for m in model.modules()))


@contextmanager
def side_by_side(model: torch.nn.Module) -> Iterator[Map]:
    """A `map` whose calls run at once, one core each, and keep their order; the plain `map` where that cannot pay."""
    threads = torch.get_num_threads()
    device = next(model.parameters()).device
    if threads < 2 or device.type != "cpu" or not is_small(model) or draws(model):
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)
