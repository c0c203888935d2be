"""An ONNX graph as a file: checked, counted, and put where every runtime finds it.

The builder writes one data file with everything in it. Browsers want small tensors inside the graph (shapes are read
before any data arrives), the data under a name of their own and in parts below two gigabytes, so it is rewritten here,
tensor by tensor, without ever holding the weights. Not covered: what the operators compute; parity tells that.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import onnx

from bridge_edge.errors import UserError
from bridge_edge.export.onnx_table import share_table
from bridge_edge.runtimes.onnx_check import check_external, load_graph, tensors

INLINE = 1024  # bytes up to which a tensor stays in the graph
ALIGN = 64  # bytes, a cache line: the kernels read weights in place
MOST_PART = 2_000_000_000  # bytes of a data file; browsers stop at two gigabytes
CHUNK = 1 << 24


@functools.cache
def _register_ops() -> None:
    """Tell onnx.checker of the runtime's one operator that lives in the default domain without being standard."""
    formal, types = onnx.defs.OpSchema.FormalParameter, ("T", ["tensor(float)", "tensor(float16)"], "")
    integer, real = onnx.defs.OpSchema.AttrType.INT, onnx.defs.OpSchema.AttrType.FLOAT
    attribute = onnx.defs.OpSchema.Attribute
    onnx.defs.register_schema(
        onnx.defs.OpSchema(
            "SimplifiedLayerNormalization",
            "",
            1,
            inputs=[formal("X", "T"), formal("scale", "T")],
            outputs=[formal("Y", "T")],
            type_constraints=[types],
            attributes=[
                attribute("axis", integer, required=False),
                attribute("epsilon", real, required=False),
                attribute("stash_type", integer, required=False),
            ],
        )
    )


def check_graph(path: Path) -> None:
    """onnx.checker on the model and its external data; nothing in it names a place on this machine."""
    _register_ops()
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise UserError(f"the exported graph is not valid ONNX: {error}", "export to gguf") from None
    data = path.read_bytes()
    for place in (path.parent.absolute(), Path.home()):
        at = data.find(f"{place}/".encode())
        if at >= 0 and place != Path("/"):
            raise UserError(
                f"the graph {path.name} names a place on this machine: {data[at : at + 60]!r}", "export to gguf"
            )


def settle_dims(model: onnx.ModelProto, known: Mapping[str, int]) -> None:
    """Give dimensions that have a name, but are the same in every call, their number: transformers.js makes an empty
    cache from the inputs' shapes and takes any name but the batch for zero."""
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in known:
                dim.dim_value = known[dim.dim_param]


def move(source: Path, target: Path, known: Mapping[str, int], tied: bool = False) -> list[Path]:
    """Write the graph `source` as `target`, its data beside it as `<target>_data`, `_data_1` and so on; the data files.

    `known` are sizes of named dimensions; in a `tied` model the LM head's table serves for the embeddings too, where it
    can. All are new files: nothing is linked, and `source` stays as it was.
    """
    model = load_graph(source)
    check_external(source.parent, source.name)
    settle_dims(model, known)
    if tied:
        share_table(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    out: IO[bytes] | None = None
    try:
        for tensor in tensors(model, source):
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            offset, length = int(entries.get("offset", 0)), int(entries["length"])
            del tensor.external_data[:]
            with (source.parent / entries["location"]).open("rb") as data:
                data.seek(offset)
                if length < INLINE:
                    tensor.data_location = onnx.TensorProto.DEFAULT
                    tensor.raw_data = data.read(length)
                    continue
                if out is None or (out.tell() and out.tell() + length > MOST_PART):
                    if out:
                        out.close()
                    parts.append(target.with_name(f"{target.name}_data" + (f"_{len(parts)}" if parts else "")))
                    out = parts[-1].open("wb")
                out.write(b"\0" * (-out.tell() % ALIGN))
                for key, value in (("location", parts[-1].name), ("offset", out.tell()), ("length", length)):
                    tensor.external_data.add(key=key, value=str(value))
                _copy(data, out, length)
    finally:
        if out:
            out.close()
    target.write_bytes(model.SerializeToString())
    return parts


def _copy(data: IO[bytes], out: IO[bytes], length: int) -> None:
    while length:
        piece = data.read(min(length, CHUNK))
        if not piece:
            raise UserError("the ONNX builder wrote less data than it names", "export again")
        out.write(piece)
        length -= len(piece)


def fallbacks(path: Path, bits: int) -> list[str]:
    """Matrix products and tables that stayed wider than `bits` in an integer export, by node name."""
    if bits > 8:
        return []
    graph = load_graph(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "MatMul" and any(i in weights for i in node.input):
            found.append(f"{node.name}: MatMul")
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
            given = next((a.i for a in node.attribute if a.name == "bits"), 4)
            if given != bits:
                found.append(f"{node.name}: {node.op_type} of {given} bits")
        if node.op_type == "Gather" and node.input[0] in weights:
            found.append(f"{node.name}: Gather")
    return found


def weight_bytes(folder: Path, name: str) -> int:
    """Bytes of the graph and its external data."""
    return sum((folder / part).stat().st_size for part in [name, *check_external(folder, name)])
