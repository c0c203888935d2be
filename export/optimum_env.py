"""The environment of optimum-onnx: where it is, how it is made, and one call into it as another process.

optimum-onnx 0.1.0 needs transformers below 4.58, this package 5.20 or newer: no one environment holds both, so the
exporter runs in one of its own. It is told nothing but paths, is offline for the hub, gets none of its tokens, and
writes to a folder of the caller's. There is no time limit, since a large model takes what it takes; a line says that it
is still at it. Not covered: making the environment, which fetches hundreds of megabytes and is the user's to start.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from bridge_edge.answer_cache import home
from bridge_edge.errors import UserError
from bridge_edge.export.optimum_runner import UNFIT
from bridge_edge.progress import say, track

VARIABLE = "BRIDGE_EDGE_OPTIMUM"
OPTION = "--optimum-python"
PINS = Path(__file__).with_name("optimum.txt")
RUNNER = Path(__file__).with_name("optimum_runner.py")
EVERY = 30.0  # seconds between signs of life
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


class Said(Exception):
    """All that the other process wrote to stderr; the cause of an error, so shown by --debug."""


def place() -> Path:
    """Where the environment is looked for when none is named."""
    return home() / "optimum"


def commands() -> str:
    """What makes it there."""
    pip = _inside(place(), "pip")
    return f"python3 -m venv {shlex.quote(str(place()))} && {shlex.quote(str(pip))} install -r {shlex.quote(str(PINS))}"


def _inside(folder: Path, program: str) -> Path:
    return folder / "Scripts" / f"{program}.exe" if os.name == "nt" else folder / "bin" / program


def named(asked: Path | None = None) -> tuple[Path, str]:
    """The folder or Python of the environment, and what named it ("" for the usual place)."""
    if asked is not None:
        return asked, OPTION
    if told := os.environ.get(VARIABLE):
        return Path(told), VARIABLE
    return place(), ""


def find(asked: Path | None = None) -> Path:
    """Its Python, given itself or by the folder of the environment; a UserError with the commands that make one."""
    path, by = named(asked)
    python = _inside(path, "python") if path.is_dir() else path
    if python.is_file():
        return python.absolute()  # not resolved: the link is what tells Python of its environment
    if by:
        raise UserError(f"no Python at {str(path)!r}, which {by} names", f"make one with: {commands()}")
    raise UserError(
        "optimum-onnx needs an environment of its own, with transformers below 4.58, and there is none",
        f"make it with: {commands()} (or name one with {OPTION} or {VARIABLE})",
    )


def _environment(work: str) -> dict[str, str]:
    """Ours without credentials, offline, with caches that go again."""
    kept = {key: value for key, value in os.environ.items() if key not in SECRETS}
    offline = {key: "1" for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")}
    return {**kept, **offline, "HF_HOME": work, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "TOKENIZERS_PARALLELISM": "false"}


def call(python: Path, *words: str) -> dict[str, str]:
    """Run the script there; the versions it worked with, or a UserError with what it said last."""
    # -I: neither this package's modules nor PYTHONPATH nor the user's site-packages reach that environment.
    command = [str(python), "-I", str(RUNNER), *words]
    with tempfile.TemporaryDirectory(prefix="bridge-edge-hub-") as work:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=_environment(work),
                check=False,
            )
        except OSError as error:
            raise UserError(f"{python} cannot be run: {error.strerror}", f"make one with: {commands()}") from None
    lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
    if done.returncode == UNFIT:
        raise UserError(f"{python} cannot export: {lines[-1]}", f"make one with: {commands()}")
    try:
        if done.returncode == 0:
            return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        raise UserError(f"{python} is not a Python that can export", f"make one with: {commands()}") from None
    if done.returncode < 0:
        lines.append(f"killed by signal {-done.returncode}, perhaps for want of memory")
    hint = "leave --backend out; --debug shows all that it said"
    raise UserError(f"optimum-onnx failed: {lines[-1]}", hint) from Said(done.stderr)


def export(python: Path, checkpoint: Path, config: Path, out: Path) -> None:
    """`out`/model.onnx by optimum-onnx, with signs of life."""
    say(f"optimum-onnx makes the graph, by {python}; it has no time limit")
    with track("optimum-onnx", 1, EVERY) as advance:
        call(python, str(checkpoint.absolute()), str(config), str(out))
        advance(1, "")
