"""Pretrain the embedded base models on the general skills of `skills/`.

    python -m bridge_edge.embedded.pretrain tokenizer --out DIR/tok
    python -m bridge_edge.embedded.pretrain train student --tokenizer DIR/tok --out DIR/student --tokens 30e6
    python -m bridge_edge.embedded.pretrain grow DIR/student DIR/ta
    python -m bridge_edge.embedded.pretrain train ta --tokenizer DIR/tok --out DIR/ta --tokens 15e6
    python -m bridge_edge.embedded.pretrain train ta --init bridge_edge/embedded/models/ta --tokenizer ... --out ...
    python -m bridge_edge.embedded.pretrain probe DIR/ta

Training is resumable: the same command continues from `state.pt`. The learning rate is constant, then falls
linearly over the last `--decay` share of the tokens, so a run can be shortened or extended by restarting it
with another `--tokens` before the rate falls. Weights are written as float16 safetensors in hub layout.
"""

from __future__ import annotations

import itertools
import socket
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import multiprocessing
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2ForCausalLM

from bridge_edge.embedded.skills import WORDS, documents
from bridge_edge.embedded.tokenizer import train_tokenizer
from bridge_edge.embedded.training import SHAPES, VOCAB, Job, config, encode, work
from bridge_edge.train.batches import collate
from bridge_edge.train.losses import supervised_logits

TOKENIZER_SEED, PROBE_SEED = 11, 99


@click.group()
def main() -> None:
    """Build the embedded tokenizer and base models."""


@main.command("tokenizer")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def make_tokenizer(out: Path) -> None:
    """Train the shared tokenizer on 60,000 documents."""
    docs = itertools.islice(documents(TOKENIZER_SEED), 60_000)
    corpus = itertools.chain(
        (f"{d.prompt}\n{d.steps}\nAnswer: {d.answer}" for d in docs), (f" {w}" for w in WORDS * 400)
    )
    tokenizer = train_tokenizer(corpus, VOCAB)
    tokenizer.save_pretrained(out)
    click.echo(f"tokenizer with {len(tokenizer)} tokens in {out}")


@main.command("train")
@click.argument("shape", type=click.Choice(list(SHAPES)))
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--tokens", type=float, required=True, help="Tokens to train on (padding counted).")
@click.option("--until", type=int, default=None, help="Stop after this step, with a checkpoint.")
@click.option("--lr", type=float, default=3e-3, show_default=True)
@click.option("--micro", type=int, default=2048, show_default=True, help="Tokens a worker takes a step.")
@click.option("--workers", type=int, default=2, show_default=True, help="Processes, one core each.")
@click.option("--decay", type=float, default=0.25, show_default=True, help="Share of the tokens with a falling rate.")
@click.option(
    "--init", type=click.Path(path_type=Path, exists=True), help="Start from this base (hub layout), not from noise."
)
@click.option("--save-every", type=int, default=400, show_default=True, help="Steps between checkpoints.")
def train_base(**options: Any) -> None:
    """Pretrain the base model SHAPE; the same command resumes."""
    job = Job(**options)
    job.out.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(job.tokenizer).save_pretrained(job.out)
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port = probe_socket.getsockname()[1]
    if job.workers == 1:
        work(0, job, port)
    else:
        multiprocessing.spawn(work, args=(job, port), nprocs=job.workers)


@main.command("grow")
@click.argument("small", type=click.Path(path_type=Path, exists=True))
@click.argument("large", type=click.Path(path_type=Path))
def grow(small: Path, large: Path) -> None:
    """Start the TA from the student's checkpoint: after each layer a copy of it that adds nothing yet.

    The copies' output projections are zero, so the deep model computes exactly what the shallow one does, and
    pretraining goes on from there instead of from noise (function-preserving growth, Net2Net, arXiv 1511.05641).
    """
    loaded = torch.load(small / "state.pt", weights_only=True)
    source, grown = loaded["model"], {}
    for name, value in source.items():
        if ".layers." not in name:
            grown[name] = value
            continue
        head, _, tail = name.partition(".layers.")
        number, _, rest = tail.partition(".")
        grown[f"{head}.layers.{2 * int(number)}.{rest}"] = value
        silent = rest in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
        grown[f"{head}.layers.{2 * int(number) + 1}.{rest}"] = torch.zeros_like(value) if silent else value.clone()
    large.mkdir(parents=True, exist_ok=True)
    state = {"step": 0, "tokens": 0, "seconds": 0.0, "grown_from_tokens": loaded["state"]["tokens"]}
    torch.save({"model": grown, "state": state}, large / "state.pt")
    click.echo(f"{large} starts from {small} at {loaded['state']['tokens']:,.0f} tokens")


@main.command("probe")
@click.argument("model_dir", type=click.Path(path_type=Path, exists=True))
@click.option("--items", type=int, default=1000, show_default=True)
def probe(model_dir: Path, items: int) -> None:
    """Share of unseen documents, per skill, whose completion is the argmax at every token (teacher-forced)."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    state = model_dir / "state.pt"
    model: PreTrainedModel
    if state.exists():
        model = Qwen2ForCausalLM(config(SHAPES[model_dir.name]))
        model.load_state_dict(torch.load(state, weights_only=True)["model"])
    else:
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    docs = [d for d in itertools.islice(documents(PROBE_SEED, direct_share=0.0), items)]
    hits: dict[str, list[bool]] = {}
    for doc, row in zip(docs, encode(tokenizer, docs), strict=True):
        batch = collate([row], 0)
        with torch.no_grad():
            logits, labels, _ = supervised_logits(model, batch)
        hits.setdefault(doc.skill, []).append(bool((logits.argmax(-1) == labels).all()))
    for skill, flags in sorted(hits.items()):
        click.echo(f"{skill:18} {np.mean(flags):6.1%}  n={len(flags)}")
    click.echo(f"{'all':18} {np.mean([f for fs in hits.values() for f in fs]):6.1%}")


if __name__ == "__main__":
    main()
