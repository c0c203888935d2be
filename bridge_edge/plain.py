"""Plain text tables for people: aligned columns that survive pipes, logs and narrow terminals.

Why not a drawn table: the output is also read in CI logs and pasted into issues. Not covered: colours, wrapping.
"""

from __future__ import annotations

from collections.abc import Sequence


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """`rows` under `header` with two spaces between columns; the columns numbered in `right` are right-aligned."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def line_of(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return "  ".join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in pairs).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line_of(lines[0]), rule, *(line_of(line) for line in lines[1:])])
