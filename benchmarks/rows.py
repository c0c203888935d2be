"""How a measurement of finished runs answers: a table for people, then one line of JSON.

Not covered: runs that take long, which show what they have so far.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from bridge_edge.errors import UserError
from bridge_edge.plain import grid


def answer(measure: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
    """Print the rows that are measured; a UserError on the way is one of usage (exit code 2)."""
    try:
        rows = measure()
    except UserError as error:
        raise click.UsageError(str(error)) from error
    print(grid(list(rows[0]), [[shown(value) for value in row.values()] for row in rows]))
    print(json.dumps(rows))


def shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(shown(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)
