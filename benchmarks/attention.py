"""The two ways of attention in training on a CPU (`train/attention.py`), side by side: tokens a second.

    python -m bridge_edge.benchmarks.attention --threads 1
    python -m bridge_edge.benchmarks.attention --threads 1 --recipe finance    # longer rows

Whole training steps without the optimiser (forward pass, loss, gradients) on items of a shipped domain with its
expert's rationales, in the precision that the training loop takes here; in turn, with a warm-up.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace

import click

from bridge_edge.benchmarks.throughput import alternate
from bridge_edge.cli import quiet_environment


@click.command()
@click.option("--recipe", default="legal", show_default=True, help="Whose items.")
@click.option("--model", default="embedded:ta", show_default=True)
@click.option("--items", type=click.IntRange(1), default=64, show_default=True)
@click.option("--micro", type=click.IntRange(64), default=1024, show_default=True, help="Padded tokens a forward pass.")
@click.option("--pairs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=None)
def main(recipe: str, model: str, items: int, micro: int, pairs: int, threads: int | None) -> None:
    """Print tokens a second of torch's kernel and of plain products, and their ratio, as one JSON line."""
    import torch

    from bridge_edge.data.encode import encode_samples
    from bridge_edge.data.pool import load_task
    from bridge_edge.train import attention
    from bridge_edge.train.batches import ANSWER, RATIONALE, collate, epoch
    from bridge_edge.train.losses import label_losses, segment_mean
    from bridge_edge.train.models import load_model, load_tokenizer
    from bridge_edge.train.precision import use_bf16

    if threads:
        torch.set_num_threads(threads)
    task, loaded = load_task(recipe), load_model(model).train()
    told = [(s, *task.expert(s, random.Random(0))) for s in task.generate(items, 0)]
    samples = [replace(s, rationale=rationale, answer=answer) for s, rationale, answer in told]
    rows = encode_samples(load_tokenizer(model), samples, "rationale_answer")
    batches = [collate([rows[i] for i in places], 0) for places in epoch(rows, micro, 0)]
    parameters = [p for p in loaded.parameters() if p.requires_grad]
    bf16 = use_bf16("auto", loaded.device)

    def turn(plain: tuple[torch.dtype, ...]) -> float:
        before, attention.PLAIN = attention.PLAIN, plain
        try:
            for batch in batches:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    losses, segments = label_losses(loaded, batch, 0.0)
                torch.autograd.grad(segment_mean(losses, segments, {RATIONALE: 1.0, ANSWER: 1.0}), parameters)
        finally:
            attention.PLAIN = before
        return float(sum(batch.tokens for batch in batches))

    found = alternate(lambda: turn(()), lambda: turn((torch.float32, torch.bfloat16)), pairs)
    both = {"kernel_per_s": found.pop("ours_per_s"), "products_per_s": found.pop("theirs_per_s")}
    mean, precision = round(sum(map(len, rows)) / len(rows)), "bf16" if bf16 else "fp32"
    print(
        json.dumps({"tokens": both | found, "threads": torch.get_num_threads(), "precision": precision, "length": mean})
    )


if __name__ == "__main__":
    quiet_environment()
    main()
