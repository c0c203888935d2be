"""Errors a user can act on. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was wrong (`message`, naming the value) and how to mend it (`hint`: the choices or a command)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


def first_line(error: Exception) -> str:
    """What an error of a library says, in at most one line; its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def unknown(kind: str, value: str, choices: Iterable[str]) -> UserError:
    """A UserError for a name that is not among `choices`, with the nearest one suggested."""
    names = sorted(choices)
    near = difflib.get_close_matches(value, names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {value!r}", f"{guess}choices: {', '.join(names)}")
