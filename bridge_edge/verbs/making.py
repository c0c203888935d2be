"""The verbs that make a student or say what making it would take: distill, plan, ablate, ledger."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bridge_edge.verbs.options import concurrency_option, emit, json_option, runs_option, threads_option, use_threads


@click.command()
@click.argument("words", nargs=-1, metavar="recipe=NAME [scale=NAME] [key=value ...]")
@runs_option
@click.option("--device", default="cpu", show_default=True, help="Torch device, e.g. cpu or cuda.")
@concurrency_option
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
    bridge-edge distill recipe=my-task.yaml teacher=teacher.yaml
    """
    use_threads(threads)
    from bridge_edge.distill import distill as run_distill
    from bridge_edge.distill import summary_text
    from bridge_edge.reporting import keep_report

    summary = run_distill(words, runs_dir, device, concurrency, cache=cache)
    page = keep_report(Path(summary["run"]), bool(summary["worked"]))
    text = summary_text(summary) + (f"\nReport     {page}" if page else "")
    emit(as_json, {**summary, "report": str(page) if page else None}, text)


@click.command()
@click.argument("words", nargs=-1, metavar="recipe=NAME [scale=NAME] [key=value ...]")
@runs_option
@concurrency_option
@json_option
def plan(words: tuple[str, ...], runs_dir: Path, concurrency: int, as_json: bool) -> None:
    """Say what a run would ask, cost, take and do, without doing any of it.

    \b
    bridge-edge plan recipe=legal
    bridge-edge plan recipe=legal teacher=teacher.yaml budget.usd=1.50
    """
    from bridge_edge.plan import plan as make_plan
    from bridge_edge.plan_report import plan_text

    found = make_plan(words, runs_dir, concurrency)
    emit(as_json, found, plan_text(found))


@click.command()
@click.argument("words", nargs=-1, metavar="recipe=NAME [EXPERIMENT ...] [key=value ...]")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each arm.")
@click.option("--list", "as_list", is_flag=True, help="Name the experiments (of a recipe: the arms); run nothing.")
@click.option("--arm", "arms", multiple=True, metavar="NAME", help="Only this arm; may be given again (see --list).")
@click.option("--smoke", is_flag=True, help="Tiny sizes: shows that it runs, and its figures mean nothing.")
@click.option("--paid", is_flag=True, help="Agree to ask a paid teacher for the whole grid.")
@click.option("--ta-only", is_flag=True, help="Stop at the assistants: a fraction of the time.")
@click.option(
    "--data",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Score on these files too; may be given again.",
)
@runs_option
@click.option("--device", default="cpu", show_default=True, help="Torch device, e.g. cpu or cuda.")
@concurrency_option
@click.option("--cache", metavar="DIR|none", default=None, help="Answers bought by earlier runs, as in distill.")
@threads_option
@json_option
def ablate(
    words: tuple[str, ...],
    as_list: bool,
    arms: tuple[str, ...],
    smoke: bool,
    paid: bool,
    ta_only: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare arms of a recipe over seeds, with paired intervals; the same command again resumes.

    \b
    bridge-edge ablate --list
    bridge-edge ablate --list recipe=legal labels
    bridge-edge ablate recipe=legal --seeds 3
    bridge-edge ablate recipe=legal selection --ta-only
    bridge-edge ablate recipe=legal budgets selection budget.usd=2
    """
    if as_list:
        from bridge_edge.ablate.verb import listing, listing_text

        rows = listing(words, ta_only)
        emit(as_json, {"experiments": rows}, listing_text(rows))
        return
    use_threads(options["threads"])
    from bridge_edge.ablate.cells import Setting
    from bridge_edge.ablate.verb import ablate as run_ablate

    found = run_ablate(words, Setting(words=(), **options), smoke, paid, ta_only, arms)
    text = found.pop("text")
    emit(as_json, found, f"{text}\nReport     {found['folder']}/report.md")
    if found["failed"]:
        sys.exit(1)


@click.command()
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--resolve",
    "resolve",
    multiple=True,
    metavar="ID=none|PROMPT+COMPLETION",
    help="Close a call in doubt by the provider's bill: not billed, or its tokens; all=none for all.",
)
@json_option
def ledger(run: Path, resolve: tuple[str, ...], as_json: bool) -> None:
    """Say what a run has spent and which calls may have been billed; close these.

    \b
    bridge-edge ledger runs/legal-0123456789
    bridge-edge ledger runs/legal-0123456789 --resolve 17=none --resolve 21=310+45
    """
    from bridge_edge.accounts import ledger as run_ledger
    from bridge_edge.accounts import ledger_text

    told = run_ledger(run, resolve)
    emit(as_json, told, ledger_text(told))
