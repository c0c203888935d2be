"""`bridge-edge ledger`: what a run has spent, and the calls that may or may not have been billed.

A call whose answer was lost (a timeout, a reset, a killed process) counts at its worst case, since only the provider
knows whether it was billed. Whoever has looked there closes it, and what it did not cost can be spent again.

Not covered: reading the provider's bill; prices other than the run's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bridge_edge.budget import Ledger, Usage, show_usd, to_usd
from bridge_edge.errors import UserError
from bridge_edge.plain import grid
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import read_yaml
from bridge_edge.teacher.make import price_of

FILE = "ledger.sqlite"
FORM = re.compile(r"(all|\d+)=(?:none|(\d+)\+(\d+))")


def ledger(run: Path, resolve: Sequence[str] = ()) -> dict[str, Any]:
    """The accounts of a run, after closing what `resolve` names: "ID=none" or "ID=PROMPT+COMPLETION" tokens."""
    path = run / FILE
    if not path.is_file():
        raise UserError(f"there is no ledger in {run}", "name the folder of a run that has asked its teacher")
    recipe = Recipe.model_validate(read_yaml(run / "recipe.yaml"))
    with closing(Ledger(path, price=price_of(recipe.teacher))) as book:
        for word in resolve:
            _close(book, word)
        lost, totals = book.unresolved(), book.totals()
        statuses = Counter(f"{row['state']}: {row['status']}" for row in book.attempts())
    shown = ("id", "item_id", "status", "reserved_prompt", "reserved_completion", "nano", "started")
    return {
        "ledger": str(path),
        "queries": totals.queries,
        "tokens": totals.tokens,
        "usd": float(totals.usd),
        "caps": recipe.budget.model_dump(include={"queries", "usd", "tokens"}),
        "unresolved_usd": float(to_usd(totals.unsettled_nano)),
        "attempts": dict(statuses),
        "unresolved": [{name: row[name] for name in shown} for row in lost],
    }


def _close(book: Ledger, word: str) -> None:
    found = FORM.fullmatch(word)
    if found is None:
        raise UserError(f"cannot read --resolve {word!r}", "write ID=none, all=none, or ID=PROMPT+COMPLETION in tokens")
    which, prompt, completion = found.groups()
    usage = None if prompt is None else Usage(int(prompt), int(completion))
    for row in book.unresolved() if which == "all" else [{"id": int(which)}]:
        book.resolve(row["id"], usage)


def ledger_text(told: dict[str, Any]) -> str:
    """The accounts for people."""
    cap = "no cap" if told["caps"]["usd"] is None else f"of ${told['caps']['usd']:.2f}"
    lines = [
        f"Ledger     {told['ledger']}",
        f"Counted    {told['queries']} queries, {told['tokens']:,} tokens, ${told['usd']:.4f} {cap}",
        f"In doubt   ${told['unresolved_usd']:.4f} in {len(told['unresolved'])} calls",
        "Attempts   " + ", ".join(f"{count} {name}" for name, count in sorted(told["attempts"].items())),
    ]
    if told["unresolved"]:
        rows = [
            [str(r["id"]), r["item_id"], r["status"], f"{r['reserved_prompt']}+{r['reserved_completion']}",
             show_usd(r["nano"])]
            for r in told["unresolved"]
        ]  # fmt: skip
        lines += ["", grid(["id", "item", "what happened", "tokens", "counted"], rows, right=(0, 3, 4))]
        lines += ["", "After a look at the provider's bill: --resolve ID=none, or --resolve ID=PROMPT+COMPLETION"]
    return "\n".join(lines)
