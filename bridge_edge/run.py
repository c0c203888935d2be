"""The run directory: a lock, a manifest that tells the truth, atomic writes.

A stage writes to `<stage>.partial/`, which is fsynced and renamed, and only then does the manifest name it. What the
manifest does not name has not happened. Outputs are real copies: no links (onnx refuses linked data).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import Any

from bridge_edge import __version__
from bridge_edge.errors import UserError
from bridge_edge.recipe import Recipe, settings
from bridge_edge.recipe_io import dump

SCHEMA = 1
STUDENT = "tutor"  # the stage whose output is the finished student
ASSISTANTS = ("apprentice", "refine")  # the stages whose output is an assistant; the later one goes on from the other
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy")


def numbered(name: str, k: int, count: int) -> str:
    """The name of a stage that is there `count` times, the k-th time: the last one has the plain name."""
    return name if k == count else f"{name}-{k}"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(folder: Path) -> str:
    """SHA-256 over the names and contents of the files of a folder (or of one file)."""
    if folder.is_file():
        return sha256_file(folder)
    names = sorted(p for p in folder.rglob("*") if p.is_file())
    return sha256_text(canonical([[str(p.relative_to(folder)), sha256_file(p)] for p in names]))


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` as a whole or not at all; a full disk gives one clear line and leaves the old file."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}", "free some space; what was finished is kept"
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush every file of a folder, and the folder itself, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def environment() -> dict[str, Any]:
    """What a reader needs to judge the figures: versions and machine, no names of users or hosts."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def source_digest(recipe: Recipe) -> str:
    """SHA-256 of the code of the shipped domain that a recipe names ("" without one): another generator makes other
    items, and another expert gives other answers."""
    try:
        found = util.find_spec(f"bridge_edge.recipes.{recipe.task.module}")
    except ImportError:
        found = None
    if found is None or not found.origin:
        return ""
    folder = Path(found.origin).parent
    files = sorted([*folder.parent.glob("*.py"), *folder.glob("*.py")])
    return sha256_text(canonical([[path.name, sha256_file(path)] for path in files]))


def run_path(runs_dir: Path, recipe: Recipe) -> Path:
    """Where the run of a recipe lies: same resolved recipe and same domain, same directory."""
    digest = sha256_text(canonical(settings(recipe)) + source_digest(recipe))[:10]
    return runs_dir / f"{recipe.name}-{digest}"


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a second process is told so."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is working in {folder}", "wait for it, or stop it") from None
        yield
    finally:
        os.close(handle)


class Run:
    """One run directory. `manifest` is the parsed manifest.json; `save()` replaces it atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Any] = {}
        self.read()

    def read(self) -> None:
        """Read the manifest again (another process may have finished stages since)."""
        file = self.path / "manifest.json"
        if not file.exists():
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # no JSON, or no UTF-8
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("stages"), dict):
            raise UserError(f"{file} is damaged", f"remove {self.path} and run the command again")
        self.manifest = found

    @staticmethod
    def create(runs_dir: Path, recipe: Recipe) -> Run:
        """Open or make the directory of this recipe: same resolved recipe, same directory."""
        run = Run(run_path(runs_dir, recipe))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make {run.path}: {error.strerror}", "choose another folder with --runs-dir"
            ) from error
        if not run.manifest:
            write_atomic(run.path / "recipe.yaml", dump(recipe))
            run.manifest = {
                "schema": SCHEMA,
                "recipe": recipe.name,
                "scale": recipe.scale,
                "digest": run.path.name.rpartition("-")[2],
                "version": __version__,
                "environment": environment(),
                "created": time.time(),
                "status": "running",
                "stages": {},
            }
            run.save()
        return run

    def save(self) -> None:
        write_atomic(self.path / "manifest.json", json.dumps(self.manifest, indent=1, sort_keys=True) + "\n")

    def stage(self, name: str) -> dict[str, Any] | None:
        """The manifest's record of a finished stage, or None."""
        return self.manifest.get("stages", {}).get(name)

    def folder(self, name: str) -> Path:
        return self.path / name

    @property
    def finished(self) -> bool:
        return self.manifest.get("status") == "finished"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process a run: a second one is told so instead of mixing its files in."""
        with one_process(self.path):
            self.read()
            yield


def all_runs(runs_dir: Path) -> list[Run]:
    """Every run below `runs_dir`, newest first."""
    found = []
    for path in runs_dir.glob("*/manifest.json"):
        try:
            found.append(Run(path.parent))
        except UserError:  # a damaged neighbour is not this run's trouble; opening it by name says so
            continue
    return sorted(found, key=lambda r: r.manifest.get("finished", r.manifest.get("created", 0)), reverse=True)


def latest(runs_dir: Path) -> Run:
    """The newest finished run; raises UserError with the command that makes one."""
    for run in all_runs(runs_dir):
        if run.finished:
            return run
    raise UserError(
        f"no finished run in {runs_dir}", "make one with `bridge-edge distill recipe=legal`, or name a model"
    )


def commit(run: Run, name: str, partial: Path, record: dict[str, Any]) -> None:
    """Turn a finished `<stage>.partial` into `<stage>` and then name it in the manifest."""
    final = run.folder(name)
    (partial / "checkpoint.pt").unlink(missing_ok=True)
    sync_folder(partial)
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    record["output"] = digest_tree(final)
    run.manifest["stages"][name] = record
    run.save()
