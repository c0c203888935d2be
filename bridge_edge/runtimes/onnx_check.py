"""Is an ONNX folder safe to hand to native code? Everything it names must be a plain file inside it.

A graph may keep weights in other files and a configuration may name models, libraries and devices, and the native
loaders follow them: to `/etc`, through links, past the end of a file. So all of it is read here first, without loading
a weight, and refused with one line. Hard links count as links, since the file may belong to something else and change
under it. Not covered: what the operators of a graph compute, which is onnxruntime's to judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import onnx

from bridge_edge.errors import UserError
from bridge_edge.runtimes.onnx_config import inside

MOST_PROTO = 1 << 30  # bytes of a graph without its data; real ones have well below a tenth of that
MOST_DEPTH = 8  # graphs inside graphs
# Operators whose attributes name further files, which nothing here could vouch for.
OUTSIDE = {"EPContext", "PyOp", "PythonOp"}


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
