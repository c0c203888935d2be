"""One table for embeddings and LM head in an eight-bit graph.

The builder shares a tied table in four bits, but in eight it leaves the embeddings in full precision beside the
quantised head: for a small student that is half of the file. The head's blocks are read for the lookup here, as in four
bits. What is not exactly the shape that this expects stays as it was, and is then reported as a fallback. Not covered:
untied models, whose two tables differ.
"""

from __future__ import annotations

import onnx
from onnx import helper

BITS = 8
SHAPE = "/model/embed_tokens/quantised_shape"


def _number(node: onnx.NodeProto, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def share_table(model: onnx.ModelProto) -> bool:
    """Read embeddings from the LM head's eight-bit blocks and drop the table in full precision; whether it was done."""
    graph = model.graph
    dims = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    lookups = [n for n in graph.node if n.op_type == "Gather" and n.input[0] in dims and n.input[1] == "input_ids"]
    heads = [n for n in graph.node if n.op_type == "MatMulNBits" and n.name.startswith("/lm_head/")]
    if len(lookups) != 1 or len(heads) != 1 or _number(heads[0], "bits") != BITS:
        return False
    lookup, head = lookups[0], heads[0]
    rows, columns, block = (_number(head, key) for key in ("N", "K", "block_size"))
    scales = [name for name in head.input[2:4] if name]  # and zero points, where the algorithm has them
    if dims[lookup.input[0]] != [rows, columns] or dims[head.input[1]] != [rows, columns // block, block]:
        return False
    if any(dims[name] != [rows, columns // block] for name in scales) or any(head.input[4:]):
        return False
    _replace(graph, lookup, head, [rows, columns], scales, block)
    return True


def _replace(
    graph: onnx.GraphProto,
    lookup: onnx.NodeProto,
    head: onnx.NodeProto,
    shape: list[int],
    scales: list[str],
    block: int,
) -> None:
    table, at = lookup.input[0], list(graph.node).index(lookup)
    flat = f"{lookup.name}/blocks"
    reshape = helper.make_node("Reshape", [head.input[1], SHAPE], [flat], name=f"{lookup.name}/Reshape")
    gather = helper.make_node(
        "GatherBlockQuantized",
        [flat, "input_ids", *scales],
        list(lookup.output),
        name=f"{lookup.name}BlockQuantized",
        domain="com.microsoft",
        bits=BITS,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    graph.initializer.append(helper.make_tensor(SHAPE, onnx.TensorProto.INT64, [2], shape))
    graph.node.remove(lookup)
    graph.node.insert(at, reshape)
    graph.node.insert(at + 1, gather)
    if not any(table in node.input for node in graph.node):
        graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == table))
