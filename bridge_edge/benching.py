"""What the verb bench does: find models and items, measure them, and say what a device would make of them.

The command line hands in words; here they become `BenchOptions`, and here it is decided which measurement is meant.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_edge.bench_store import HARNESS, HERE, keep
from bridge_edge.data.samples import Sample
from bridge_edge.deliver import artifacts, file_samples, held_out, named_card
from bridge_edge.errors import UserError
from bridge_edge.progress import say
from bridge_edge.run import STUDENT
from bridge_edge.runtimes.load import load_runtime

CHILD_SECONDS = 3600.0
FIELD_PP, FIELD_TG = (512,), (128,)  # what a test that is not given alone falls back to, as in llama-bench


@dataclass(frozen=True)
class Request:
    """The words of `bridge-edge bench`; lists are comma-separated, empty for none."""

    models: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    columns: str = ""
    limit: int = 200
    repetitions: int = 5
    threads: str = ""
    prompt_tokens: str = ""
    generate_tokens: str = ""
    depth: str = ""
    sustained: int = 0
    retries: int = 2
    wait: float = 0.0
    pin: bool = False
    memory_cap: str = ""
    context: bool = False
    device: str = ""
    constrained: bool = False
    think: str = ""
    lm_eval: str = ""
    host: str = ""
    host_python: str = "python3"
    keep: bool = True
    runs_dir: Path = Path("runs")


def numbers(text: str, option: str, least: int = 1) -> tuple[int, ...]:
    """A comma-separated list of numbers, in the order given."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    bad = [word for word in words if not word.isdigit() or int(word) < least]
    if bad:
        raise UserError(f"{option} {text!r} holds {bad[0]!r}", f"give numbers from {least} on, e.g. {option} 128,512")
    return tuple(dict.fromkeys(int(word) for word in words))


def paths_of(request: Request) -> list[Path]:
    """The named models, or the latest run's student and exports."""
    named = [Path(m) / STUDENT if (Path(m) / "manifest.json").is_file() else Path(m) for m in request.models]
    paths = named or artifacts(request.runs_dir)
    for path in paths:
        if not path.exists():
            raise UserError(f"no model at {str(path)!r}", "name a run, a checkpoint folder, a .gguf or an ONNX folder")
    return paths


def items_of(request: Request, first: Path) -> list[Sample]:
    """Items of the files, or the test items of the first model's run."""
    if request.files:
        runtime = load_runtime(first, None)
        card = named_card(runtime.card, None, None)
        runtime.close()
        samples = file_samples(request.files, request.columns, card, None)[: request.limit]
    else:
        samples = held_out(first, "test")[: request.limit]
    if not samples:
        raise UserError("there are no items to measure on", "add --data FILE, or bench a model inside its run")
    return samples


def refuse_mixtures(request: Request) -> None:
    """Options that do not go together, said before anything is opened or measured."""
    if request.context and not request.memory_cap:
        raise UserError("--context looks for the largest context within a cap", "add --memory-cap, e.g. 512M")
    if request.constrained and not request.device:
        raise UserError("--constrained needs a device whose cores and memory to take", "add --device, e.g. pi5")
    here = {"--device": request.device, "--pin": request.pin, "--context": request.context, "--think": request.think}
    if request.host and (wrong := [name for name, given in here.items() if given]):
        raise UserError(f"{wrong[0]} does not go with --host", "leave it out, or run bench on that machine itself")
    if request.lm_eval and (request.host or request.files):
        raise UserError("--lm-eval goes with neither --host nor --data", "leave these out")


def bench_models(request: Request) -> tuple[list[dict[str, Any]], str]:
    """Reports of the models side by side, and their table."""
    from bridge_edge.benchmarks import capacity, report
    from bridge_edge.benchmarks.bench import bench_many

    refuse_mixtures(request)
    cap = capacity.bytes_of(request.memory_cap, "--memory-cap") if request.memory_cap else None
    options = options_of(request)
    if request.device:
        from bridge_edge.benchmarks.devices import device

        where = device(request.device)
        return (constrained if request.constrained else predictions)(request, where)
    paths = paths_of(request)
    if request.lm_eval:
        return harnessed(request, paths, options)
    samples, budgets = items_of(request, paths[0]), numbers(request.think, "--think")
    if budgets and any(sample.answer is None for sample in samples):
        raise UserError("--think needs items with answers", "name their column with --columns answer=COLUMN")
    say(f"measuring {', '.join(str(p) for p in paths)} on {len(samples)} items")
    if request.host:
        reports = reached(request, paths, samples, options)
    else:
        with pinned(max(options.thread_counts) if request.pin else None):
            reports = bench_many(paths, samples, options)
    for found in reports:
        fit_memory(found, cap, request.context)
    text = report.table(reports)
    if budgets:
        text += f"\n\n{think(reports, samples, budgets)}"
    if request.keep:
        keep(f"{reports[0]['environment']['cpu']}, reached over SSH" if request.host else HERE, reports)
    return reports, text


def harnessed(request: Request, paths: list[Path], options: Any) -> tuple[list[dict[str, Any]], str]:
    """Accuracy through lm-evaluation-harness, on its items and not on the recipe's."""
    from bridge_edge.benchmarks import harness

    say(f"lm-evaluation-harness: {request.lm_eval} on {', '.join(str(p) for p in paths)}")
    found = harness.assess(paths, request.lm_eval, request.limit, options)
    if request.keep:
        keep(request.lm_eval, found, HARNESS)
    return found, harness.table(found)


def reached(request: Request, paths: list[Path], samples: list[Sample], options: Any) -> list[dict[str, Any]]:
    """The reports as another machine measures them."""
    from bridge_edge.benchmarks.reached import Host, bench_there

    return bench_there(Host(request.host, request.host_python), paths, samples, options, CHILD_SECONDS)


def think(reports: list[dict[str, Any]], samples: list[Sample], budgets: tuple[int, ...]) -> str:
    """Put the figures at each budget of reasoning into the reports; returns their table."""
    from bridge_edge.benchmarks import thinking

    first: dict[str, dict[str, Any]] = {}  # of several thread counts, as accuracy is
    for found in reports:
        first.setdefault(found["artifact"]["path"], found)
    for path, found in first.items():
        found["thinking"] = thinking.sweep(Path(path), samples, budgets, found["protocol"]["threads"])
    return thinking.table([found["thinking"] for found in first.values()])


def fit_memory(found: dict[str, Any], cap: int | None, search: bool) -> None:
    """Put the prediction of memory beside what was measured, and the largest context under a cap."""
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


def predictions(request: Request, where: Any) -> tuple[list[dict[str, Any]], str]:
    """What the named device would make of the models; nothing is run."""
    from bridge_edge.benchmarks import capacity, predict

    depths = numbers(request.depth, "--depth", least=0) or (0,)
    found = []
    for path in paths_of(request):
        shape = capacity.shape_of(path)
        for depth in depths:
            if depth > shape.context:
                raise UserError(f"--depth {depth} is beyond the context of {path}", f"give at most {shape.context}")
            found.append({"artifact": str(path), **predict.predict(shape, shape.parameters, where, depth)})
    return found, predict.prediction_table(found)


def constrained(request: Request, where: Any) -> tuple[list[dict[str, Any]], str]:
    """Each model benched in a process of its own with the device's cores and memory. Running out is a result."""
    from bridge_edge.benchmarks import constrained as limited
    from bridge_edge.benchmarks import report

    limits = limited.Limits(where.fast_cores, int(where.app_memory_gb * 1e9))
    threads = min(where.threads, len(limited.cores_here()))
    found, lines = [], []
    for path in paths_of(request):
        say(f"measuring {path} with {threads} threads and {limits.memory_bytes / 1e6:.0f} MB")
        words = [*_words(request), "--threads", str(threads), "--json"]
        command = [sys.executable, "-m", "bridge_edge.cli", "bench", str(path), *words]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        outcome = limited.run(command, limits, CHILD_SECONDS, env)
        output = outcome.pop("output").strip().splitlines()
        measured = json.loads(output[-1]) if outcome["exit_code"] == 0 and output else None
        found.append({"artifact": str(path), "device": where.name, **outcome, "report": measured})
        head = f"{path} as on {where.name} ({outcome['label']}, memory by {outcome['memory_limited_by']}): "
        lines.append(head + _outcome(outcome))
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


def _words(request: Request) -> list[str]:
    """The request's other options, as the command line would take them."""
    words = [f"--data={file}" for file in request.files]
    words += [f"--columns={request.columns}", f"--limit={request.limit}", f"--repetitions={request.repetitions}"]
    words += [f"--prompt-tokens={request.prompt_tokens}", f"--generate-tokens={request.generate_tokens}"]
    words += [f"--depth={request.depth}", f"--sustained={request.sustained}", f"--retries={request.retries}"]
    return [*words, f"--wait={request.wait:g}", f"--runs-dir={request.runs_dir}", "--no-keep"]


def options_of(request: Request) -> Any:
    """The request as `BenchOptions`. Any of the field's lengths brings the field's other defaults along."""
    from bridge_edge.benchmarks.options import BenchOptions

    prompt = numbers(request.prompt_tokens, "--prompt-tokens")
    generate = numbers(request.generate_tokens, "--generate-tokens")
    depths = numbers(request.depth, "--depth", least=0)
    if depths and not prompt and not generate:
        prompt, generate = FIELD_PP, FIELD_TG
    return BenchOptions(
        repetitions=request.repetitions,
        sweep=numbers(request.threads, "--threads"),
        prompt_tokens=prompt,
        generate_tokens=generate,
        depths=depths or (0,),
        sustained=request.sustained,
        retries=request.retries,
        wait_s=request.wait,
    )


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
