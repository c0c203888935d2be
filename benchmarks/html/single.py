"""The page of one run, from its head to its provenance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bridge_edge import chart
from bridge_edge.benchmarks.html import device, method
from bridge_edge.benchmarks.html.facts import Facts
from bridge_edge.benchmarks.html.page import Block, Note, Page, Section, Table, Text
from bridge_edge.plan_report import clock, dollars


def page_of(facts: Facts) -> Page:
    """All sections; what the run has not come to says so."""
    state = "finished" if facts.run.finished else "not finished"
    made = when(facts.run.manifest.get("finished") or facts.run.manifest.get("created"))
    subtitle = f"Run {facts.name}, scale {facts.run.manifest.get('scale')}, {state} {made}"
    sections = [
        Section("notes", "Notes", notes(facts)),
        method.distilled(facts),
        method.accuracy(facts),
        method.budget(facts),
        method.selection(facts),
        method.learning(facts),
        device.exports(facts),
        device.measured(facts),
        device.devices(facts),
        provenance(facts),
        environment(facts),
    ]
    return Page(f"{facts.run.manifest.get('recipe')}: what was distilled", subtitle, head(facts), sections)


def when(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else "at an unknown time"


def notes(facts: Facts) -> list[Block]:
    """What a reader must know before the figures."""
    found: list[Block] = []
    if not facts.run.finished:
        found.append(Note("This run is not finished: what is missing below has not happened yet.", warning=True))
    if not chart.available():
        found.append(Note(f"Drawings are left out, since matplotlib is missing here ({chart.HINT}); the words and the "
                          "tables say the same."))  # fmt: skip
    return found


def head(facts: Facts) -> list[tuple[str, str, str]]:
    """The few figures that everyone asks for."""
    teach, found = facts.metrics("teach"), []
    for name, label in (("student", "Accuracy of the student"), ("baseline", "Direct distillation")):
        if test := facts.tests.get(name):
            low, high = test["ci95"]
            found.append((label, f"{test['accuracy']:.1%}", f"{low:.1%} to {high:.1%}, {test['n']} test items"))
    if teach:
        pool = facts.metrics("data").get("pool")
        found.append(
            ("Teacher", f"{teach.get('queries')} queries", f"of a pool of {pool}, {dollars(teach.get('usd'))}")
        )
    if facts.exports:
        least = min(facts.exports, key=lambda e: int(e["bytes"]))
        found.append(("Smallest export", f"{least['bytes'] / device.MIB:.2f} MiB", device.name_of(least)))
    found.append(("Work", clock(sum(s.get("seconds") or 0 for s in facts.stages.values())), "all stages together"))
    return found


def provenance(facts: Facts) -> Section:
    """Which code made what from what."""
    manifest = facts.run.manifest
    rows = [
        (name, str(s.get("version", "-")), clock(s.get("seconds")), s["key"][:12], s["output"][:12],
         str(s.get("taken_from", "-")))
        for name, s in facts.stages.items()
    ]  # fmt: skip
    header = ("stage", "version", "time", "key", "output", "taken from")
    digests = sorted((facts.metrics("data").get("sha256") or {}).items())
    return Section(
        "provenance",
        "Provenance",
        [
            Note(f"Made by bridge-edge {manifest.get('version')}; recipe digest {manifest.get('digest')}; seed "
                 f"{facts.of('seed')}. Keys and outputs are the beginnings of SHA-256 sums in manifest.json."),
            Table("Stages in the order of their work", header, rows, (1, 2)),
            Table("The lock of the splits", ("split", "SHA-256"), digests),
            Text("The whole recipe", facts.recipe_text),
        ],
    )  # fmt: skip


def environment(facts: Facts) -> Section:
    """The machine that the run was made on, and those that were measured."""
    places = {"the run": facts.run.manifest.get("environment") or {}}
    places |= {f"bench on {name}": b["reports"][0]["environment"] for name, b in facts.benches.items() if b["reports"]}
    tables = [Table(f"Environment of {name}", ("what", "value"), flat(found)) for name, found in places.items()]
    return Section("environment", "Environment", tables)


def flat(found: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested values as rows with dotted names."""
    rows: list[tuple[str, str]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += flat(value, f"{before}{name}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"{before}{name}", shown))
    return rows
