"""Bench artifacts on a machine that can be reached over SSH, with nothing installed there but a Python and a runtime.

One connection carries everything: an archive with the artifacts, a job and `runner.zip` (the modules of this package
that a bench needs) goes in, one JSON line comes out, and the far shell removes its folder when it ends, also where the
connection broke meanwhile. The machine needs sh, tar, mktemp and a Python with numpy, psutil, jinja2 and the artifact's
runtime. The ssh program and its configuration are the user's; it never asks for a password (BatchMode). Not covered:
phones over adb; artifacts larger than this machine's memory, which the archive is made in.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
UNREACHED = 255  # what ssh itself ends with; every other code is the far side's
FAR = """set -eu; umask 077
d=$(mktemp -d "${TMPDIR:-/tmp}/bridge-edge-XXXXXXXX")
trap 'rm -rf "$d"' EXIT; trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
cd "$d"; tar -xf -
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$d/runner.zip" %s -m bridge_edge.benchmarks.runner job.json
"""


@dataclass(frozen=True)
class Host:
    """A destination as ssh takes it (user@name, ssh://user@name:port, a name of ~/.ssh/config), and its Python.

    `ssh` is the program and its options; a test hands in its own."""

    name: str
    python: str = "python3"
    ssh: tuple[str, ...] = SSH

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("-") or any(c.isspace() for c in self.name):
            raise UserError(f"--host is {self.name!r}", "name a destination as ssh takes it, e.g. pi@raspberrypi")


def bench_there(
    host: Host, paths: Sequence[Path], samples: Sequence[Sample], options: BenchOptions, timeout: float
) -> list[dict[str, Any]]:
    """The reports of `bench_many` as measured on the host, with the paths that the artifacts have here."""
    settings = {k: v for k, v in asdict(options).items() if k != "card"}
    names = {f"{k}/{path.name}": path for k, path in enumerate(paths)}
    job = {"artifacts": list(names), "options": settings, "samples": [asdict(s) for s in samples]}
    answer = _told(host, archive(names, job), timeout)
    if "error" in answer:
        raise UserError(f"{host.name} cannot measure: {answer['error']}", answer.get("hint", ""))
    return [_here(report, names) for report in answer["reports"]]


def archive(names: dict[str, Path], job: dict[str, Any]) -> bytes:
    """A tar file of the artifacts under their names there, the job and the runner."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in (("runner.zip", runner()), ("job.json", json.dumps(job).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, path in names.items():
            tar.add(path.resolve(), arcname=name)
    return held.getvalue()


def runner() -> bytes:
    """The modules that the far side runs, as a zip file that Python imports from."""
    from bridge_edge import benchmarks, data, runtimes

    homes = {"": Path(data.__file__ or "").parents[1]}
    for part in (benchmarks, data, runtimes):
        homes[part.__name__.rpartition(".")[2]] = Path(part.__file__ or "").parent
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, home in homes.items():
            for file in sorted(home.glob("*.py")):
                packed.write(file, "/".join(["bridge_edge", *([name] if name else []), file.name]))
    return held.getvalue()


def _told(host: Host, sent: bytes, timeout: float) -> dict[str, Any]:
    """What the runner answers; a UserError where nothing sensible comes back."""
    far = "exec sh -c " + shlex.quote(FAR % shlex.quote(host.python))
    try:
        done = subprocess.run([*host.ssh, "--", host.name, far], input=sent, capture_output=True, timeout=timeout)
    except FileNotFoundError:
        raise UserError(f"there is no {host.ssh[0]!r} on this machine", "install an OpenSSH client") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{host.name} took more than {timeout:g} s", "measure less, e.g. --limit 20") from None
    said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1][:300]
    if done.returncode == UNREACHED:
        raise UserError(f"cannot reach {host.name}: {said}", f"`ssh {host.name} true` must work without a password")
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        found = None
    if done.returncode or not isinstance(found, dict):
        why = f"exit code {done.returncode}: {said}"
        raise UserError(f"measuring on {host.name} failed, {why}", "it needs sh, tar, the Python, space and memory")
    return found


def _here(report: dict[str, Any], names: dict[str, Path]) -> dict[str, Any]:
    """A report with the local paths in the place of those that the far side worked with."""

    def local(there: str) -> str:
        name = "/".join(Path(there).parts[:2])  # the file that was opened may lie in the folder that was sent
        return str(names[name] / Path(there).relative_to(name))

    report["artifact"]["path"] = local(report["artifact"]["path"])
    report["protocol"]["compared_with"] = [local(p) for p in report["protocol"]["compared_with"]]
    report["environment"]["reached_by"] = "ssh"
    return report
