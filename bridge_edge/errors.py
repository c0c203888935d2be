"""Errors a user can act on. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager

MOST_NAMED = 50  # choices that an error lists


class UserError(Exception):
    """What was wrong (`message`, naming the value) and how to mend it (`hint`: the choices or a command)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


def first_line(error: Exception) -> str:
    """What an error of a library says, in at most one line; its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def in_one_line(error: Exception) -> str:
    """All that an error of a library says, its lines joined: for those whose second line has the reason."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def told(error: Exception) -> UserError:
    """Any error as one that can be said in a line."""
    return error if isinstance(error, UserError) else UserError(f"{type(error).__name__}: {first_line(error)}")


class Failures:
    """What went wrong with some of several things, by name, while the others go on; the first error of each counts.

    With `keep` false nothing goes on: an error is raised where it happens."""

    def __init__(self, keep: bool = True) -> None:
        self.keep = keep
        self.found: dict[str, Exception] = {}

    @contextmanager
    def of(self, name: object) -> Iterator[None]:
        """Work on one of the things."""
        try:
            yield
        except Exception as error:
            if not self.keep:
                raise
            self.found.setdefault(str(name), error)

    def end(self, done: Sized) -> None:
        """Raise the error of a single thing, behind which nothing is left to be told of."""
        if not done and len(self.found) == 1:
            raise next(iter(self.found.values()))


def unknown(kind: str, value: str, choices: Iterable[str]) -> UserError:
    """A UserError for a name that is not among `choices`, with the nearest one suggested; of very many, the nearest."""
    names = sorted(choices)
    many = len(names) > MOST_NAMED
    near = difflib.get_close_matches(value, names, n=3 if many else 1)
    guess = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    listed = f"one of {len(names)}, such as {', '.join(names[:3])}" if many else ", ".join(names)
    return UserError(f"unknown {kind} {value!r}", f"{guess}choices: {listed}")
