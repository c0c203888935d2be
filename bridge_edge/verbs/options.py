"""What the verbs share: options that mean the same everywhere, how a result is printed, a group that suggests.

Only click is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bridge_edge.errors import unknown


def emit(as_json: bool, value: dict[str, Any], text: str) -> None:
    """Print a result: one JSON line for scripts, or the text for people."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on the last line of stdout.")(
        function
    )


def runs_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--runs-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default="runs",
        show_default=True,
        help="Where runs lie.",
    )(function)


def threads_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--threads", type=click.IntRange(1, 256), default=None, help="CPU threads (default: all cores)."
    )(function)


def concurrency_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Teacher calls at once."
    )(function)


def use_threads(threads: int | None) -> None:
    """Bound torch's threads before any work; the count never enters a stage's key."""
    import torch

    if threads:
        torch.set_num_threads(threads)


class Group(click.Group):
    """A group whose unknown verbs are answered with the nearest known one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)
