"""Memory and time of training with mixed labels (`kd.*`) beside plain cross-entropy, for a large vocabulary.

    python -m bridge_edge.benchmarks.mixing --vocab 151936 --tokens 512

Two optimiser steps of the one training loop at the same batch, each arm in a fresh process that gives its peak resident
memory. Plain training holds the logits of the whole batch; mixed labels hold a chunk of the student's and the TA's, so
the ratio that matters leaves the TA's own weights out, and the other one counts them. Weights are random, since memory
depends on shapes alone; the TA's vocabulary is padded, as those of large models are. Not covered: GPUs, adapters.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import click

from bridge_edge.benchmarks.memory import peak_rss
from bridge_edge.cli import quiet_environment
from bridge_edge.plain import grid

PLAIN = "plain"
ARMS = (PLAIN, "static", "entropy", "risk")
PADDING, LENGTH, STEPS = 128, 64, 2


def measure(arm: str, vocab: int, hidden: int, ta_hidden: int, tokens: int) -> dict[str, Any]:
    """Train in this process; peak memory, the TA's weights among it, and seconds."""
    import numpy as np
    import torch

    from bridge_edge.train.batches import ANSWER, PROMPT, Encoded
    from bridge_edge.train.hybrid import Mix, Taught
    from bridge_edge.train.loop import Plan, train

    rng, rows = np.random.default_rng(0), STEPS * tokens // LENGTH
    codes = np.array([PROMPT] + [ANSWER] * (LENGTH - 1), np.int8)
    examples = [Encoded(rng.integers(0, vocab, LENGTH).astype(np.int32), codes) for _ in range(rows)]
    student, plan = model(vocab, hidden), Plan(1e-4, 1, tokens, tokens, "adamw", precision="fp32")
    held = 0
    if arm != PLAIN:
        ta = model(vocab + PADDING, ta_hidden)
        held = 4 * sum(p.numel() for p in ta.parameters())
        plan = Plan(1e-4, 1, tokens, tokens, "adamw", precision="fp32", losses=Taught(ta, Mix(arm)))
    torch.set_num_threads(1)
    start = time.perf_counter()
    done = train(student, examples, plan, 0, lambda share, note: None)
    return {"arm": arm, "peak_bytes": peak_rss(), "ta_bytes": held, "steps": done.steps,
            "seconds": round(time.perf_counter() - start, 2)}  # fmt: skip


def model(vocab: int, hidden: int) -> Any:
    from transformers import AutoModelForCausalLM, Qwen2Config

    shape: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return AutoModelForCausalLM.from_config(
        Qwen2Config(
            vocab_size=vocab, hidden_size=hidden, intermediate_size=2 * hidden, tie_word_embeddings=True, **shape
        )
    )


@click.command()
@click.option("--vocab", type=int, default=151_936, show_default=True)
@click.option("--hidden", type=int, default=256, show_default=True, help="of the student")
@click.option("--ta-hidden", type=int, default=512, show_default=True)
@click.option("--tokens", type=int, default=512, show_default=True, help="tokens of a batch, a multiple of 64")
@click.option("--arm", type=click.Choice(ARMS), help="measure one arm in this process and print it")
def main(vocab: int, hidden: int, ta_hidden: int, tokens: int, arm: str | None) -> None:
    """Print the figures as a table, and as one JSON line last."""
    if arm:
        print(json.dumps(measure(arm, vocab, hidden, ta_hidden, tokens)))
        return
    sizes = [f"--vocab={vocab}", f"--hidden={hidden}", f"--ta-hidden={ta_hidden}", f"--tokens={tokens}"]
    command = [sys.executable, "-m", "bridge_edge.benchmarks.mixing", *sizes]
    found = []
    for name in ARMS:
        done = subprocess.run([*command, f"--arm={name}"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"{name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    base = found[0]["peak_bytes"]
    for row in found:
        row["ratio"] = round(row["peak_bytes"] / base, 3)
        row["ratio_without_ta"] = round((row["peak_bytes"] - row["ta_bytes"]) / base, 3)
    cells = [[r["arm"], f"{r['peak_bytes'] / 1e6:.0f}", f"{r['ta_bytes'] / 1e6:.0f}", f"{r['ratio']:.2f}",
              f"{r['ratio_without_ta']:.2f}", f"{r['seconds']:.1f}"] for r in found]  # fmt: skip
    print(grid(["arm", "peak MB", "TA MB", "ratio", "without TA", "s"], cells, right=(1, 2, 3, 4, 5)))
    print(json.dumps({"vocab": vocab, "hidden": hidden, "ta_hidden": ta_hidden, "tokens": tokens, "arms": found}))


if __name__ == "__main__":
    quiet_environment()
    main()
