"""Benchmark reports for people and for programs: a table, and one JSON line.

The table says last whether its figures may be published, and why not. HTML is made of the same rows (see `html`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from bridge_edge.plain import grid

MIB, SCHEMA = 1 << 20, 2


def line(reports: Sequence[dict[str, Any]]) -> str:
    """All the reports as one line of JSON, to be printed last."""
    return json.dumps({"schema": SCHEMA, "reports": list(reports)}, ensure_ascii=False)


def table(reports: Sequence[dict[str, Any]]) -> str:
    """One column an artifact and one row a figure, with what limits the figures below."""
    header, rows, notes = parts(reports)
    return "\n".join([grid(header, rows, right=range(1, len(header))), "", *notes])


def parts(reports: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and notes of the table."""
    sweep = len({r["protocol"]["threads"] for r in reports}) > 1
    names = [_name(r, sweep) for r in reports]
    rows = [[label, *cells] for label, cells in _rows(reports) if set(cells) != {"-"}]
    return ["", *names], rows, _notes(reports, names)


def _name(report: dict[str, Any], sweep: bool) -> str:
    threads = f" ({report['protocol']['threads']} threads)" if sweep else ""
    return f"{report['artifact']['runtime']}: {_tail(report['artifact']['path'])}{threads}"


def _tail(path: str) -> str:
    return "/".join(path.replace("\\", "/").rstrip("/").split("/")[-2:])


def _rows(reports: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    def row(label: str, cell: Callable[[dict[str, Any]], str | None]) -> tuple[str, list[str]]:
        return label, [cell(r) or "-" for r in reports]

    lengths = sorted({int(n) for r in reports for n in r["prefill"]})
    tests = list(dict.fromkeys(t["test"] for r in reports for t in r["field"]))
    return [
        row("file size, MiB", lambda r: f"{r['artifact']['bytes'] / MIB:.2f}"),
        row("load in a fresh process, s", lambda r: f"{r['memory']['load_s']:.2f}" if r["memory"] else None),
        row("load again, s", lambda r: f"{r['load']['again_s']:.3f}" if r["load"] else None),
        *((f"prefill {n}, tokens/s", [_prefill(r, n) for r in reports]) for n in lengths),
        *((f"{name}, tokens/s", [_field(r, name) for r in reports]) for name in tests),
        row("decode, tokens/s", lambda r: spread(r["decode"]["tps"])),
        row("TTFT p50 / p95, ms", lambda r: milliseconds(r["ttft_s"], "p50", "p95")),
        row("inter-token p50 / p95 / p99, ms", lambda r: milliseconds(r["inter_token_s"], "p50", "p95", "p99")),
        row("answer p50 / p95, ms", lambda r: milliseconds(r["answer_s"], "p50", "p95")),
        row("burst / sustained, tokens/s", lambda r: _sustained(r["sustained"])),
        row("tokens an answer", lambda r: f"{r['answer_tokens']['mean']:.1f}" if r["answer_tokens"] else None),
        row("peak RSS, MiB", lambda r: mebibytes(r, "peak_rss_bytes")),
        row("peak PSS, MiB", lambda r: mebibytes(r, "peak_pss_bytes")),
        row("peak RSS predicted, MiB (error)", lambda r: _predicted((r["memory"] or {}).get("predicted"))),
        row("load cold / warm, s", lambda r: _loads(r["memory"])),
        row("largest context in the cap", lambda r: _largest(r["memory"])),
        row("accuracy", lambda r: accuracy(r["quality"])),
        row("unparsed answers", lambda r: f"{r['quality']['parse_failure_rate']:.1%}" if r["quality"] else None),
        row("against the first", lambda r: _paired(r["quality"])),
        row("publishable", lambda r: "yes" if r["publishable"] else "NO"),
    ]


def _prefill(report: dict[str, Any], length: int) -> str:
    found = report["prefill"].get(str(length))
    return spread(found["tps"] if found else None) or "-"


def _field(report: dict[str, Any], name: str) -> str:
    found = next((t for t in report["field"] if t["test"] == name), None)
    return spread(found["tps"] if found else None) or "-"


def _sustained(found: dict[str, Any] | None) -> str | None:
    if not found:
        return None
    return f"{found['burst_tg_tps']:.1f} / {found['sustained_tg_tps']:.1f} ({found['kept_share']:.0%})"


def spread(found: dict[str, Any] | None) -> str | None:
    return f"{found['mean']:.1f} ± {found['sd']:.1f}" if found else None


def milliseconds(found: dict[str, Any] | None, *keys: str) -> str | None:
    return " / ".join(f"{found[key] * 1000:.2f}" for key in keys) if found else None


def mebibytes(report: dict[str, Any], key: str) -> str | None:
    value = (report["memory"] or {}).get(key)
    return None if value is None else f"{value / MIB:.1f}"


def _predicted(found: dict[str, Any] | None) -> str | None:
    return f"{found['predicted_peak_bytes'] / MIB:.1f} ({found['error']:+.0%})" if found else None


def _loads(used: dict[str, Any] | None) -> str | None:
    if not used or used.get("cold_load_s") is None:
        return None
    return f"{used['cold_load_s']:.3f} / {used['warm_load_s']:.3f}"


def _largest(used: dict[str, Any] | None) -> str | None:
    if not used or "largest_context" not in used:
        return None
    return str(used["largest_context"] or "does not fit")


def accuracy(quality: dict[str, Any] | None) -> str | None:
    if not quality:
        return None
    low, high = quality["ci95"]
    return f"{quality['accuracy']:.1%} ({low:.1%} to {high:.1%}, n={quality['n']})"


def _paired(quality: dict[str, Any] | None) -> str | None:
    found = (quality or {}).get("paired")
    return f"{found['difference']:+.1%} (p={found['mcnemar_p']:.2g})" if found else None


def _threads(reports: Sequence[dict[str, Any]]) -> str:
    return ", ".join(str(n) for n in dict.fromkeys(r["protocol"]["threads"] for r in reports))


def _notes(reports: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    first = reports[0]
    machine, protocol = first["environment"], first["protocol"]
    notes = [
        f"{machine['cpu']}, {machine['usable_cores'] or 'unknown'} usable cores, threads used: {_threads(reports)}; "
        f"{protocol['repetitions']} repetitions of {protocol['prompts']} prompts after {protocol['warmup']} warm-up",
    ]
    seen = first["contention"]
    shared = seen["reasons"]
    notes += [f"made again: {r['work']} ({r['reasons'][0]})" for r in seen["repeated"]]
    notes += [f"not publishable: {reason}" for reason in shared]
    for name, report in zip(names, reports, strict=True):
        notes += [f"not publishable ({name}): {reason}" for reason in report["reasons"] if reason not in shared]
        notes += [f"{name}: prefill {n} is beyond the context" for n in report["prefill_skipped"]]
        notes += [f"{name}: {n} is beyond the context" for n in report["field_skipped"]]
        if report["decode"]["at_once"]:
            notes.append(f"{name}: {report['decode']['at_once']} answers ended without a token")
    return notes
