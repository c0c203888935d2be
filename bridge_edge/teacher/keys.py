"""API keys: taken out of the environment when they are first needed, and from then on in this process's memory alone.

What this process starts inherits its environment: a serving engine, a tool, a crash reporter. So a variable is removed
once it has been read, and the next teacher of the same process gets the key from here. A value that is set again later
counts. Errors name the variable and never show the value.

What a server says may hold the key, since the server knows it. `redact` takes every key of this process out of a text.

Not covered: the environment with which this process was started, which the system shows to the same user; words
that stand in for a key where none is needed ("none", "EMPTY"), which are too short for one and may occur in an answer.
"""

from __future__ import annotations

import os

from bridge_edge.errors import UserError

LEAST = 8  # characters of a secret
_taken: dict[str, str] = {}


def take_key(name: str) -> str:
    """The key in the environment variable `name`; the empty string where no name is given."""
    if not name:
        return ""
    check_key(name)
    if name in os.environ:
        _taken[name] = os.environ.pop(name).strip()
    key = _taken[name]
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"the environment variable {name!r} holds no usable key", "it has spaces or unusual characters")
    return key


def check_key(name: str) -> None:
    """Raise UserError where no key is to be had; nothing is taken."""
    if name and not os.environ.get(name, _taken.get(name, "")).strip():
        raise UserError(
            f"the environment variable {name!r} is not set; the teacher's key is read from it",
            f"export {name}=... in your shell, or set teacher.api_key_env to another variable's name, or to nothing "
            "where the server needs no key",
        )


def redact(text: str) -> str:
    """`text` without the keys that this process has read."""
    for key in tuple(_taken.values()):  # another thread may be reading a key
        if len(key) >= LEAST:
            text = text.replace(key, "[key]")
    return text
