"""What a grid came to: one row an arm, one a claim, and for each claim whether it holds.

A claim holds where the whole 95 % interval lies on its side of the bound, does not hold where the whole interval lies
on the other side, and is not decided otherwise. Intervals are those of `bootstrap.py`. Arms are compared over the
seeds that both have, on the same items; where the items differ there is no comparison, and the row says so.

Not covered: a correction for many claims; with twenty of them, expect one interval to be off by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bridge_edge.ablate.arms import Arm, Claim, Experiment
from bridge_edge.ablate.bootstrap import DRAWS, Comparison, Interval, compare, known_mean, rate
from bridge_edge.ablate.cells import Results, Setting, cell_of
from bridge_edge.ablate.labels import label_means, label_table
from bridge_edge.ablate.thinking import KEPT, heading, part_of, thinking_means, thinking_table

HOLDS, FAILS, OPEN, NOTHING = "holds", "does not hold", "not decided", "not measured"
WHAT = {"correct": "right", "parsed": "readable"}
TITLES = {"test": "held-out items", "files": "files given with --data"}
METHOD = (
    f"Intervals: 95 %, percentiles of {DRAWS:,} paired bootstrap draws, of seeds first and of test items within each "
    "seed, and never narrower than Wilson's or Newcombe's interval over all items. Both arms of a claim are read at "
    "the same draws. A claim holds where the whole interval is on its side, does not hold where the whole interval is "
    "on the other, and is not decided otherwise. With few seeds the spread between seeds is poorly known and such "
    "intervals are too narrow; with one seed they are over items only. McNemar: exact test over the items of all "
    "seeds. No correction for the number of claims."
)


def rows_of(arm: Arm, seeds: Sequence[int], setting: Setting, results: Results) -> dict[int, dict[str, Any]]:
    """The measured rows of an arm by seed."""
    ids = {seed: cell_of(arm, seed, setting).id for seed in seeds}
    return {seed: results.rows[name] for seed, name in ids.items() if name in results.rows}


def bits(rows: Sequence[dict[str, Any]], part: str, of: str) -> list[list[bool]]:
    return [[mark == "1" for mark in row["sets"][part][of]] for row in rows]


def arm_result(arm: Arm, found: dict[int, dict[str, Any]], part: str) -> dict[str, Any]:
    """One row of the table: accuracy, unreadable answers, what the teacher was asked, wrong steps in annotations."""
    rows = [row for row in found.values() if part in row["sets"]]
    if not rows:
        return {"arm": arm.name, "who": arm.who, "seeds": 0}

    return {
        "arm": arm.name,
        "who": arm.who,
        "share": arm.share,
        "seeds": len(rows),
        "accuracy": asdict(rate(bits(rows, part, "correct"))),
        "by_seed": [round(row["sets"][part]["correct"].count("1") / row["sets"][part]["n"], 4) for row in rows],
        "unreadable": 1 - rate(bits(rows, part, "parsed")).mean,
        "queries": known_mean([row["teacher"]["queries"] for row in rows]),
        "usd": known_mean([row["teacher"]["usd"] for row in rows]),
        "wrong_steps": known_mean([row["annotate"].get("right_answer_wrong_steps") for row in rows]),
        "kept": known_mean([row["annotate"].get("kept") for row in rows]),
        KEPT: thinking_means(rows) if part == "test" else {},
        "labels": label_means(rows),
    }


def verdict(claim: Claim, found: Comparison) -> str:
    """Whether the claim holds, by the interval that it speaks of."""
    if claim.gain is not None:
        if found.gain is None:
            return OPEN
        return _side(found.gain, claim.gain, at_least=True)
    return _side(found.difference, 0.0, at_least=claim.equal)


def _side(interval: Interval, bound: float, at_least: bool) -> str:
    if interval.low > bound or (at_least and interval.low == bound):
        return HOLDS
    if interval.high < bound:
        return FAILS
    return OPEN


def claim_result(claim: Claim, a: dict[int, dict[str, Any]], b: dict[int, dict[str, Any]], part: str) -> dict[str, Any]:
    """One row of the claims; `note` says why there is no comparison where there is none."""
    result: dict[str, Any] = {
        "claim": claim.text,
        "a": claim.a,
        "b": claim.b,
        "of": claim.of,
        "verdict": NOTHING,
        "note": "",
    }
    both = [seed for seed in a if seed in b and part in a[seed]["sets"] and part in b[seed]["sets"]]
    if not both:
        return result | {"note": "no seed has both arms"}
    same = [seed for seed in both if a[seed]["sets"][part]["items"] == b[seed]["sets"][part]["items"]]
    if len(same) < len(both):
        return result | {"note": "the arms were tested on other items"}
    ours, theirs = (bits([arm[seed] for seed in same], part, claim.of) for arm in (a, b))
    found = compare(ours, theirs)
    return result | {"verdict": verdict(claim, found), "bound": claim.gain or 0.0, **asdict(found)}


def summarise(
    experiments: Sequence[Experiment], seeds: Sequence[int], setting: Setting, results: Results
) -> dict[str, Any]:
    """All tables as plain values: for each experiment and set of items its arms and claims."""
    found: dict[str, Any] = {}
    for experiment in experiments:
        budgets = sorted({budget for arm in experiment.arms for budget in arm.think})
        parts = ["test", *(["files"] if setting.files else []), *map(part_of, budgets)]
        rows = {arm.name: rows_of(arm, seeds, setting, results) for arm in experiment.arms}
        found[experiment.name] = {
            "question": experiment.question,
            "sets": {
                part: {
                    "arms": [arm_result(arm, rows[arm.name], part) for arm in experiment.arms],
                    "claims": [claim_result(c, rows[c.a], rows[c.b], part) for c in experiment.claims],
                }
                for part in parts
            },
        }
    return found


def markdown(
    title: str, tables: dict[str, Any], failed: Sequence[str], drawn: Mapping[str, Sequence[str]] | None = None
) -> str:
    """The report for people; `drawn` names the files with figures of each experiment."""
    lines = [f"# {title}", ""]
    for name, experiment in tables.items():
        lines += [f"## {name}", "", experiment["question"], ""]
        for part, found in experiment["sets"].items():
            if len(experiment["sets"]) > 1:
                lines += [f"### On {TITLES.get(part) or heading(part)}", ""]
            lines += [
                *arm_table(found["arms"]),
                "",
                *label_table(found["arms"]),
                *thinking_table(found["arms"]),
                *claim_table(found["claims"]),
                "",
            ]
            lines += [*(told(claim) for claim in found["claims"]), ""]
        lines += [f"![{file}]({file})\n" for file in (drawn or {}).get(name, ())]
    if failed:
        lines += ["## Cells that failed", "", *(f"- {text}" for text in failed), ""]
    return "\n".join([*lines, METHOD, ""])


def shown(interval: dict[str, float] | None, unit: float = 100) -> str:
    if interval is None:
        return "-"
    mean, low, high = (unit * interval[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def arm_table(arms: Sequence[dict[str, Any]]) -> list[str]:
    header = ["arm", "queries", "teacher $", "accuracy % (95 %)", "by seed", "unreadable %", "kept", "wrong steps %"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for arm in arms:
        cells = [arm["arm"]] + ["-"] * (len(header) - 1)
        if arm["seeds"]:
            wrong, kept = arm["wrong_steps"], arm["kept"]
            cells[1:] = [
                f"{arm['queries']:.0f}",
                f"{arm['usd']:.3g}",
                shown(arm["accuracy"]),
                ", ".join(f"{100 * value:.1f}" for value in arm["by_seed"]),
                f"{100 * arm['unreadable']:.1f}",
                "-" if kept is None else f"{kept:.0f}",
                "-" if wrong is None else f"{100 * wrong:.1f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def claim_table(claims: Sequence[dict[str, Any]]) -> list[str]:
    header = ["a", "b", "of answers", "a - b, points (95 %)", "gain of a, % (95 %)", "McNemar p", "seeds"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for claim in claims:
        cells = [claim["a"], claim["b"], WHAT[claim["of"]], claim["note"] or "-", "-", "-", "-"]
        if "difference" in claim:
            p = claim["mcnemar_p"]
            cells[3:] = [shown(claim["difference"]), shown(claim["gain"]), f"{p:.2g}", str(claim["seeds"])]
        lines.append("| " + " | ".join(cells) + " |")
    return list(dict.fromkeys(lines))  # two claims may be read off one comparison


def told(claim: dict[str, Any]) -> str:
    """`- holds: ...` with the interval that decided."""
    if "difference" not in claim:
        return f"- {claim['verdict']}: {claim['claim']} ({claim['note']})"
    by_gain = bool(claim["bound"])
    which = f"gain {shown(claim['gain'])} %" if by_gain else f"{shown(claim['difference'])} points"
    return f"- {claim['verdict']}: {claim['claim']} ({which})"
