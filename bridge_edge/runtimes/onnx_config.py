"""genai_config.json, read as untrusted: what it names must be plain files inside its folder; no libraries, no devices.

Apart from `onnx_check`, which reads graphs, so that a device needs no package onnx to run one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bridge_edge.errors import UserError

CONFIG = "genai_config.json"


def inside(folder: Path, name: Any) -> Path | None:
    """The plain file that `name` means inside `folder`; None for links, other places and what is no file."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name or ":" in name:
        return None
    parts = PurePosixPath(name).parts
    if PurePosixPath(name).is_absolute() or ".." in parts:
        return None
    place = folder
    for part in parts:
        place = place / part
        if place.is_symlink():
            return None
    return place if place.is_file() and place.stat().st_nlink == 1 else None


def read_config(folder: Path) -> dict[str, Any]:
    """genai_config.json, with the keys that the runtime needs, its files inside the folder and no foreign library."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        model = config["model"]
        name = model["decoder"]["filename"]
        missing = [key for key in ("vocab_size", "context_length", "eos_token_id") if key not in model]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not usable: {error!r}", "export the model again") from None
    if missing:
        raise UserError(f"{path} lacks model.{missing[0]}", "export the model again")
    if inside(folder, name) is None:
        raise UserError(f"{path} names the model file {name!r}, which is not there", "export it again")
    _check_numbers(path, model)
    for key, value in _entries(config):
        _check_entry(folder, path, key, value)
    return dict(config)


def _check_numbers(path: Path, model: dict[str, Any]) -> None:
    ends = model["eos_token_id"]
    counts = [(key, model[key]) for key in ("vocab_size", "context_length")]
    for key, value in [*counts, *(("eos_token_id", end) for end in (ends if isinstance(ends, list) else [ends]))]:
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise UserError(f"{path} has model.{key} {value!r}, which is no count", "export the model again")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """All (key, value) pairs of a JSON value, nested ones too."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield from item.items()
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def _check_entry(folder: Path, path: Path, key: str, value: Any) -> None:
    if "library" in key:
        raise UserError(f"{path} asks for native code by {key!r}", "use a model without custom operators")
    if key == "provider_options" and value:
        names = ", ".join(str(n) for o in value if isinstance(o, dict) for n in o) if isinstance(value, list) else value
        raise UserError(f"{path} is made for other devices than the CPU: {names}", "export the model for the CPU")
    if "filename" in key and value and inside(folder, value) is None:
        raise UserError(f"{path} names the file {value!r}, which is not in the folder", "export the model again")
