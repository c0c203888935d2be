"""The page of several runs side by side: what differs between them, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge_edge import chart
from bridge_edge.benchmarks import report
from bridge_edge.benchmarks.html.device import EXPORT, artifact_name, export_row
from bridge_edge.benchmarks.html.facts import MODELS, Facts
from bridge_edge.benchmarks.html.method import TRAINED, count, drawn, percent_point, progress
from bridge_edge.benchmarks.html.page import Block, Figure, Note, Page, Section, Table
from bridge_edge.benchmarks.html.single import flat
from bridge_edge.evaluate import paired
from bridge_edge.plan_report import clock, dollars


def page_of(runs: Sequence[Facts]) -> Page:
    """The runs as columns, in the order in which they were named; differences are to the first."""
    sections = [differences(runs), outcomes(runs), learning(runs), artifacts(runs)]
    title = f"{len(runs)} runs compared"
    return Page(title, ", ".join(facts.name for facts in runs), [], sections)


def differences(runs: Sequence[Facts]) -> Section:
    """The values of the recipes that are not the same everywhere."""
    flats = [dict(flat(facts.recipe)) for facts in runs]
    names = list(dict.fromkeys(name for values in flats for name in values))
    rows = [(n, *(values.get(n, "-") for values in flats)) for n in names if len({v.get(n) for v in flats}) > 1]
    blocks: list[Block] = [Table("Values that differ", ("value", *(facts.name for facts in runs)), rows)]
    return Section("differences", "What differs", blocks if rows else [Note("The recipes are the same.")])


def outcomes(runs: Sequence[Facts]) -> Section:
    """Accuracy with intervals, cost and time; and paired differences where the test items are the same."""
    students = [(facts, facts.tests["student"]) for facts in runs if "student" in facts.tests]
    blocks: list[Block] = []
    if students:
        points = [percent_point(facts.name, test) for facts, test in students]
        words = "; ".join(f"{p.label} {p.value:.1f} % ({p.low:.1f} to {p.high:.1f})" for p in points)
        svg = drawn(chart.intervals, "students", "accuracy of the student on test items, %", points)
        blocks.append(Figure("Accuracy of the students", svg, f"{words}. Whiskers are 95 % intervals."))
    priced = [(facts, test) for facts, test in students if facts.metrics("teach").get("usd")]
    if len({facts.metrics("teach")["usd"] for facts, _ in priced}) > 1:
        at_cost = [percent_point(facts.name, test, facts.metrics("teach")["usd"]) for facts, test in priced]
        words = "; ".join(f"{p.label} {p.value:.1f} % at {dollars(p.x)}" for p in at_cost)
        svg = drawn(chart.trade, "money", "cost of the teacher, $", "accuracy of the student, %", at_cost)
        blocks.append(Figure("Accuracy against cost", svg, f"{words}."))
    header = ("what", *(facts.name for facts in runs))
    blocks.append(Table("Outcomes", header, outcome_rows(runs), range(1, len(header))))
    return Section("outcomes", "Outcomes", [*blocks, *paired_table(runs)])


def outcome_rows(runs: Sequence[Facts]) -> list[tuple[str, ...]]:
    """One row a figure, one column a run."""

    def row(label: str, cells: Sequence[str | None]) -> tuple[str, ...]:
        return label, *(cell or "-" for cell in cells)

    rows = [
        row(f"accuracy: {label}", [report.accuracy(facts.tests.get(name)) for facts in runs])
        for name, label in MODELS.items()
    ]
    for name, label in (("queries", "teacher queries"), ("tokens", "teacher tokens")):
        rows.append(row(label, [count(facts.metrics("teach").get(name)) for facts in runs]))
    rows.append(row("teacher, $", [dollars(facts.metrics("teach").get("usd")) for facts in runs]))
    rows.append(row("annotations kept", [count(facts.metrics("annotate").get("kept")) for facts in runs]))
    rows.append(row("work", [clock(sum(s.get("seconds") or 0 for s in f.stages.values())) for f in runs]))
    return [r for r in rows if set(r[1:]) != {"-"}]


def paired_table(runs: Sequence[Facts]) -> list[Block]:
    """Differences of the students to the first run's, on the same items; a note for runs with others."""
    first, *others = runs
    rows, blocks = [], []
    for facts in others:
        mine, theirs = (_marks(f) for f in (facts, first))
        if not mine or not theirs:
            continue
        if mine.keys() != theirs.keys():
            blocks.append(Note(f"{facts.name} was tested on other items than {first.name}: no paired comparison."))
            continue
        found = paired([mine[i] for i in theirs], list(theirs.values()))
        low, high = (100 * bound for bound in found["ci95"])
        rows.append((facts.name, str(found["n"]), f"{100 * found['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}",
                     str(found["only_a"]), str(found["only_b"]), f"{found['mcnemar_p']:.2g}"))  # fmt: skip
    header = ("run", "items", "points", "95 % interval", "right here only", "right there only", "McNemar p")
    return [Table(f"Students against that of {first.name}, on the same items", header, rows, range(1, 7)), *blocks]


def _marks(facts: Facts) -> dict[str, bool]:
    """Which test items the student has right."""
    return {r["id"]: bool(r["correct"]) for r in facts.tests.get("student", {}).get("records", ())}


def learning(runs: Sequence[Facts]) -> Section:
    """The students' tutoring, run by run."""
    curves = {facts.name: (facts.metrics("sft") or facts.metrics("tutor")).get("curve") or [] for facts in runs}
    lines = {name: progress(curve) for name, curve in curves.items() if len(curve) > 1}
    if not lines:
        return Section("learning", "Learning", [])
    words = "; ".join(f"{name} from {line[0][1]:.3g} to {line[-1][1]:.3g}" for name, line in lines.items())
    svg = drawn(chart.curves, "tutoring", "part of the training done, %", "loss", lines)
    return Section("learning", "Learning", [Figure(f"Learning curves: {TRAINED['tutor']}", svg, f"{words}.")])


def artifacts(runs: Sequence[Facts]) -> Section:
    """Exports, and what was measured of them, as rows."""
    rows = [(facts.name, *export_row(found)) for facts in runs for found in facts.exports]
    fast = ("run", "place", "artifact", "decode tokens/s", "TTFT p50, ms", "peak RSS, MiB", "accuracy", "publishable")
    speed = [
        (facts.name, place, *_measured(r))
        for facts in runs
        for place, found in facts.benches.items()
        for r in found["reports"]
    ]
    tables = [Table("Exports", ("run", *EXPORT), rows, range(2, 10)), Table("As measured", fast, speed, range(3, 7))]
    return Section("artifacts", "Exports and measurements", tables)


def _measured(found: dict[str, Any]) -> tuple[str, ...]:
    cells = (
        report.spread(found["decode"]["tps"]),
        report.milliseconds(found["ttft_s"], "p50"),
        report.mebibytes(found, "peak_rss_bytes"),
        report.accuracy(found["quality"]),
    )
    return artifact_name(found), *(cell or "-" for cell in cells), "yes" if found["publishable"] else "NO"
