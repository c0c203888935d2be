"""What the verb bench does: find models and items, measure them, and say what a device would make of them.

The command line hands in words (a `Request`); here it is decided which measurement is meant. A model that fails, in
whatever way, does not take the others' figures along: it is kept in the `Failures` that are handed in.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bridge_edge.bench_store import HARNESS, HERE, keep
from bridge_edge.benchmarks.request import Request, cap_of, numbers, options_of, refuse_mixtures, words_of
from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.deliver import artifacts, file_samples, held_out, named_card
from bridge_edge.errors import Failures, UserError
from bridge_edge.progress import say
from bridge_edge.run import STUDENT
from bridge_edge.runtimes.load import load_runtime

CHILD_SECONDS = 3600.0


def paths_of(request: Request) -> list[Path]:
    """The named models, or the latest run's student and exports."""
    named = [Path(m) / STUDENT if (Path(m) / "manifest.json").is_file() else Path(m) for m in request.models]
    paths = named or artifacts(request.runs_dir)
    for path in paths:
        if not path.exists():
            raise UserError(f"no model at {str(path)!r}", "name a run, a checkpoint folder, a .gguf or an ONNX folder")
    return paths


def items_of(request: Request, paths: Sequence[Path], failures: Failures) -> list[Sample]:
    """Items of the files, or the test items of the first model's run."""
    if request.files:
        samples = file_samples(request.files, request.columns, card_of(paths, failures), None)[: request.limit]
    else:
        samples = held_out(paths[0], "test")[: request.limit]
    if not samples:
        raise UserError("there are no items to measure on", "add --data FILE, or bench a model inside its run")
    return samples


def card_of(paths: Sequence[Path], failures: Failures) -> Card:
    """The task card of the first model that can be opened."""
    for path in paths:
        with failures.of(path):
            runtime = load_runtime(path, None)
            card = named_card(runtime.card, None, None)
            runtime.close()
            return card
    raise next(iter(failures.found.values()))


def bench_models(request: Request, failures: Failures | None = None) -> tuple[list[dict[str, Any]], str]:
    """Reports of the models side by side, and their table; without `failures` a model that fails is an error."""
    failures = failures or Failures(keep=False)
    refuse_mixtures(request)
    if request.device:
        from bridge_edge.benchmarks.devices import device

        where = device(request.device)
        return (constrained if request.constrained else predictions)(request, where, failures)
    return (harnessed if request.lm_eval else side_by_side)(request, paths_of(request), failures)


def side_by_side(request: Request, paths: Sequence[Path], failures: Failures) -> tuple[list[dict[str, Any]], str]:
    """The models measured in turns, here or on a machine that can be reached."""
    from bridge_edge.benchmarks import report
    from bridge_edge.benchmarks.bench import bench_many

    options, budgets = options_of(request), numbers(request.think, "--think")
    samples = items_of(request, paths, failures)
    if budgets and any(sample.answer is None for sample in samples):
        raise UserError("--think needs items with answers", "name their column with --columns answer=COLUMN")
    say(f"measuring {', '.join(str(p) for p in paths)} on {len(samples)} items")
    if request.away:
        reports = reached(request, paths, samples, failures)
    else:
        with pinned(max(options.thread_counts) if request.pin else None):
            reports = bench_many(paths, samples, options, failures=failures)
    failures.end(reports)
    for found in reports:
        with failures.of(found["artifact"]["path"]):
            fit_memory(found, cap_of(request), request.context)
    text = report.table(reports) if reports else ""
    if budgets and reports:
        text += f"\n\n{think(reports, samples, budgets, failures)}"
    if request.keep and reports:
        there = f"{reports[0]['environment']['cpu']}, reached over {'SSH' if request.host else 'adb'}"
        keep(there if request.away else HERE, reports)
    return reports, text


def harnessed(request: Request, paths: Sequence[Path], failures: Failures) -> tuple[list[dict[str, Any]], str]:
    """Accuracy through lm-evaluation-harness, on its items and not on the recipe's."""
    from bridge_edge.benchmarks import harness

    say(f"lm-evaluation-harness: {request.lm_eval} on {', '.join(str(p) for p in paths)}")
    found = harness.assess(paths, request.lm_eval, request.limit, options_of(request), failures)
    failures.end(found)
    if request.keep:
        keep(request.lm_eval, found, HARNESS)
    return found, harness.table(found) if found else ""


def reached(
    request: Request, paths: Sequence[Path], samples: Sequence[Sample], failures: Failures
) -> list[dict[str, Any]]:
    """The reports as another machine measures them."""
    from bridge_edge.benchmarks.reached import Host, Phone, bench_there

    way = Host(request.host, request.host_python) if request.host else Phone(request.adb, request.host_python)
    options = options_of(request)
    return bench_there(way, paths, samples, options, CHILD_SECONDS, failures, request.llama_bench)


def think(
    reports: Sequence[dict[str, Any]], samples: Sequence[Sample], budgets: tuple[int, ...], failures: Failures
) -> str:
    """Put the figures at each budget of reasoning into the reports; returns their table."""
    from bridge_edge.benchmarks import thinking

    first: dict[str, dict[str, Any]] = {}  # of several thread counts, as accuracy is
    for found in reports:
        first.setdefault(found["artifact"]["path"], found)
    for path, found in first.items():
        with failures.of(path):
            found["thinking"] = thinking.sweep(Path(path), samples, budgets, found["protocol"]["threads"])
    return thinking.table([found["thinking"] for found in first.values() if "thinking" in found])


def fit_memory(found: dict[str, Any], cap: int | None, search: bool) -> None:
    """Put the prediction of memory beside what was measured, and the largest context under a cap; raises UserError,
    with all of it in place, where the measured answers alone took more than the cap."""
    from bridge_edge.benchmarks import capacity, memory

    used = found["memory"]
    if not used:
        return
    path, threads = Path(found["artifact"]["path"]), found["protocol"]["threads"]
    shape = capacity.shape_of(path)
    asked = int(found["protocol"]["prompt_tokens"]) + found["protocol"]["max_new_tokens"]
    used["predicted"] = capacity.compared(shape, used, min(asked, shape.context))
    if cap is not None:
        used["cap_bytes"], used["within_cap"] = cap, used["peak_rss_bytes"] <= cap
    if search and cap is not None:
        say(f"looking for the largest context of {path} within {cap} bytes")

        def probe(context: int) -> int:
            return int(memory.measure(path, [], 1, threads, context=context)["peak_rss_bytes"])

        largest, seen = capacity.largest_context(probe, cap, shape.context)
        used["largest_context"] = largest
        used["context_probes"] = [
            {
                "context": n,
                "measured_peak_bytes": peak,
                "predicted_peak_bytes": capacity.compared(shape, used, n)["predicted_peak_bytes"],
            }
            for n, peak in seen
        ]
    if cap is not None and not used["within_cap"]:
        peak = used["peak_rss_bytes"] / (1 << 20)
        raise UserError(
            f"its peak of {peak:.1f} MiB is beyond the cap of {cap / (1 << 20):.1f} MiB",
            "raise --memory-cap, or export with a smaller --quant",
        )


def predictions(request: Request, where: Any, failures: Failures) -> tuple[list[dict[str, Any]], str]:
    """What the named device would make of the models; nothing is run."""
    from bridge_edge.benchmarks import capacity, predict

    depths = numbers(request.depth, "--depth", least=0) or (0,)
    found = []
    for path in paths_of(request):
        with failures.of(path):
            shape = capacity.shape_of(path)
            if max(depths) > shape.context:
                raise UserError(
                    f"--depth {max(depths)} is beyond the context of {path}", f"give at most {shape.context}"
                )
            found += [
                {"artifact": str(path), **predict.predict(shape, shape.parameters, where, depth)} for depth in depths
            ]
    failures.end(found)
    return found, predict.prediction_table(found) if found else ""


def constrained(request: Request, where: Any, failures: Failures) -> tuple[list[dict[str, Any]], str]:
    """Each model benched in a process of its own with the device's cores and memory. Running out is a result."""
    from bridge_edge.benchmarks import constrained as limited
    from bridge_edge.benchmarks import report

    limits = limited.Limits(where.fast_cores, int(where.app_memory_gb * 1e9))
    threads = min(where.threads, len(limited.cores_here()))
    found, lines = [], []
    for path in paths_of(request):
        say(f"measuring {path} with {threads} threads and {limits.memory_bytes / 1e6:.0f} MB")
        words = [*words_of(request), "--threads", str(threads), "--json"]
        command = [sys.executable, "-m", "bridge_edge.cli", "bench", str(path), *words]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        outcome = limited.run(command, limits, CHILD_SECONDS, env)
        output = outcome.pop("output").strip().splitlines()
        measured = json.loads(output[-1]) if outcome["exit_code"] == 0 and output else None
        found.append({"artifact": str(path), "device": where.name, **outcome, "report": measured})
        head = f"{path} as on {where.name} ({outcome['label']}, memory by {outcome['memory_limited_by']}): "
        lines.append(head + _outcome(outcome))
        with failures.of(path):
            if outcome["exit_code"] and not outcome["oom"]:
                raise UserError(_outcome(outcome))
        if measured:
            lines.append(report.table([measured]))
    if request.keep:
        keep(f"{limited.label()}, as on {where.name}", [f["report"] for f in found if f["report"]])
    return found, "\n".join(lines)


def _outcome(outcome: dict[str, Any]) -> str:
    if outcome["exit_code"] == 0:
        return f"ran on {outcome['cores']} of {outcome['cores_asked']} cores"
    if outcome["oom"]:
        return f"OUT OF MEMORY under {outcome['memory_bytes'] / 1e6:.0f} MB ({outcome['said']})"
    return "took too long" if outcome["timed_out"] else f"failed: {outcome['said']}"


@contextmanager
def pinned(cores: int | None) -> Iterator[None]:
    """Keep this process, and the threads it starts, on the first `cores` of its cores; a report records which."""
    if cores is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("this system cannot pin a process to cores", "leave --pin out")
    allowed = os.sched_getaffinity(0)
    if cores > len(allowed):
        raise UserError(f"cannot pin {cores} threads to {len(allowed)} cores", "give fewer --threads")
    os.sched_setaffinity(0, set(sorted(allowed)[:cores]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
