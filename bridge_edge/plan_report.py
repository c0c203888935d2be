"""A plan in words, and a plan beside what happened. Plain values in, text out; nothing is computed or read here."""

from __future__ import annotations

from typing import Any

from bridge_edge.plain import grid

ACTIONS = {"finished": "skipped, finished", "copy": "copied from", "resume": "resumed", "work": "to do"}


def size(count: float | None) -> str:
    if count is None:
        return "not known"
    for unit, bound in (("GB", 1e9), ("MB", 1e6)):
        if count >= bound:
            return f"{count / bound:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def dollars(value: float | None) -> str:
    return "-" if value is None else f"${value:.4f}" if value < 1 else f"${value:,.2f}"


def plan_text(plan: dict[str, Any]) -> str:
    """The plan for people."""
    tokens, usd, stops = plan["tokens"], plan["usd"], plan["stops"]
    teacher, paid = plan["teacher"], plan["already_paid"]
    samples = f", {teacher['samples']} answers an item" if teacher["samples"] > 1 else ""
    cap = "no cap" if usd["cap"] is None else f"cap {dollars(usd['cap'])}"
    token_cap = "no cap" if tokens["cap"] is None else f"cap {tokens['cap']:,}"
    prompt, answer = tokens["prompt"], tokens["answer"]
    memory, disk = plan["memory"], plan["disk"]
    usual = f"prompt p50 {prompt['p50']}, p95 {prompt['p95']}; answer p50 {answer['p50']}, p95 {answer['p95']}"
    stop = f"{stops['cap']} after about {stops['after_calls']} calls" if stops else "no cap is expected to be met"
    rows = [
        ("Run", plan["run"]),
        ("Teacher", f"{teacher['kind']}: {teacher['model']}{samples}"),
        ("Calls", f"{plan['calls']} for a pool of {plan['pool']}, {paid['queries']} paid already"),
        ("Tokens", f"{usual}; in all {tokens['expected']:,}, at most {tokens['high']:,} ({token_cap})"),
        ("", f"counted by {tokens['counted_by']}; answers: {tokens['answers_from']}"),
        (
            "Money",
            f"low {dollars(usd['low'])}, expected {dollars(usd['expected'])}, high {dollars(usd['high'])}, {cap}",
        ),
        ("Stops", stop),
        ("Time", time_text(plan)),
        ("Disk", f"{size(disk['needed'])} to write, {size(disk['free'])} free"),
        ("Memory", f"about {size(memory['needed'])} ({memory['source']}), {size(memory['free'])} free"),
    ]
    if plan.get("signals"):
        rows.append(("Signals", f"{size(plan['signals'])} at most, of the disk, while the student learns (kd.top_k)"))
    stages = [
        (s["title"], ACTIONS[s["action"]] + (f" {s['source']}" if s["source"] else ""), clock(_time_of(plan, s)))
        for s in plan["stages"]
    ]
    lines = [f"{name:10} {text}" for name, text in rows]
    return "\n".join([*lines, *warnings(plan), "", grid(("stage", "would be", "time"), stages, right=(2,))])


def _time_of(plan: dict[str, Any], stage: dict[str, Any]) -> float | None:
    value = plan["seconds"]["stages"][stage["name"]]
    return None if value is None else float(value)


def time_text(plan: dict[str, Any]) -> str:
    unknown, known = plan["unknown_seconds"], plan["seconds"]["known"]
    if not unknown:
        return f"about {clock(known)}, by earlier runs here"
    said = f"{plan['expected']} as shipped" if plan["expected"] else "not measured for this scale"
    return f"{said}; the teacher's part {clock(plan['seconds']['teacher'])}; no earlier run here to judge the rest by"


def warnings(plan: dict[str, Any]) -> list[str]:
    found = [f"Warning    distill would stop: {plan['refused']}"] if plan.get("refused") else []
    for name in ("disk", "memory"):
        needed, free = plan[name]["needed"], plan[name]["free"]
        if needed is not None and needed > free:
            found.append(f"Warning    {name}: {size(needed)} needed, {size(free)} free")
    return found


def comparison(plan: dict[str, Any]) -> str:
    """What was planned beside what happened; empty where the run has no end yet."""
    rows = compared(plan)
    return grid(("", "planned", "happened"), rows, right=(1, 2)) if rows else ""


def compared(plan: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(what, planned, happened); none where the run has no end yet."""
    actual = plan.get("actual")
    if not actual:
        return []
    return [
        ("calls", str(plan["calls"]), str(actual["queries"])),
        ("tokens", f"{plan['tokens']['expected']:,}", f"{actual['tokens']:,}"),
        ("money", dollars(plan["usd"]["expected"]), dollars(actual["usd"])),
        ("time", "?" if plan["unknown_seconds"] else clock(plan["seconds"]["known"]), clock(actual["seconds"])),
        ("memory", size(plan["memory"]["needed"]), size(actual["peak_memory_mb"] * 1e6)),
        ("disk", size(plan["disk"]["needed"]), size(actual["disk"])),
    ]
