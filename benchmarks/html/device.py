"""The sections on what ships: exports and their parity, speed and memory as measured, devices as predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridge_edge import chart
from bridge_edge.benchmarks import harness, report, thinking
from bridge_edge.benchmarks.html.facts import Facts
from bridge_edge.benchmarks.html.method import drawn, percent_point
from bridge_edge.benchmarks.html.page import Block, Figure, Note, Section, Table
from bridge_edge.evaluate import wilson

MIB = 1 << 20
EXPORT = ("export", "MiB", "bits a weight", "mean KL", "same next token %", "same whole answer %", "accuracy before",
          "after", "difference, points (95 %)", "held")  # fmt: skip


def exports(facts: Facts) -> Section:
    """Every export with its size and the proof that it says what the student says."""
    rows = [export_row(found) for found in facts.exports]
    blocks: list[Block] = [Table("Exports and their parity with the student", EXPORT, rows, range(1, 9))]
    for found in facts.exports:
        parity, name = found.get("parity") or {}, name_of(found)
        blocks += [Note(f"{name}: {failure}", warning=True) for failure in parity.get("failures", ())]
        if found.get("fallbacks"):
            blocks.append(Note(f"{name}: {len(found['fallbacks'])} of its tensors in another type than asked for."))
    blocks += size_trade(facts.exports)
    if not rows:
        blocks.append(Note("Nothing has been exported yet; bridge-edge export makes a GGUF or ONNX file."))
    return Section("exports", "Exports and parity", blocks)


def size_trade(found: list[dict[str, Any]]) -> list[Figure]:
    """Accuracy against file size as the exports' own checks found it on dev items; needs two exports."""
    checked = [(e, quality) for e in found if (quality := (e.get("parity") or {}).get("accuracy"))]
    if len(checked) < 2:
        return []
    points = []
    for e, quality in checked:
        low, high = wilson(round(quality["accuracy_b"] * quality["n"]), quality["n"])
        points.append(chart.Point(name_of(e), 100 * quality["accuracy_b"], 100 * low, 100 * high, e["bytes"] / MIB))
    return [trade_figure("exports", "size, on dev items", "file size, MiB", points)]


def name_of(export: dict[str, Any]) -> str:
    return f"{export.get('fmt')} {export.get('quant')}"


def export_row(found: dict[str, Any]) -> tuple[str, ...]:
    parity = found.get("parity") or {}
    quality = parity.get("accuracy") or {}

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    drop = "-"
    if quality:
        # Stored is before - after; a reader expects a loss to be negative.
        low, high = (0.0 - 100 * bound for bound in reversed(quality["ci95"]))
        drop = f"{0.0 - 100 * quality['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
    kl = parity.get("mean_kl")
    return (
        name_of(found),
        f"{found['bytes'] / MIB:.2f}",
        f"{found['bits_per_weight']:.2f}",
        "-" if kl is None else f"{kl:.2g}",
        share(parity.get("top1")),
        share(parity.get("greedy_equal")),
        share(quality.get("accuracy_a")),
        share(quality.get("accuracy_b")),
        drop,
        "yes" if parity.get("passed") else "NO",
    )


def measured(facts: Facts) -> Section:
    """Speed, memory and accuracy as `bridge-edge bench` found them, one table a place."""
    blocks: list[Block] = []
    for place, found in facts.benches.items():
        reports = found["reports"]
        if not reports:
            continue
        header, rows, notes = report.parts(reports)
        unfit = [r for r in reports if not r["publishable"]]
        blocks.append(Table(f"Measured on {place}", ("figure", *header[1:]), rows, range(1, len(header))))
        blocks += [Note(text, warning=text.startswith("not publishable")) for text in notes]
        if not unfit:
            blocks.append(Note("The machine was quiet before, during and after: these figures may be published."))
        thought = [r["thinking"] for r in reports if r.get("thinking")]
        if thought:
            columns, lines = thinking.parts(thought)
            blocks.append(Table(f"At budgets of reasoning, on {place}", columns, lines, range(1, len(columns))))
        blocks += trades(place, reports)
    for tasks, found in facts.harness.items():
        head, scores = harness.parts(found["reports"])
        caption = f"Through lm-evaluation-harness: {tasks} (95 % intervals)"
        blocks.append(Table(caption, head, scores, range(2, len(head))))
    if not blocks:
        blocks.append(Note("Not measured yet: bridge-edge bench measures the student and its exports."))
    return Section("measured", "Latency and memory", blocks)


def trades(place: str, reports: list[dict[str, Any]]) -> list[Figure]:
    """Accuracy against file size and against the time of an answer; needs two artifacts that were scored."""
    scored = [r for r in reports if r["quality"] and r["answer_s"]]
    if len(scored) < 2:
        return []
    axes = {
        "size": ("file size, MiB", [r["artifact"]["bytes"] / MIB for r in scored]),
        "latency": ("time of an answer (p50), ms", [1000 * r["answer_s"]["p50"] for r in scored]),
    }
    found = []
    for end, (label, values) in axes.items():
        points = [percent_point(artifact_name(r), r["quality"], x) for r, x in zip(scored, values, strict=True)]
        found.append(trade_figure(place, f"{end}, {place}", label, points))
    return found


def trade_figure(name: str, against: str, label: str, points: list[chart.Point]) -> Figure:
    """Accuracy against a cost, with the points in words."""
    best = ", ".join(p.label for p in chart.front(points))
    words = "; ".join(f"{p.label}: {p.value:.1f} % at {p.x:.3g}" for p in points)
    svg = drawn(chart.trade, f"{name}-{against}", label, "accuracy, %", points)
    return Figure(f"Accuracy against {against}", svg, f"{words} ({label}). Not beaten in both: {best}.")


def artifact_name(found: dict[str, Any]) -> str:
    return f"{found['artifact']['runtime']}: {Path(found['artifact']['path']).name}"


def devices(facts: Facts) -> Section:
    """What devices that are not here would make of the exports. Every figure is labelled as predicted."""
    rows, points = [], []
    smallest = min(facts.predictions, key=lambda p: p["streamed_bytes"], default=None)
    for p in facts.predictions:
        low, high = p["interval90"]
        remark = ["extrapolated"] if p["extrapolated"] else []
        remark += ["no published figure of such a device for this runtime"] if p["kind_unseen"] else []
        need = f"{p['need_bytes'] / 1e6:.0f} of {p['allowed_bytes'] / 1e6:.0f}"
        name = Path(p["artifact"]).name
        rows.append((p["title"], name, f"{p['decode_tps']:.0f}", f"{low:.0f} to {high:.0f}",
                     need + ("" if p["fits"] else ": TOO LARGE"), "; ".join(remark) or "-"))  # fmt: skip
        if smallest and p["artifact"] == smallest["artifact"]:
            points.append(chart.Point(p["title"], p["decode_tps"], low, high))
    if not rows:
        return Section("devices", "Other devices", [Note("Nothing to predict from: there is no export yet.")])
    header = ("device", "artifact", "decode tokens/s, predicted", "90 % interval", "MB needed of allowed", "remark")
    name = Path(smallest["artifact"]).name if smallest else ""
    slow, fast = (choose(points, key=lambda p: p.value) for choose in (min, max))
    span = f"From {slow.value:.0f} tokens/s on {slow.label} to {fast.value:.0f} on {fast.label}"
    words = f"{span}. Predicted, not measured; whiskers are 90 % intervals."
    svg = drawn(chart.intervals, "devices", "decode, tokens/s, predicted", points)
    caption = "Predicted from published figures of other models (bridge-edge bench --device NAME says more)"
    blocks: list[Block] = [Figure(f"Decode speed of {name}, predicted", svg, words)]
    if any(p["extrapolated"] for p in facts.predictions):
        blocks.insert(0, Note("Extrapolated: no model with a published figure is nearly as small or as large as these "
                              "files, so take the figures for a rough bound.", warning=True))  # fmt: skip
    return Section("devices", "Other devices (predicted)", [*blocks, Table(caption, header, rows, (2, 3, 4))])
