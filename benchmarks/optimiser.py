"""Muon in float32 (`train/muon.py`) against torch's own, which rounds to bf16: steps a second, side by side.

    python -m bridge_edge.benchmarks.optimiser --threads 1

Same model, same gradients, in turn, with a warm-up. The training loop takes torch's where the processor multiplies bf16
natively; whether that is so here is printed.
"""

from __future__ import annotations

import json

import click

from bridge_edge.benchmarks.throughput import alternate
from bridge_edge.cli import quiet_environment


@click.command()
@click.option("--model", default="embedded:student", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=2, show_default=True, help="Steps of a turn.")
@click.option("--pairs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=None)
def main(model: str, steps: int, pairs: int, threads: int | None) -> None:
    """Print steps a second of both and their ratio as one JSON line."""
    import torch

    from bridge_edge.train.models import load_model
    from bridge_edge.train.muon import Float32Muon
    from bridge_edge.train.optim import hidden_matrices
    from bridge_edge.train.precision import use_bf16

    if threads:
        torch.set_num_threads(threads)
    matrices = hidden_matrices(load_model(model))
    noise = torch.Generator().manual_seed(0)
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=noise)
    ours, theirs = (kind(matrices, lr=1e-4, adjust_lr_fn="match_rms_adamw") for kind in (Float32Muon, torch.optim.Muon))

    def turn(optimizer: torch.optim.Optimizer) -> float:
        for _ in range(steps):
            optimizer.step()
        return steps

    found = alternate(lambda: turn(ours), lambda: turn(theirs), pairs)
    native = use_bf16("auto", torch.device("cpu"))
    print(json.dumps({"steps": found, "threads": torch.get_num_threads(), "bf16_native": native}))


if __name__ == "__main__":
    quiet_environment()
    main()
