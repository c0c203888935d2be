"""How far off is the predicted peak of memory, over three sizes of model and four lengths of context?

    python -m bridge_edge.benchmarks.memory_grid --folder FOLDER [--only onnx] [--sizes 135M] [--contexts 256,1024]

Checkpoints of random weights in three usual shapes (memory depends on shapes alone) become GGUF F16 and ONNX int4; each
is opened in a fresh process that fills a context, as `bench --context` does, and its peak stands beside what `capacity`
predicts from the headers and what the libraries took. Takes minutes and about 6 GB of disk for all. Not covered: models
larger than half a billion parameters; figures of a machine that swaps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bridge_edge.benchmarks import capacity, conversion, memory
from bridge_edge.benchmarks.report import MIB
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import unknown
from bridge_edge.plain import grid

AIM = 0.05
CONTEXTS = "256,1024,2048,4096"
LAYOUT = {"max_position_embeddings": 8_192, "tie_word_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "135M": {"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1_536, "num_hidden_layers": 30,
             "num_attention_heads": 9, "num_key_value_heads": 3, **LAYOUT},
    "360M": {"vocab_size": 49_152, "hidden_size": 960, "intermediate_size": 2_560, "num_hidden_layers": 32,
             "num_attention_heads": 15, "num_key_value_heads": 5, **LAYOUT},
    "500M": {**conversion.SHAPE, **LAYOUT},
}  # fmt: skip
MADE = {"gguf": (conversion.GGUF, "model.gguf"), "onnx": (conversion.ONNX, "onnx")}  # by format: code, name


def artifact(folder: Path, size: str, fmt: str, shapes: dict[str, dict[str, Any]]) -> Path:
    """A model of this size and format, made unless it is there."""
    place = folder / size
    place.mkdir(parents=True, exist_ok=True)
    code, name = MADE[fmt]
    if not (place / name).exists():
        conversion.make_checkpoint(place / "checkpoint", shapes[size])
        conversion.measure(code, [str(place / "checkpoint"), str(place / name), ""])
    return place / name


def cells(
    folder: Path, formats: Sequence[str], contexts: Sequence[int], shapes: dict[str, dict[str, Any]], threads: int
) -> list[dict[str, Any]]:
    """Predicted and measured peak of every size, format and context."""
    found = []
    for fmt in formats:
        for size in shapes:
            path = artifact(folder, size, fmt, shapes)
            shape = capacity.shape_of(path)
            for context in contexts:
                used = memory.measure(path, [], 1, threads, context=context)
                found.append({"format": fmt, "size": size, **capacity.compared(shape, used, context)})
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The cells for people, the worst error last."""
    lines = [
        [r["format"], r["size"], str(r["context"]), f"{r['predicted_peak_bytes'] / MIB:.0f}",
         f"{r['measured_peak_bytes'] / MIB:.0f}", f"{r['error']:+.1%}"]
        for r in rows
    ]  # fmt: skip
    worst, inside = max(abs(r["error"]) for r in rows), sum(abs(r["error"]) <= AIM for r in rows)
    head = ["format", "size", "context", "predicted, MiB", "measured, MiB", "error"]
    return f"{grid(head, lines, right=range(2, 6))}\n{inside} of {len(rows)} within {AIM:.0%}, worst {worst:.1%}"


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Models are made there, and stay.")
@click.option("--only", type=click.Choice(list(MADE)), default=None, help="One format.")
@click.option("--sizes", default=",".join(SHAPES), show_default=True)
@click.option("--contexts", default=CONTEXTS, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(folder: Path, only: str | None, sizes: str, contexts: str, threads: int) -> None:
    """Print the table and one JSON line."""
    quiet_environment()
    for size in sizes.split(","):
        if size not in SHAPES:
            raise unknown("size", size, SHAPES)
    shapes = {size: SHAPES[size] for size in sizes.split(",")}
    lengths = [int(word) for word in contexts.split(",")]
    rows = cells(folder.absolute(), [only] if only else list(MADE), lengths, shapes, threads)
    click.echo(table(rows))
    click.echo(json.dumps({"aim": AIM, "rows": rows}))


if __name__ == "__main__":
    main()
