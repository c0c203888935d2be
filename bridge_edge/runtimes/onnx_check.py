"""Is an ONNX folder safe to hand to native code? Everything it names must be a plain file inside it.

A graph may keep weights in other files and a configuration may name models, libraries and devices, and the native
loaders follow them: to `/etc`, through links, past the end of a file. So all of it is read here first, without loading
a weight, and refused with one line. Hard links count as links, since the file may belong to something else and change
under it. Not covered: what the operators of a graph compute, which is onnxruntime's to judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from bridge_edge.errors import UserError

CONFIG = "genai_config.json"
MOST_PROTO = 1 << 30  # bytes of a graph without its data; real ones have well below a tenth of that
MOST_DEPTH = 8  # graphs inside graphs
# Operators whose attributes name further files, which nothing here could vouch for.
OUTSIDE = {"EPContext", "PyOp", "PythonOp"}


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


@dataclass
class Outside:
    """What a graph keeps in other files: for each place the bytes that it must have at least."""

    places: dict[str, int] = field(default_factory=dict)


def load_graph(path: Path) -> onnx.ModelProto:
    """The graph at `path` without external data; a UserError for what is none."""
    if not path.is_file() or path.stat().st_size > MOST_PROTO:
        raise UserError(f"{path} is not an ONNX model of a size that can be read", "export it again")
    try:
        model = onnx.load(path, load_external_data=False)
        empty = not model.graph.node
    except Exception as error:
        raise UserError(f"{path} is not an ONNX model: {type(error).__name__}", "export it again") from None
    if empty:
        raise UserError(f"{path} is not an ONNX model: it has no operators", "export it again")
    return model


def check_external(folder: Path, name: str) -> list[str]:
    """Files with the graph's weights, by their paths in `folder`; refuses links, absolute paths, paths that leave the
    graph's own folder, and parts that lie outside their file."""
    path = folder / name
    found = Outside()
    for tensor in tensors(load_graph(path), path):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            _check_tensor(path, tensor, found)
    beside = PurePosixPath(name).parent
    for place, size in found.places.items():
        file = inside(folder, str(beside / place)) if PurePosixPath(place).name == place else None
        if file is None:
            raise UserError(f"{path} keeps weights at {place!r}", "external data must be a plain file beside the model")
        if file.stat().st_size < size:
            raise UserError(
                f"{path} reads {size} bytes from {place!r}, which has {file.stat().st_size}", "copy it again"
            )
    return sorted(str(beside / place) for place in found.places)


def _check_tensor(path: Path, tensor: onnx.TensorProto, found: Outside) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except ValueError:
        offset = length = -1
    if len(entries) != len(tensor.external_data) or not entries.get("location") or offset < 0 or length < 0:
        raise UserError(f"{path} says unclearly where the weights of {tensor.name!r} lie", "export it again")
    place = entries["location"]
    found.places[place] = max(found.places.get(place, 0), offset + length)


def tensors(model: onnx.ModelProto, path: Path) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initialisers, constants, those of graphs inside graphs and of functions."""
    yield from _graph_tensors(model.graph, path, 0)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node, path, 0)


def _graph_tensors(graph: onnx.GraphProto, path: Path, depth: int) -> Iterator[onnx.TensorProto]:
    if depth > MOST_DEPTH:
        raise UserError(f"{path} holds graphs more than {MOST_DEPTH} deep", "export it again")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node, path, depth)


def _node_tensors(node: onnx.NodeProto, path: Path, depth: int) -> Iterator[onnx.TensorProto]:
    if node.op_type in OUTSIDE:
        raise UserError(f"{path} holds the operator {node.op_type}, which opens other files", "export it again")
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            if graph.node or graph.initializer or graph.sparse_initializer:
                yield from _graph_tensors(graph, path, depth + 1)
