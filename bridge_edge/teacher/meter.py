"""What a user wants to see while money is spent: calls done, their rate, what is spent of the cap and will be, retries.

Answers that were there before this run began are no measure of its speed, so rate and expectation leave them out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge_edge.prices import Totals
from bridge_edge.teacher.outcome import Progress

EVERY_S = 5.0  # between two lines where there is no terminal


class Meter:
    """Turns the states of the asking loop into progress; call it with each of them."""

    def __init__(self, advance: Callable[[float, str], None], usd_cap: float | None) -> None:
        self._advance, self._cap = advance, usd_cap
        self._start = time.monotonic()
        self._shown = 0
        self._first: Progress | None = None

    def __call__(self, state: Progress) -> None:
        self._first = self._first or state
        ended = state.done + state.failed
        self._advance(max(0, ended - self._shown), self.note(state))
        self._shown = max(self._shown, ended)

    def note(self, state: Progress) -> str:
        """One line on where the asking stands."""
        first = self._first or state
        cap = "" if self._cap is None else f" of ${self._cap:.2f}"
        parts = [f"{state.done + state.failed} of {state.total} calls"]
        new = state.done + state.failed - first.done - first.failed
        seconds = time.monotonic() - self._start
        if new > 0 and seconds > 0:
            parts.append(f"{new / seconds:.1f} a second")
        parts.append(f"${state.totals.usd:.4f}{cap}")
        if new > 0:
            settled, before = _ended(state.totals), _ended(first.totals)
            left = state.total - state.done - state.failed
            expected = (settled + (settled - before) / new * left) / 1e9
            parts.append(f"${expected:.4f} expected in all")
        if state.retries:
            parts.append("1 retry" if state.retries == 1 else f"{state.retries} retries")
        if state.failed:
            parts.append(f"{state.failed} failed")
        return ", ".join(parts)


def _ended(totals: Totals) -> int:
    """What calls that are not under way have cost; those in doubt stay at their worst case."""
    return totals.nano - totals.unsettled_nano + totals.doubtful_nano
