"""What onnxruntime holds of the weights of a graph, read from the graph without loading one.

External data is mapped. While a session is made, each matrix that a layer multiplies by is packed into memory of its
own for the processor's kernels, and its mapped original is dropped afterwards:

    MatMulNBits    the blocks as they are; where the kernel rounds activations to integers (accuracy level 4), also two
                   floats a block, the scale and the block's sum. The scales in the file stay mapped
    MatMul         as float32, half precision too

An embedding tied to the head goes through Reshape or Transpose before it is packed; that copy stays as well. One that
is only looked up stays in the file but for the rows that were read. So a session takes up to twice the file, and while
it is made the largest matrix once more. Seen with onnxruntime 1.31 on x86 with AVX-512 (`memory_grid.py`); the packed
layout belongs to the processor. Not covered: adapters, providers other than the CPU's, sessions with packing disabled.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

F32 = 4
INTEGERS = 4  # the accuracy level at which activations are rounded to int8
TIES = ("Reshape", "Transpose")  # what stands between a tied embedding and its other use
LOOKS_UP = ("Gather", "GatherBlockQuantized")


@dataclass(frozen=True)
class Weights:
    """Bytes in memory once loaded (`held`), beyond those while loading (`passing`), in the file for looking up alone
    (`looked_up`); the widest input of a layer; whether the cache is in half precision."""

    held: int
    passing: int
    looked_up: int
    widest: int
    half_cache: bool


def read_weights(folder: Path, name: str) -> Weights:
    """What the graph `name` in `folder` will take; raises UserError where graph or data are damaged."""
    import onnx

    from bridge_edge.runtimes.onnx_check import check_external, load_graph

    check_external(folder, name)
    graph = load_graph(folder / name).graph
    uses: dict[str, list[tuple[Any, int]]] = defaultdict(list)
    for node in graph.node:
        for place, given in enumerate(node.input):
            uses[given].append((node, place))
    held = looked_up = passing = widest = 0
    for tensor in graph.initializer:
        by = uses[tensor.name]
        kinds = {node.op_type for node, _ in by}
        took = Tensor(prod(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        if kinds and kinds <= set(LOOKS_UP):
            looked_up += took.bytes
            continue
        held += _held(took, by, bool(kinds & {*TIES, *LOOKS_UP}))
        packed = [node for node, place in by if place == 1 and node.op_type in ("MatMulNBits", "MatMul")]
        if packed:
            passing = max(passing, took.bytes if packed[0].op_type == "MatMulNBits" else took.count * F32)
            inputs = _attribute(packed[0], "K", 0) if packed[0].op_type == "MatMulNBits" else tensor.dims[0]
            widest = max(widest, int(inputs))
    halves = {i.type.tensor_type.elem_type for i in graph.input if "past_key" in i.name}
    return Weights(held, passing, looked_up, widest, onnx.TensorProto.FLOAT16 in halves)


@dataclass(frozen=True)
class Tensor:
    count: int
    width: int

    @property
    def bytes(self) -> int:
        return self.count * self.width


def _held(tensor: Tensor, by: list[tuple[Any, int]], tied: bool) -> int:
    """Bytes that are in memory because of one initialiser."""
    for node, place in by:
        if node.op_type == "MatMul" and place == 1:
            return (2 if tied else 1) * tensor.count * F32
        if node.op_type == "MatMulNBits" and place == 1:
            return (2 if tied else 1) * tensor.bytes
        if node.op_type == "MatMulNBits" and place == 2:
            rounded = _attribute(node, "accuracy_level", 0) == INTEGERS
            return tensor.bytes + ((2 + tied) * tensor.count * F32 if rounded else 0)
    return tensor.bytes


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
