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
# Options of a session that neither write files nor load code; unknown ones would reach onnxruntime as they are.
SESSION = {
    "log_id", "log_severity_level", "log_verbosity_level", "provider_options", "intra_op_num_threads",
    "inter_op_num_threads", "graph_optimization_level", "enable_cpu_mem_arena", "enable_mem_pattern",
    "use_env_allocators", "disable_cpu_ep_fallback", "disable_quant_qdq", "enable_quant_qdq_cleanup",
}  # fmt: skip


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
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of a name given twice Python sees the last value, onnxruntime-genai both."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return found


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
    session = value if key == "session_options" and isinstance(value, dict) else {}
    odd = [name for name in session if name not in SESSION]
    if odd and not any("library" in name for name in odd):
        raise UserError(f"{path} asks for the session option {odd[0]!r}", f"known: {', '.join(sorted(SESSION))}")
    if key == "provider_options" and value:
        names = ", ".join(str(n) for o in value if isinstance(o, dict) for n in o) if isinstance(value, list) else value
        raise UserError(f"{path} is made for other devices than the CPU: {names}", "export the model for the CPU")
    if "filename" in key and value and inside(folder, value) is None:
        raise UserError(f"{path} names the file {value!r}, which is not in the folder", "export the model again")
