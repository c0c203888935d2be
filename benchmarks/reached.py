"""Bench artifacts on a machine that can be reached, over SSH or adb, with nothing installed there but a runtime.

One connection carries everything: an archive with the artifacts, a job and `runner.zip` (the modules of this package
that a bench needs) goes in, JSON comes out, and the far shell removes its folder when it ends, also where the
connection broke meanwhile. The machine needs sh, tar, mktemp and a Python with numpy, psutil, jinja2 and the artifact's
runtime; or llama.cpp's llama-bench (see `far_bench`), which is what runs on a phone that is not rooted. ssh and adb and
their configuration are the user's; ssh never asks for a password (BatchMode).

How a machine is reached is a `Way`; the rest is shared. adb's was tried with a stand-in that runs commands here, not on
a phone; its shell must pass input and exit codes on, as Android 7 and later do. Not covered: artifacts larger than this
machine's memory, which the archive is made in; Termux over adb, whose files adb's shell may not read (its sshd can be
reached with --host, through `adb forward`).
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
from typing import Any, ClassVar, Protocol

from bridge_edge.benchmarks import far_bench
from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.data.samples import Sample
from bridge_edge.errors import Failures, UserError

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
FAR = """set -eu; umask 077
d=$(mktemp -d "${TMPDIR:-%s}/bridge-edge-XXXXXXXX")
trap 'rm -rf "$d"' EXIT; trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
cd "$d"; tar -xf -
%s
"""
RUNNER = 'PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$d/runner.zip" %s -m bridge_edge.benchmarks.runner job.json'


class Way(Protocol):
    """How a command reaches another machine, and by what one sees that it did not."""

    by: ClassVar[str]
    room: ClassVar[str]  # where a folder for the work is made, unless TMPDIR says otherwise there
    install: ClassVar[str]

    @property
    def name(self) -> str: ...

    @property
    def python(self) -> str: ...

    @property
    def try_first(self) -> str:
        """A command that must work before this one can."""
        ...

    def command(self, far: str) -> list[str]:
        """The command here that runs `far` in a shell there, with its input, output and exit code."""
        ...

    def failed(self, code: int, said: str) -> bool:
        """Whether it is the way itself that ended with this code and last line, and not the far side."""
        ...


@dataclass(frozen=True)
class Host:
    """A destination as ssh takes it (user@name, ssh://user@name:port, a name of ~/.ssh/config), and its Python.

    `ssh` is the program and its options; a test hands in its own."""

    name: str
    python: str = "python3"
    ssh: tuple[str, ...] = SSH
    by: ClassVar[str] = "ssh"
    room: ClassVar[str] = "/tmp"
    install: ClassVar[str] = "install an OpenSSH client"

    def __post_init__(self) -> None:
        _check(self.name, "--host", "name a destination as ssh takes it, e.g. pi@raspberrypi")

    @property
    def try_first(self) -> str:
        return f"`ssh {self.name} true` must work without a password"

    def command(self, far: str) -> list[str]:
        return [*self.ssh, "--", self.name, far]

    def failed(self, code: int, said: str) -> bool:
        return code == 255  # what ssh itself ends with; every other code is the far side's


@dataclass(frozen=True)
class Phone:
    """A device as `adb devices` names it, and its Python if it has one that adb's shell may run."""

    name: str
    python: str = "python3"
    adb: tuple[str, ...] = ("adb",)
    by: ClassVar[str] = "adb"
    room: ClassVar[str] = "/data/local/tmp"  # Android has no /tmp
    install: ClassVar[str] = "install Android's platform-tools, which hold adb"

    def __post_init__(self) -> None:
        _check(self.name, "--adb", "name a device as `adb devices` does")

    @property
    def try_first(self) -> str:
        return f"`adb -s {self.name} shell true` must work: plug it in and allow USB debugging on its screen"

    def command(self, far: str) -> list[str]:
        return [*self.adb, "-s", self.name, "shell", "-T", far]

    def failed(self, code: int, said: str) -> bool:
        return code == 1 and said.startswith(("adb: ", "error: "))


def _check(name: str, option: str, hint: str) -> None:
    if not name or name.startswith("-") or any(c.isspace() for c in name):
        raise UserError(f"{option} is {name!r}", hint)


def bench_there(
    way: Way,
    paths: Sequence[Path],
    samples: Sequence[Sample],
    options: BenchOptions,
    timeout: float,
    failures: Failures | None = None,
    llama_bench: str = "",
) -> list[dict[str, Any]]:
    """The reports of `bench_many` as measured on the machine, with the paths that the artifacts have here; with
    `llama_bench`, a program there, its pp and tg of GGUF files alone."""
    failures = failures or Failures(keep=False)
    names = {f"{k}/{path.name}": path for k, path in enumerate(paths)}
    if llama_bench:
        files = far_bench.files(names, failures)
        if not files:
            return []
        output = _told(way, archive(files), far_bench.script(llama_bench, list(files), options), timeout)
        answer = far_bench.answer(output, files, options, way.name)
    else:
        settings = {k: v for k, v in asdict(options).items() if k != "card"}
        job = {"artifacts": list(names), "options": settings, "samples": [asdict(s) for s in samples]}
        extra = {"runner.zip": runner(), "job.json": json.dumps(job).encode()}
        answer = _last(way, _told(way, archive(names, extra), RUNNER % shlex.quote(way.python), timeout))
    if "error" in answer:
        raise UserError(f"{way.name} cannot measure: {answer['error']}", answer.get("hint", ""))
    for row in answer.get("failed", ()):
        with failures.of(_local(row["artifact"], names)):
            raise UserError(f"{way.name} cannot measure it: {row['error']}", row.get("hint", ""))
    return [_here(report, names, way.by) for report in answer["reports"]]


def archive(names: dict[str, Path], extra: dict[str, bytes] | None = None) -> bytes:
    """A tar file of the artifacts under their names there, and of files made for this."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in (extra or {}).items():
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


def _told(way: Way, sent: bytes, work: str, timeout: float) -> list[str]:
    """The lines that the far side prints; a UserError where it does not come to an end."""
    far = "exec sh -c " + shlex.quote(FAR % (way.room, work))
    command = way.command(far)
    try:
        done = subprocess.run(command, input=sent, capture_output=True, timeout=timeout)
    except FileNotFoundError:
        raise UserError(f"there is no {command[0]!r} on this machine", way.install) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{way.name} took more than {timeout:g} s", "measure less, e.g. --limit 20") from None
    said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1][:300]
    if way.failed(done.returncode, said):
        raise UserError(f"cannot reach {way.name}: {said}", way.try_first)
    if done.returncode:
        raise _broken(way, f"exit code {done.returncode}: {said}")
    return done.stdout.decode("utf-8", "replace").strip().splitlines()


def _broken(way: Way, why: str) -> UserError:
    return UserError(f"measuring on {way.name} failed, {why}", "it needs sh, tar, its program, space and memory")


def _last(way: Way, lines: Sequence[str]) -> dict[str, Any]:
    """The answer of the runner, which is its last line."""
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise _broken(way, "no answer came back")
    return found


def _local(there: str, names: dict[str, Path]) -> str:
    name = "/".join(Path(there).parts[:2])  # the file that was opened may lie in the folder that was sent
    return str(names[name] / Path(there).relative_to(name))


def _here(report: dict[str, Any], names: dict[str, Path], by: str) -> dict[str, Any]:
    """A report with the local paths in the place of those that the far side worked with."""
    report["artifact"]["path"] = _local(report["artifact"]["path"], names)
    report["protocol"]["compared_with"] = [_local(p, names) for p in report["protocol"]["compared_with"]]
    report["environment"]["reached_by"] = by
    return report
