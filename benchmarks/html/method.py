"""The sections on how a student came to be: what was distilled, what it cost, what was asked, how it learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge_edge import chart, turns
from bridge_edge.benchmarks.html.facts import MODELS, Facts
from bridge_edge.benchmarks.html.page import Block, Figure, Note, Section, Table
from bridge_edge.plan_report import compared, dollars
from bridge_edge.run import ASSISTANTS, numbered

LONG = 1_200  # characters of an example that are shown
TRAINED = {
    "warmup": "TA, warm-up",
    "apprentice": "TA, apprenticeship",
    "refine": "TA, on what it explained rightly",
    "align": "Student, alignment",
    "sft": "Student, tutoring",
    "tutor": "Student, tutoring",
    "baseline": "Baseline",
}


def distilled(facts: Facts) -> Section:
    """Who taught whom, and on what."""
    data, teach = facts.metrics("data"), facts.metrics("teach")
    answers = ", ".join(map(str, facts.of("task.answers") or ())) or "free"
    rows = [
        ("Task", f"{facts.of('description') or facts.of('name')}; answers: {answers}"),
        ("Teacher", f"{teach.get('teacher') or facts.of('teacher.model')} ({facts.of('teacher.kind')})"),
        ("Teaching assistant", str(facts.of("ta.model"))),
        ("Student", str(facts.of("student.model"))),
        ("Selection", f"{facts.of('select.strategy')}, by {facts.of('select.difficulty')}"),
    ]
    if data:
        counts = f"{data.get('pool')} in the pool, {data.get('dev')} dev, {data.get('test')} test"
        rows.append(("Items", f"{counts}; {data.get('source', 'source not recorded')}; no test item is ever asked"))
    blocks: list[Block] = [Table("Who taught whom, and on what", ("what", "value"), rows)]
    if sample := facts.example:
        shown = [("Prompt", sample.prompt), ("Rationale", sample.rationale or "-"), ("Answer", sample.answer or "-")]
        cut = [(name, text if len(text) <= LONG else text[:LONG] + " …") for name, text in shown]
        blocks.append(Table("One item as the teacher answered it", ("part", "text"), cut, folded=True))
    return Section("distilled", "What was distilled", blocks)


def accuracy(facts: Facts) -> Section:
    """Accuracy on the test split with intervals, and by kind of item."""
    found = [(MODELS[name], test) for name, test in facts.tests.items()]
    if not found:
        return Section("accuracy", "Accuracy", [Note("Not measured yet: the run has not come to its evaluation.")])
    points = [percent_point(name, test) for name, test in found]
    majority = 100 * found[0][1]["majority"]
    words = "; ".join(f"{p.label} {p.value:.1f} % ({p.low:.1f} to {p.high:.1f})" for p in points)
    words += f"; always the most frequent answer {majority:.1f} %. Whiskers are 95 % intervals."
    svg = drawn(chart.intervals, "accuracy", "accuracy on test items, %", points, ("majority answer", majority))
    header = ("model", "items", "accuracy %", "95 % interval", "balanced %", "unreadable %", "tokens an answer")
    rows = [(name, str(test["n"]), *_scores(test)) for name, test in found]
    kinds = [
        (kind or "(none)", name, str(part["n"]), *_scores(part))
        for kind in found[0][1].get("per_task", {})
        for name, test in found
        if (part := test["per_task"].get(kind))
    ]
    by_kind = Table("Accuracy by kind of item", ("kind", *header), kinds, range(2, 8), folded=True)
    tables = [Table("Accuracy on the test split", header, rows, range(1, 7)), *([by_kind] if len(kinds) > 1 else [])]
    return Section("accuracy", "Accuracy", [Figure("Accuracy on the test split", svg, words), *tables, _gate(facts)])


def _gate(facts: Facts) -> Note:
    ta = next((m for name in reversed(ASSISTANTS) if (m := facts.metrics(name))), {})
    reached = ta.get("dev", {}).get("accuracy")
    wanted = facts.of("gate.accuracy")
    if reached is None or wanted is None:
        return Note("The gate of the TA was not measured.")
    passed = bool(ta.get("gate_passed"))
    held = "passed" if passed else "not passed"
    return Note(f"Gate of the TA: {reached:.1%} on dev, {wanted:.0%} wanted: {held}.", warning=not passed)


def _scores(test: dict[str, Any]) -> tuple[str, ...]:
    low, high = test["ci95"]
    tokens = test.get("mean_completion_tokens")
    return (
        f"{100 * test['accuracy']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * test['balanced_accuracy']:.1f}",
        f"{100 * test['parse_failure_rate']:.1f}",
        "-" if tokens is None else f"{tokens:.0f}",
    )


def percent_point(label: str, test: dict[str, Any], x: float = 0.0) -> chart.Point:
    """An accuracy with its interval, in percent."""
    low, high = (100 * bound for bound in test["ci95"])
    return chart.Point(label, 100 * test["accuracy"], low, high, x)


def drawn(draw: Any, *arguments: Any) -> str:
    """The drawing, or nothing where there is no library to draw with."""
    return str(draw(*arguments)) if chart.available() else ""


def budget(facts: Facts) -> Section:
    """Caps beside what was spent, and the plan beside what happened."""
    teach, caps = facts.metrics("teach"), facts.of("budget") or {}
    if not teach:
        return Section("budget", "Budget", [Note("The teacher has not been asked yet.")])
    kinds: tuple[tuple[str, str, Callable[..., str]], ...] = (
        ("queries", "queries", count), ("tokens", "tokens", count), ("money", "usd", dollars)
    )  # fmt: skip
    rows = [
        (label, show(caps.get(name)), show(teach.get(name)), share(teach.get(name), caps.get(name)))
        for label, name, show in kinds
    ]
    spent = Table("Caps and what was spent", ("what", "cap", "spent", "share"), rows, (1, 2, 3))
    planned = Table("Plan and outcome", ("what", "planned", "happened"), compared(facts.plan), (1, 2))
    names = {"usable": "usable answers", "unparsed": "unreadable", "contradicted_gold": "against the gold answer",
             "failed": "failed calls", "reused": "taken over from other runs", "cached": "from the cache"}  # fmt: skip
    counts = [(text, str(teach[name])) for name, text in names.items() if name in teach]
    replies = Table("The teacher's replies", ("what", "count"), counts, (1,))
    stopped = [Note(f"Asking ended at a cap: {teach['stopped_by']}.", True)] if teach.get("stopped_by") else []
    return Section("budget", "Budget and spend", [spent, planned, replies, *stopped])


def count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def share(value: float | None, cap: float | None) -> str:
    return "-" if not cap or value is None else f"{value / cap:.0%}"


def selection(facts: Facts) -> Section:
    """The pool in the plane, with what was chosen."""
    found = facts.drawn
    if found is None:
        return Section("selection", "Selection", [Note("Nothing has been selected yet.")])
    several = len(found.chosen) > 1
    series = {f"chosen, round {k}" if several else "chosen": points for k, points in found.chosen.items()}
    svg = drawn(chart.cloud, "selection", found.pool, series)
    count = sum(map(len, found.chosen.values()))
    words = (
        f"{count} of {found.total} items were chosen (all shown, beside {len(found.pool)} others). Near points are "
        f"items that the assistant sees as alike; the two directions hold {found.explained:.0%} of the variance, so "
        "what lies near here may lie apart in others."
    )
    rows = [("pool", str(found.total), f"{found.hard:.3f}"), ("chosen", str(count), f"{found.hard_chosen:.3f}")]
    table = Table("Difficulty under the assistant that selection asked", ("items", "count", "mean"), rows, (1, 2))
    return Section("selection", "Selection", [Figure("The pool and what was chosen", svg, words), table])


def learning(facts: Facts) -> Section:
    """Loss of every training against its progress, and what the annotations came to."""
    titles = trainings(facts)
    done = {name: m for name in titles if (m := facts.metrics(name)).get("steps")}
    header = ("training", "examples", "steps", "tokens", "tokens/s", "first loss", "last loss")
    rows = [(titles[name], *_training(m)) for name, m in done.items()]
    lines = {titles[name]: progress(m["curve"]) for name, m in done.items() if len(m.get("curve") or ()) > 1}
    blocks: list[Block] = []
    if lines:
        words = "; ".join(f"{name} from {line[0][1]:.3g} to {line[-1][1]:.3g}" for name, line in lines.items())
        svg = drawn(chart.curves, "learning", "part of the training done, %", "loss", lines)
        blocks.append(Figure("Learning curves", svg, f"{words}. Running means over about twenty steps."))
    elif rows:
        blocks.append(Note("This run was made before learning curves were kept."))
    blocks.append(Table("Trainings", header, rows, range(1, 7)))
    count = facts.of("turns.count") or 1
    for k in range(1, count + 1):
        blocks += annotated(facts.metrics(turns.name_in("annotate", k, count)), k)
    if within := facts.metrics("shorten").get("budgets"):
        words = ", ".join(f"{count} of at most {budget} tokens" for budget, count in within.items())
        blocks.append(Note(f"Rationales within budgets: {words}."))
    return Section("learning", "Learning", blocks)


def trainings(facts: Facts) -> dict[str, str]:
    """What each stage that trains a model is called, in their order; one that learns in rounds or turns is there
    often."""
    count = facts.of("turns.count") or 1
    often = {"apprentice": facts.of("select.rounds") or 1, "refine": facts.of("refine.rounds") or 1}
    found: dict[str, str] = {}
    for name, title in TRAINED.items():
        if (rounds := often.get(name, 1)) > 1:
            found |= {numbered(name, k, rounds): f"{title}, round {k}" for k in range(1, rounds + 1)}
            continue
        if name == "sft":
            found |= {turns.name_in("tutor", k, count): f"{TRAINED['tutor']}, turn {k}" for k in range(1, count)}
        found[name] = title
    if count > 1:
        found |= dict.fromkeys(("sft", "tutor"), f"{TRAINED['tutor']}, turn {count}")
    return found | ({"tutor": "Student, reinforcement"} if facts.of("reasoning.rl") else {})


def annotated(notes: dict[str, Any], turn: int) -> list[Block]:
    """What the filters took from what the assistant wrote, or the student in a later turn, and what was left."""
    writer, when = ("assistant", "") if turn == 1 else ("student", f", turn {turn}")
    taken = [(row["name"], str(row["removed"])) for row in notes.get("filters", ())]
    blocks: list[Block] = [
        Table(f"What the filters took from the {writer}'s annotations{when}", ("filter", "removed"), taken, (1,))
    ]
    if "kept" in notes:
        wrong = notes.get("right_answer_wrong_steps")
        judged = "" if wrong is None else f"; {wrong:.1%} of the right answers have a wrong step before them"
        blocks.append(Note(f"Annotation{when}: {notes['kept']} of {notes.get('pool')} items kept{judged}."))
    return blocks


def progress(curve: list[list[float]]) -> list[tuple[float, float]]:
    """(percent of the steps, loss)."""
    last = curve[-1][0]
    return [(100 * step / last, loss) for step, loss in curve]


def _training(m: dict[str, Any]) -> tuple[str, ...]:
    first = m["curve"][0][1] if m.get("curve") else None
    speed = m.get("tokens_per_second")
    return (
        str(m.get("examples", "-")),
        str(m["steps"]),
        f"{m['tokens']:,}",
        "-" if speed is None else f"{speed:,.0f}",
        "-" if first is None else f"{first:.4g}",
        f"{m['loss']:.4g}",
    )
