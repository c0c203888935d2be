"""The verbs that try a student out and show what came of it: bench, eval, run, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge_edge.errors import Failures, UserError, told
from bridge_edge.verbs.options import emit, json_option, runs_option, threads_option


@click.command()
@click.argument("models", nargs=-1)
@click.option(
    "--data",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Score on these files instead of the run's test items.",
)
@click.option("--columns", default="", help="Column map, e.g. text=question,answer=label.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="Items for accuracy.")
@click.option("--repetitions", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--prompt-tokens", default="", metavar="N,...", help="Also time prefills of these lengths (pp).")
@click.option("--generate-tokens", default="", metavar="N,...", help="Also time decoding of so many tokens (tg).")
@click.option("--depth", default="", metavar="N,...", help="KV depths for pp and tg (default: 0).")
@click.option("--sustained", type=click.IntRange(0, 1000), default=0, help="Also so many runs back to back, e.g. 20.")
@click.option("--threads", default="", metavar="N,...", help="CPU threads; several are compared (default: all cores).")
@click.option("--pin", is_flag=True, help="Keep the process on as many cores as it has threads.")
@click.option(
    "--retries", type=click.IntRange(0, 100), default=2, show_default=True, help="Disturbed repetitions to make again."
)
@click.option("--wait", type=click.FloatRange(0), default=0, help="Seconds to wait for a quiet machine.")
@click.option("--memory-cap", default="", metavar="SIZE", help="Say whether it fits, e.g. 512M.")
@click.option("--context", is_flag=True, help="Find the largest context within --memory-cap.")
@click.option("--device", default="", metavar="NAME", help="Predict for a device, e.g. pi5, phone-mid; runs nothing.")
@click.option("--constrained", is_flag=True, help="Run here with the cores and memory of --device.")
@click.option("--think", default="", metavar="N,...", help="Also accuracy and latency at these budgets of reasoning.")
@click.option(
    "--host", default="", metavar="USER@HOST", help="Measure there, over SSH; it needs a Python with a runtime."
)
@click.option("--lm-eval", default="", metavar="TASK,...", help="Tasks of lm-evaluation-harness, or task files.")
@click.option("--adb", default="", metavar="SERIAL", help="Measure on a phone, over adb (not tested on a phone).")
@click.option("--host-python", default="python3", show_default=True, help="The Python to use on --host or --adb.")
@click.option(
    "--llama-bench", default="", metavar="PATH", help="Of a machine without a Python: pp and tg by llama.cpp's program."
)
@click.option("--keep/--no-keep", default=True, help="Keep the figures in the run, for its report.  [default: keep]")
@runs_option
@json_option
def bench(models: tuple[str, ...], as_json: bool, **words: Any) -> None:
    """Measure accuracy, latency, memory and size (default: the latest run's student and all its exports).

    \b
    bridge-edge bench
    bridge-edge bench --device pi5
    bridge-edge bench MODEL.gguf ONNX_FOLDER --prompt-tokens 512 --generate-tokens 128 --depth 0,256 --threads 1,2
    """
    from bridge_edge.benching import Request, bench_models

    failures = Failures()
    reports, text = bench_models(Request(models=models, **words), failures)
    failed = [{"artifact": name, "error": str(told(error))} for name, error in failures.found.items()]
    alone = reports[0] if len(reports) == 1 else {"reports": reports}
    emit(as_json, {"reports": reports, "failed": failed} if failed else alone, text)
    for row in failed:
        click.echo(f"bridge-edge: {row['artifact']}: {row['error']}", err=True)
    if failed:
        raise click.exceptions.Exit(2)


@click.command("eval")
@click.argument("model", required=False)
@click.option(
    "--data", "files", type=click.Path(path_type=Path), multiple=True, help="JSONL, CSV or TSV; may be given again."
)
@click.option("--columns", default="", help="Column map, e.g. text=question,answer=label.")
@click.option("--prompt", default=None, help="Prompt template, where the model has no task card.")
@click.option("--answers", default=None, help="Comma-separated choices, where the model has no task card.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Only the first items of each file.")
@runs_option
@threads_option
@json_option
def evaluate(model: str | None, runs_dir: Path, threads: int | None, as_json: bool, **words: Any) -> None:
    """Score a student (run folder, HF folder, .gguf, ONNX folder) on files."""
    from bridge_edge.deliver import Exam, chosen_model, evaluate_files
    from bridge_edge.evaluate import table, to_json

    if model and Path(model).suffix in (".tsv", ".csv", ".jsonl"):
        raise UserError(f"{model!r} is data, not a model", "write bridge-edge eval MODEL --data FILE")
    exam = Exam(**words)
    if not exam.files:
        raise UserError("no data named", "add --data FILE (JSONL, CSV or TSV); may be given several times")
    scores = evaluate_files(chosen_model(model, runs_dir), exam, threads)
    emit(as_json, to_json(scores), table(scores))


@click.command()
@click.argument("words", nargs=-1, metavar="[MODEL] [QUESTION]")
@click.option("--max-new-tokens", type=click.IntRange(1), default=None)
@click.option("--think", type=click.IntRange(1), default=None, help="Tokens of reasoning at most; then it must answer.")
@runs_option
@threads_option
@json_option
def run(
    words: tuple[str, ...],
    max_new_tokens: int | None,
    think: int | None,
    runs_dir: Path,
    threads: int | None,
    as_json: bool,
) -> None:
    """Answer a question with the newest student, or its export; without a question, a prompt loop."""
    from bridge_edge.ask import Bounds, answer_loop, answer_once, split_words
    from bridge_edge.deliver import chosen_model, delivered
    from bridge_edge.parcel import check_beside
    from bridge_edge.runtimes.load import load_runtime

    bounds = Bounds(max_new_tokens, think)
    named, question = split_words(words)
    model = chosen_model(named, runs_dir) if named else delivered(runs_dir)
    check_beside(model)
    runtime = load_runtime(model, threads)
    try:
        if question is None:
            answer_loop(runtime, bounds)
        else:
            result = answer_once(runtime, question, bounds, show=not as_json)
            if as_json:
                emit(True, result, "")
    finally:
        runtime.close()


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN ...]")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="File (default: report.html in the run).")
@runs_option
@json_option
def report(runs: tuple[Path, ...], out: Path | None, runs_dir: Path, as_json: bool) -> None:
    """Write one HTML page on a run (default: the latest finished one), or one that compares several.

    \b
    bridge-edge report
    bridge-edge report runs/legal-1 runs/legal-2
    """
    from bridge_edge.reporting import write_report

    path = write_report(runs, runs_dir, out)
    emit(as_json, {"report": str(path)}, f"wrote {path}")
