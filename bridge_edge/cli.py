"""The command line: click verbs that translate words into calls and print what comes back.

Every verb takes `--json` (one JSON object, the last line of stdout); people's text and progress go to stderr, except
the tables that a verb exists to print. Exit codes: 0 done, 1 a check failed (parity, doctor), 2 bad input, 130 Ctrl-C.
Heavy modules are imported inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bridge_edge import __version__
from bridge_edge.errors import UserError, unknown

DEFAULT_RUNS = "runs"


def quiet_environment() -> None:
    """Set what must stand before torch is imported: a wait policy that does not starve a busy machine, no telemetry.

    oneDNN keeps the compiled kernels of the last 1,024 shapes; with batches of ever other shapes that is 400 MB which
    nothing comes back to, and with 64 training is as fast.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if own := os.environ.get("BRIDGE_EDGE_HOME"):
        os.environ.setdefault("HF_HOME", str(Path(own) / "huggingface"))


def emit(as_json: bool, value: dict[str, Any], text: str) -> None:
    """Print a result: one JSON line for scripts, or the text for people."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on the last line of stdout.")(
        function
    )


def runs_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--runs-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_RUNS,
        show_default=True,
        help="Where runs lie.",
    )(function)


def threads_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--threads", type=click.IntRange(1, 256), default=None, help="CPU threads (default: all cores)."
    )(function)


class Group(click.Group):
    """A group whose unknown verbs are answered with the nearest known one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bridge-edge")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Distil an expensive teacher into a model small enough to run offline."""


@cli.command()
@click.argument("words", nargs=-1, metavar="recipe=NAME [scale=NAME] [key=value ...]")
@runs_option
@click.option("--device", default="cpu", show_default=True, help="Torch device, e.g. cpu or cuda.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Teacher calls at once.")
@click.option(
    "--cache",
    metavar="DIR|none",
    default=None,
    help="Answers bought by earlier runs (default: your own cache for API teachers, none for the others).",
)
@threads_option
@json_option
def distill(
    words: tuple[str, ...],
    runs_dir: Path,
    device: str,
    concurrency: int,
    cache: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run both phases of a recipe; running the same command again resumes or does nothing.

    \b
    bridge-edge distill recipe=legal
    bridge-edge distill recipe=legal budget.queries=200 student.lr=1e-3
    bridge-edge distill recipe=my-task.yaml teacher=openai teacher.model=NAME
    """
    use_threads(threads)
    from bridge_edge.distill import distill as run_distill
    from bridge_edge.distill import summary_text

    summary = run_distill(words, runs_dir, device, concurrency, cache=cache)
    emit(as_json, summary, summary_text(summary))


@cli.command()
@click.argument("words", nargs=-1, metavar="recipe=NAME [scale=NAME] [key=value ...]")
@runs_option
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Teacher calls at once.")
@json_option
def plan(words: tuple[str, ...], runs_dir: Path, concurrency: int, as_json: bool) -> None:
    """Say what a run would ask, cost, take and do, without doing any of it.

    \b
    bridge-edge plan recipe=legal
    bridge-edge plan recipe=legal teacher=openai-batch teacher.model=NAME budget.usd=1.50
    """
    from bridge_edge.plan import plan as make_plan
    from bridge_edge.plan_report import plan_text

    found = make_plan(words, runs_dir, concurrency)
    emit(as_json, found, plan_text(found))


@cli.command()
@click.argument("words", nargs=-1, metavar="recipe=NAME [EXPERIMENT ...] [key=value ...]")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each arm.")
@click.option("--list", "as_list", is_flag=True, help="Name the experiments and run nothing.")
@click.option("--smoke", is_flag=True, help="Tiny sizes: shows that it runs, and its figures mean nothing.")
@click.option("--paid", is_flag=True, help="Agree to ask a paid teacher for the whole grid.")
@click.option(
    "--data",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Score on these files too; may be given again.",
)
@runs_option
@click.option("--device", default="cpu", show_default=True, help="Torch device, e.g. cpu or cuda.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Teacher calls at once.")
@click.option("--cache", metavar="DIR|none", default=None, help="Answers bought by earlier runs, as in distill.")
@threads_option
@json_option
def ablate(
    words: tuple[str, ...],
    as_list: bool,
    smoke: bool,
    paid: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare arms of a recipe over seeds, with paired intervals; the same command again resumes.

    \b
    bridge-edge ablate --list
    bridge-edge ablate recipe=legal --seeds 3
    bridge-edge ablate recipe=legal budgets selection budget.usd=2
    """
    if as_list:
        from bridge_edge.ablate.verb import listing, listing_text

        emit(as_json, {"experiments": listing()}, listing_text())
        return
    use_threads(options["threads"])
    from bridge_edge.ablate.cells import Setting
    from bridge_edge.ablate.verb import ablate as run_ablate

    found = run_ablate(words, Setting(words=(), **options), smoke, paid)
    text = found.pop("text")
    emit(as_json, found, f"{text}\nReport     {found['folder']}/report.md")
    if found["failed"]:
        sys.exit(1)


def use_threads(threads: int | None) -> None:
    """Bound torch's threads before any work; the count never enters a stage's key."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def chosen_model(model: str | None, runs_dir: Path) -> Path:
    """The named model, or the student of the latest finished run (which is said on stderr)."""
    from bridge_edge.distill import STUDENT
    from bridge_edge.run import Run, latest

    if model is None:
        run = latest(runs_dir)
        click.echo(f"using the student of {run.path}", err=True)
        return run.path / STUDENT
    path = Path(model)
    if (path / "manifest.json").is_file():
        run = Run(path)
        if not (path / STUDENT).is_dir():
            raise UserError(f"the run {path} has no student yet", "finish it by running its distill command again")
        return run.path / STUDENT
    return path


@cli.command()
@click.argument("model", required=False)
@click.option("--format", "formats", type=click.Choice(["gguf", "onnx", "all"]), default="gguf", show_default=True)
@click.option("--quant", default=None, help="Q8_0, Q4_K_M, auto ... (gguf), fp32, fp16, int8, int4 (onnx).")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder (default: export/ in the run).")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    default=None,
    help="Texts for the importance matrix, rows with prompt, rationale, answer (default: the run's rationales).",
)
@click.option("--imatrix/--no-imatrix", "importance", default=True, help="Use an importance matrix.  [default: yes]")
@click.option(
    "--tensor", "tensors", multiple=True, metavar="NAME=TYPE", help="Type of tensors, e.g. blk.*.ffn_down.weight=Q6_K."
)
@click.option("--minutes", type=click.FloatRange(0.1), default=15.0, show_default=True, help="Time for --quant auto.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Points of dev accuracy that --quant auto may lose.",
)
@click.option("--items", type=click.IntRange(1), default=200, show_default=True, help="Dev items for the checks.")
@click.option("--block-size", type=int, default=None, help="ONNX: weights to a scale, 16 to 256.  [default: 32]")
@click.option(
    "--accuracy-level",
    type=int,
    default=None,
    help="ONNX: activations as 1 fp32, 2 fp16, 3 bf16, 4 int8.  [default: 4]",
)
@click.option("--algorithm", default=None, help="ONNX: rtn, k_quant, k_quant_mixed ...  [default: k_quant for int4]")
@runs_option
@threads_option
@json_option
def export(
    model: str | None,
    formats: str,
    out: Path | None,
    runs_dir: Path,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Quantise and convert a student (default: the latest finished run's) and prove that it says the same."""
    from bridge_edge.shipping import ExportOptions, export_text, export_to

    source = chosen_model(model, runs_dir)
    chosen = ["gguf", "onnx"] if formats == "all" else [formats]
    results = export_to(source, chosen, ExportOptions(**options), out, threads)
    emit(as_json, {"exports": results}, export_text(results))


@cli.command()
@click.argument("model", required=False)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="Repository on the hub; made where it is missing.")
@click.option("--yes", is_flag=True, help="Upload; without it the files are only listed.")
@click.option("--public", is_flag=True, help="Make a new repository public.")
@click.option("--key", type=click.Path(path_type=Path), default=None, help="Public key: send only what it confirms.")
@runs_option
@json_option
def push(
    model: str | None, repo: str, yes: bool, public: bool, key: Path | None, runs_dir: Path, as_json: bool
) -> None:
    """Upload an export (a run with one, or its folder) to the hub; a dry run unless --yes is given."""
    from bridge_edge.parcel import find
    from bridge_edge.push import push as run_push
    from bridge_edge.push import push_text

    told = run_push(find(model, runs_dir), repo, yes, public, key)
    emit(as_json, told, push_text(told))


@cli.command()
@click.argument("model", required=False)
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Private elliptic-curve key, PEM.")
@click.option("--password-env", default=None, metavar="NAME", help="Variable with the key's password.")
@runs_option
@json_option
def sign(model: str | None, key: Path, password_env: str | None, runs_dir: Path, as_json: bool) -> None:
    """Sign an export with your own key (model.sig, as model-signing writes it)."""
    from bridge_edge.parcel import find
    from bridge_edge.parcel import sign as run_sign

    parcel = run_sign(find(model, runs_dir), key, password_env)
    told = {"folder": str(parcel.folder), "files": parcel.names(), "signed": parcel.signed}
    emit(as_json, told, f"signed {len(parcel.files)} files of {parcel.folder}")


@cli.command()
@click.argument("model", required=False)
@click.option("--key", type=click.Path(path_type=Path), default=None, help="Public key: check the signature too.")
@runs_option
@json_option
def verify(model: str | None, key: Path | None, runs_dir: Path, as_json: bool) -> None:
    """Check that an export is whole (SHA256SUMS) and, with a public key, whose it is."""
    from bridge_edge.parcel import find
    from bridge_edge.parcel import verify as run_verify

    parcel = run_verify(find(model, runs_dir), key)
    told = {"folder": str(parcel.folder), "files": parcel.names(), "signature": key is not None}
    words = "the sums and the signature hold" if key else "the sums hold"
    emit(as_json, told, f"{parcel.folder}: {len(parcel.files)} files, {words}")


@cli.command()
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

    reports, text = bench_models(Request(models=models, **words))
    emit(as_json, {"reports": reports} if len(reports) != 1 else reports[0], text)


@cli.command("eval")
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
def evaluate(
    model: str | None,
    files: tuple[Path, ...],
    columns: str,
    prompt: str | None,
    answers: str | None,
    limit: int | None,
    runs_dir: Path,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score a student (run folder, HF folder, .gguf, ONNX folder) on files."""
    from bridge_edge.deliver import evaluate_files
    from bridge_edge.evaluate import table, to_json

    if model and Path(model).suffix in (".tsv", ".csv", ".jsonl"):
        raise UserError(f"{model!r} is data, not a model", "write bridge-edge eval MODEL --data FILE")
    if not files:
        raise UserError("no data named", "add --data FILE (JSONL, CSV or TSV); may be given several times")
    scores = evaluate_files(chosen_model(model, runs_dir), files, columns, prompt, answers, limit, threads)
    emit(as_json, to_json(scores), table(scores))


@cli.command()
@click.argument("words", nargs=-1, metavar="[MODEL] [QUESTION]")
@click.option("--max-new-tokens", type=click.IntRange(1), default=None)
@runs_option
@threads_option
@json_option
def run(words: tuple[str, ...], max_new_tokens: int | None, runs_dir: Path, threads: int | None, as_json: bool) -> None:
    """Answer a question with the newest student; without a question, a prompt loop."""
    from bridge_edge.ask import answer_loop, answer_once, split_words
    from bridge_edge.runtimes.load import load_runtime

    model, question = split_words(words)
    runtime = load_runtime(chosen_model(model, runs_dir), threads)
    try:
        if question is None:
            answer_loop(runtime, max_new_tokens)
        else:
            result = answer_once(runtime, question, max_new_tokens, show=not as_json)
            if as_json:
                emit(True, result, "")
    finally:
        runtime.close()


@cli.group(invoke_without_command=True, cls=Group)
@json_option
@click.pass_context
def recipes(ctx: click.Context, as_json: bool) -> None:
    """List the shipped recipes; `recipes show NAME` prints one in full."""
    from bridge_edge.listing import recipe_rows, recipe_table

    if ctx.invoked_subcommand is None:
        rows = recipe_rows()
        emit(as_json, {"recipes": rows}, recipe_table(rows))


@recipes.command("show")
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[key=value ...]")
@json_option
def show_recipe(name: str, words: tuple[str, ...], as_json: bool) -> None:
    """Print a resolved recipe as YAML."""
    from bridge_edge.recipe_io import dump, load_recipe

    recipe = load_recipe([f"recipe={name}", *words])
    emit(as_json, recipe.model_dump(mode="json"), dump(recipe).rstrip())


@cli.command()
@click.argument("name")
@json_option
def init(name: str, as_json: bool) -> None:
    """Write a commented recipe for a task of your own, with a small data file and recorded answers."""
    from bridge_edge.listing import write_template

    files = write_template(name)
    first = next(f for f in files if f.suffix == ".yaml")
    emit(
        as_json,
        {"files": [str(f) for f in files]},
        "\n".join([*(f"wrote {f}" for f in files), f"next: bridge-edge distill recipe={first}"]),
    )


@cli.command()
@click.option("--no-hub", is_flag=True, help="Do not try to reach the model hub.")
@json_option
def doctor(no_hub: bool, as_json: bool) -> None:
    """Look at this machine and name the fix for each trouble."""
    from bridge_edge import doctor as checks

    found = checks.diagnose(probe_hub=not no_hub)
    emit(as_json, checks.to_json(found), checks.table(found))
    if any(c.status == "fail" for c in found):
        sys.exit(1)


def main() -> None:
    """Entry point: run the command line and turn errors into one line and an exit code."""
    quiet_environment()
    debug = "--debug" in sys.argv[1:]
    args = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        code = cli.main(args=args, prog_name="bridge-edge", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"bridge-edge: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 2))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nbridge-edge: stopped; what was finished is kept, run the same command to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        click.echo(f"bridge-edge: {error.format_message()}", err=True)
        sys.exit(2)
    except Exception as error:
        if debug:
            traceback.print_exc()
        full = isinstance(error, OSError) and error.errno == 28
        hint = (
            "the disk is full: free some space and run the same command again"
            if full
            else "run it again with --debug for the details"
        )
        click.echo(f"bridge-edge: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}; {hint}", err=True)
        sys.exit(2 if full else 1)


if __name__ == "__main__":
    main()
