"""From an export to something a person can hold: `pack` builds an app around one, by target, and puts it in place.

A target is a module with `pack(artifact, folder, options) -> Packed`: it fills an empty folder, checks there what it
made by really running it, and raises where that fails. Everything else is common: the export's sums (and with a key
its signature) are checked before, the finished folder is exchanged with the last version in one step, that version
stays beside it as `<folder>.previous`, and `VERSIONS.json` says what changed. Not covered: sending an app to a device.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from bridge_edge.data.card import GGUF_KEY, Card
from bridge_edge.deliver import held_out
from bridge_edge.errors import UserError, unknown
from bridge_edge.parcel import SUMS, Parcel, find, open_parcel, verify
from bridge_edge.run import sha256_file, sync_folder, write_atomic
from bridge_edge.runtimes.gguf_header import read_header
from bridge_edge.runtimes.load import kind_of

TARGETS = {"python": "bridge_edge.pack.python", "web": "bridge_edge.pack.web"}  # target -> its module
EXAMPLES = 3  # questions that an app shows
HISTORY, KEPT = "VERSIONS.json", 20  # versions that the history names
EXCHANGE, HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux


@dataclass(frozen=True)
class Artifact:
    """A checked export: `kind` ("gguf" or "onnx"), the `path` that a runtime opens, its folder's files, its card."""

    kind: str
    path: Path
    parcel: Parcel
    card: Card | None

    @property
    def name(self) -> str:
        """What people call it: the recipe, or the name of the file."""
        return self.card.recipe if self.card and self.card.recipe else self.path.stem

    def examples(self) -> list[str]:
        """The card's own questions, else dev items of its run: one for each answer first."""
        if self.card and self.card.examples:
            return list(self.card.examples[:EXAMPLES])
        found: dict[str | None, str] = {}
        rest: list[str] = []
        for sample in held_out(self.parcel.folder, "dev"):
            if sample.answer in found:
                rest.append(sample.prompt)
            else:
                found[sample.answer] = sample.prompt
        return [*found.values(), *rest][:EXAMPLES]


@dataclass(frozen=True)
class PackOptions:
    """What the command line may ask; a target reads what concerns it. `key`: the public key of the export's signer."""

    key: Path | None = None


@dataclass(frozen=True)
class Packed:
    """What a target made: figures for scripts, and the lines that people read, the commands to run it among them."""

    facts: Mapping[str, Any]
    lines: tuple[str, ...]


def target_module(target: str) -> ModuleType:
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    return import_module(TARGETS[target])


def open_artifact(model: str | None, runs_dir: Path, key: Path | None = None) -> Artifact:
    """The export that was named (a run with one, its folder, a file in it); a changed file is a CheckError."""
    folder = find(model, runs_dir)
    parcel = verify(folder, key) if key else open_parcel(folder)
    kind, path = kind_of(folder)
    if kind == "gguf":
        text = read_header(path).metadata.get(GGUF_KEY)
        return Artifact(kind, path, parcel, Card.loads(text) if isinstance(text, str) else None)
    return Artifact(kind, path, parcel, Card.load(path))


def pack_to(target: str, artifact: Artifact, out: Path | None, options: PackOptions) -> dict[str, Any]:
    """Build the app of `target` in `out` (default: pack/ beside the folder of exports) and say what changed."""
    module = target_module(target)
    folder = out or artifact.parcel.folder.parent.parent / "pack" / f"{target}-{artifact.parcel.folder.name}"
    recover(folder)
    if folder.exists() and not (folder / HISTORY).is_file():
        raise UserError(f"{folder} exists and is no packed app", "remove it, or choose another folder with --out")
    partial = _beside(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    packed = module.pack(artifact, partial, options)
    files = {p.relative_to(partial).as_posix(): p for p in sorted(partial.rglob("*")) if p.is_file()}
    digests = {name: sha256_file(path) for name, path in files.items()}
    past = history(folder)
    version = digests[SUMS][:12]
    size = sum(path.stat().st_size for path in files.values())
    told = {"target": target, "folder": str(folder), "version": version, "bytes": size, **packed.facts}
    if past and past[0]["version"] == version:
        shutil.rmtree(partial)
        return {**told, "changed": [], "lines": packed.lines}
    changed = differences(past[0]["files"] if past else {}, digests)
    entry = {"version": version, "bytes": size, "changed": changed, "files": digests}
    older = [{**e, "files": {}} for e in past]  # the digests of the last version are enough to compare with
    write_atomic(partial / HISTORY, json.dumps([entry, *older][:KEPT], indent=1) + "\n")
    sync_folder(partial)
    exchange(partial, folder)
    return {**told, "changed": changed, "previous": past[0]["version"] if past else None, "lines": packed.lines}


def history(folder: Path) -> list[dict[str, Any]]:
    """The versions that a packed folder has had, the newest first."""
    try:
        found = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
        return [dict(entry) for entry in found if {"version", "files"} <= set(entry)]
    except (OSError, ValueError, TypeError):
        return []


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Names of the files that differ, in words; the sums follow from the others."""
    words = [f"{'changed' if n in old else 'new'} {n}" for n in new if old.get(n) != new[n] and n != SUMS]
    return [*words, *(f"gone {name}" for name in old if name not in new)]


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f"{folder.name}.{word}")


def recover(folder: Path) -> None:
    """Put the last good version back where a process ended between the two renames of `exchange`."""
    if not folder.exists() and _beside(folder, "previous").is_dir():
        os.replace(_beside(folder, "previous"), folder)


def exchange(partial: Path, folder: Path) -> None:
    """Put `partial` in the place of `folder`, whose last version stays beside it. Linux swaps both in one step; where
    that is not to be had, two renames do, and `recover` mends what an end between them leaves."""
    previous = _beside(folder, "previous")
    if not folder.exists():
        os.replace(partial, folder)
        return
    shutil.rmtree(previous, ignore_errors=True)
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    if swap and swap(HERE, os.fsencode(partial), HERE, os.fsencode(folder), EXCHANGE) == 0:
        os.replace(partial, previous)
        return
    os.replace(folder, previous)
    os.replace(partial, folder)


def pack_text(told: Mapping[str, Any]) -> str:
    """The result for people."""
    head = f"{told['folder']}: version {told['version']}, {told['bytes'] / 1e6:.2f} MB"
    if not told["changed"]:
        head += ", up to date"
    elif told.get("previous"):
        head += f", before it {told['previous']} (kept in {told['folder']}.previous): {'; '.join(told['changed'])}"
    return "\n".join([head, *told["lines"]])
