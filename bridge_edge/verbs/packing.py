"""The verbs that bring a student into an app: pack, serve."""

from __future__ import annotations

from pathlib import Path

import click

from bridge_edge.errors import UserError
from bridge_edge.verbs.options import emit, json_option, runs_option, threads_option


@click.command()
@click.argument("model", required=False)
@click.option("--target", metavar="NAME", help="What to make: python, web (with --serve: web).")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=None, help="Folder of the app.")
@click.option("--key", type=click.Path(path_type=Path), default=None, help="Public key: check the signature too.")
@click.option("--serve", "show", is_flag=True, help="Show the app on loopback afterwards, where it is a page.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port of --serve.")
@runs_option
@json_option
def pack(
    model: str | None,
    target: str | None,
    out: Path | None,
    key: Path | None,
    show: bool,
    port: int,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Make an offline app of an export (default: the latest run's); an app that is there stays as the last version."""
    from bridge_edge.pack import TARGETS, PackOptions, open_artifact, pack_text, pack_to, target_module

    target = target or ("web" if show else None)
    if target is None:
        raise UserError("no target named", f"add --target {' or --target '.join(TARGETS)}")
    serve = getattr(target_module(target), "serve", None)
    if show and serve is None:
        raise UserError(f"--serve: an app of the target {target!r} is no page", "leave --serve out")
    told = pack_to(target, open_artifact(model, runs_dir, key), out, PackOptions(key))
    emit(as_json, {k: v for k, v in told.items() if k != "lines"}, pack_text(told))
    if show and serve is not None:
        serve(Path(told["folder"]), port)


@click.command()
@click.argument("model", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--token", envvar="BRIDGE_EDGE_TOKEN", help="Bearer token; better in the variable BRIDGE_EDGE_TOKEN.")
@click.option("--queue", type=click.IntRange(0, 10_000), default=32, show_default=True, help="Requests that may wait.")
@click.option("--key", type=click.Path(path_type=Path), default=None, help="Public key: check the signature too.")
@runs_option
@threads_option
def serve(
    model: str | None,
    host: str,
    port: int,
    token: str | None,
    queue: int,
    key: Path | None,
    runs_dir: Path,
    threads: int | None,
) -> None:
    """Answer OpenAI's chat and completion API on loopback (default: an export of the latest run)."""
    from bridge_edge.deliver import delivered
    from bridge_edge.serve.app import Door
    from bridge_edge.serve.app import serve as run_server
    from bridge_edge.student import Student

    door = Door(host, port, token, queue)
    path = Path(model) if model else delivered(runs_dir)
    student = Student.load(path, threads, key)
    run_server(student, (student.card.recipe if student.card else "") or path.stem, door)
