"""Run packed web apps in a headless Chromium and compare every answer with the Python runtime's, token by token.

    python -m bridge_edge.benchmarks.web EXPORT ... [--items 20] [--think 16,32] [--pictures FOLDER]

For each export (GGUF or ONNX), with the headers that threads need and without them: pack it, load it once, ask test
items of its run (outside a run the card's examples), then stop the server, load it again and ask again. Every host but
loopback is out of reach, and the requests of the page, its workers and its service worker are listed. The page is
judged by axe-core (fetched with npm from a lock file) and by Chromium's own list of what keeps it from being installed.
Where two tokens lie less than 0.1 logits apart in Python, the browser's kernels, which add in another order, may take
the other one: such an answer is counted apart, as a tie. Prints a table, one JSON line last, and exits with 1 where
anything differs. Needs Node.js, npm and Chromium.

Not covered: other browsers, phones, and speed: the figures in tokens/s are those of this machine as it was then.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from bridge_edge.benchmarks.chromium import Browser
from bridge_edge.cli import quiet_environment
from bridge_edge.deliver import held_out
from bridge_edge.errors import UserError
from bridge_edge.pack import Artifact, PackOptions, open_artifact, pack_to
from bridge_edge.pack.web_engine import install
from bridge_edge.pack.web_server import open_server
from bridge_edge.plain import grid
from bridge_edge.progress import say, track
from bridge_edge.student import Reply, Student, ask_prompt

AXE = Path(__file__).with_name("axe")
JUDGE = "axe.run().then((found) => found.violations.map((v) => [v.impact, v.id, v.nodes.length]))"
SERIOUS = ("serious", "critical")
SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
TIE = 0.1  # logits between the two likeliest tokens


@dataclass(frozen=True)
class Case:
    """A question and what Python says; `gaps` are the logits between the two likeliest tokens at each of its tokens."""

    question: str
    budget: int | None
    wanted: Reply
    gaps: tuple[float, ...]

    def gap(self, ids: Sequence[int]) -> float | None:
        """At the first token where `ids` are others; None where they only end elsewhere."""
        pairs = zip(ids, self.wanted.ids, self.gaps, strict=False)
        return next((gap for other, own, gap in pairs if other != own), None)


def gaps_of(student: Student, question: str, budget: int | None, wanted: Reply) -> tuple[float, ...]:
    prompt = student.runtime.chat(ask_prompt(student.card, question, budget))
    logits = student.runtime.logits([*prompt, *wanted.ids])[len(prompt) - 1 : -1]
    best = np.sort(logits, axis=1)[:, -2:]
    return tuple((best[:, 1] - best[:, 0]).tolist())


def expected(artifact: Artifact, items: int, budgets: Sequence[int]) -> list[Case]:
    """What the Python runtime of the same artifact says, with no bound on its reasoning and with each budget."""
    questions = [s.prompt for s in held_out(artifact.parcel.folder, "test")[:items]]
    questions = questions or list(artifact.card.examples if artifact.card else ())
    if not questions:
        raise UserError(f"{artifact.path} has no questions", "check an export in its run, or give its card examples")
    asked = [(question, budget) for question in questions for budget in (None, *budgets)]
    found: list[Case] = []
    with Student.load(artifact.path, 1) as student, track(f"{artifact.kind} in Python", len(asked)) as advance:
        for question, budget in asked:
            wanted = student.answer(question, budget)
            found.append(Case(question, budget, wanted, gaps_of(student, question, budget, wanted)))
            advance(1, "")
    return found


@contextmanager
def served(folder: Path, isolated: bool) -> Iterator[str]:
    """The address of a server of `folder`, which ends with the block."""
    server = open_server(folder, 0, isolated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def ready(browser: Browser) -> dict[str, Any]:
    """Wait until the page has its model; how it runs."""
    browser.wait("self.ready !== undefined")
    found: dict[str, Any] = browser.evaluate("self.ready")
    return found


def ask(browser: Browser, question: str, budget: int | None, named: bool = False) -> dict[str, Any]:
    """The page's reply, where `named` with its token ids."""
    found: dict[str, Any] = browser.evaluate(
        f"self.reply({json.dumps(question)}, {json.dumps(budget)}, {json.dumps(named)})"
    )
    return found


def compare(browser: Browser, cases: Sequence[Case], label: str) -> dict[str, Any]:
    """How many answers of the page are those of Python, by token ids and by what is shown. The GGUF engine cannot name
    the ids of text beyond ASCII, and no engine those of the words that close a thought: there the text has to do."""
    ids = texts = ties = 0
    speeds = []
    different = []
    with track(label, len(cases)) as advance:
        for case in cases:
            question, budget, wanted = case.question, case.budget, case.wanted
            named = wanted.text.isascii() and not wanted.closed
            got = ask(browser, question, budget, named)
            same = (got["text"], got["answer"], got["rationale"]) == (wanted.text, wanted.answer, wanted.rationale)
            texts += same
            same_ids = tuple(got["ids"]) == wanted.ids if named else same and bool(got["closed"]) == bool(wanted.closed)
            ids += same_ids
            if not same or not same_ids:
                gap = case.gap(got["ids"]) if named else None
                ties += gap is not None and gap < TIE
                said = {"python": wanted.text, "page": got["text"], "gap": gap}
                different.append({"question": question, "budget": budget, **said})
            speeds += [got["speed"]] if got["speed"] else []
            advance(1, "")
    speed = round(median(speeds), 1) if speeds else None
    counts = {"asked": len(cases), "ids": ids, "ties": ties, "texts": texts}
    return {**counts, "different": different[:3], "tokens_per_s": speed}


def check(folder: Path, cases: Sequence[Case], threads: int | None, axe: str, pictures: Path | None) -> dict[str, Any]:
    """One app in one browser, online and then with its server gone; `threads` is None for a server without headers."""
    isolated = threads is not None
    with Browser() as browser:
        with served(folder, isolated) as origin:
            browser.open(f"{origin}?threads={threads or 1}")
            state = ready(browser)
            label = f"{folder.name}, {state['threads']} threads"
            found = {**state, **compare(browser, cases, label)}
            found["install"] = [
                e["errorId"] for e in browser.call("Page.getInstallabilityErrors")["installabilityErrors"]
            ]
            found["axe"] = findings(browser, axe) if axe else None
            if pictures:
                photograph(browser, pictures, f"{folder.name}-{'threads' if isolated else 'plain'}")
        browser.call("Page.reload")
        ready(browser)
        again = cases[0]
        found["offline"] = ask(browser, again.question, again.budget)["text"] == again.wanted.text
        return {**found, "outside": browser.outside(origin), "errors": browser.errors}


def findings(browser: Browser, axe: str) -> list[str]:
    """What axe-core finds serious in light and in dark, with an answer on the page."""
    browser.evaluate(axe)
    found = []
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        violations = browser.evaluate(JUDGE)
        found += [f"{scheme}: {name} ({impact}, {n} places)" for impact, name, n in violations if impact in SERIOUS]
    return found


def photograph(browser: Browser, folder: Path, name: str) -> None:
    """An example asked through the page's own form, its reasons unfolded, at both widths, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    browser.evaluate("document.querySelector('#examples button').click(); document.forms[0].requestSubmit()")
    browser.wait("!document.getElementById('ask').disabled")
    browser.evaluate("document.getElementById('reasons').open = true; document.activeElement.blur()")
    for width, size in SIZES.items():
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            browser.picture(folder / f"{name}-{width}-{scheme}.png", size)


def fetch_axe() -> str:
    """axe-core's script, by npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("axe-core comes with npm, which is not on the PATH", "install Node.js, or add --no-axe")
    with tempfile.TemporaryDirectory(prefix="bridge-edge-axe-") as work:
        shutil.copytree(AXE, work, dirs_exist_ok=True)
        install(npm, Path(work))
        script = (Path(work) / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    return f"{script}; undefined"


def sound(row: dict[str, Any]) -> bool:
    """Whether nothing is amiss: all equal, nobody else asked, nothing in the console, usable offline and by all."""
    return (
        row["ids"] + row["ties"] == row["asked"]
        and row["offline"]
        and not any(row[k] for k in ("outside", "errors", "install", "axe"))
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    counted = ("threads", "asked", "equal ids", "ties", "outside", "errors")
    header = ("app", "headers", *counted, "offline", "axe", "tokens/s")
    cells = [
        [
            f"{r['app']} {r['kind']} {r['other_bytes'] / 1e6:.2f} + {min(r['wasm'].values()) / 1e6:.2f} MB",
            "yes" if r["isolated"] else "no",
            *(str(r[k]) for k in ("threads", "asked", "ids", "ties")),
            *(str(len(r[k])) for k in ("outside", "errors")),
            "equal" if r["offline"] else "differs",
            "not asked" if r["axe"] is None else str(len(r["axe"])),
            str(r["tokens_per_s"]),
        ]
        for r in rows
    ]
    return grid(header, cells, right=(2, 3, 4, 5, 6, 7, 10))


@click.command(help=__doc__)
@click.argument("exports", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--items", type=click.IntRange(1), default=20, show_default=True, help="Questions of each export.")
@click.option("--think", default="", metavar="N,...", help="Also with these budgets of reasoning.")
@click.option("--threads", type=click.IntRange(1, 64), default=2, show_default=True, help="Where headers allow them.")
@click.option("--axe/--no-axe", "use_axe", default=True, help="Judge the page by axe-core.  [default: yes]")
@click.option("--pictures", type=click.Path(path_type=Path), default=None, help="Folder for screenshots.")
def main(exports: tuple[Path, ...], items: int, think: str, threads: int, use_axe: bool, pictures: Path | None) -> None:
    quiet_environment()
    budgets = [int(word) for word in think.split(",") if word]
    rows: list[dict[str, Any]] = []
    try:
        axe = fetch_axe() if use_axe else ""
        for export in exports:
            artifact = open_artifact(str(export), export)
            cases = expected(artifact, items, budgets)
            with tempfile.TemporaryDirectory(prefix="bridge-edge-web-") as work:
                folder = Path(work) / f"{artifact.name}-{artifact.kind}"
                told = pack_to("web", artifact, folder, PackOptions())
                facts = {k: told[k] for k in ("kind", "engine", "wasm", "other_bytes")}
                for count in (threads, None):
                    row = check(folder, cases, count, axe, pictures)
                    rows.append({"app": artifact.name, **facts, **row})
    except UserError as error:
        say(f"error: {error}")
        sys.exit(2)
    click.echo(table(rows))
    click.echo(json.dumps(rows, ensure_ascii=False))
    sys.exit(0 if all(sound(row) for row in rows) else 1)


if __name__ == "__main__":
    main()
