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
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import distributed, multiprocessing
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from bridge_edge.embedded.skills import WORDS, Document, documents
from bridge_edge.embedded.tokenizer import END, START, STOP, train_tokenizer
from bridge_edge.train.attention import use_fast_attention
from bridge_edge.train.batches import PROMPT, RATIONALE, Batch, Encoded, bucket, collate
from bridge_edge.train.losses import segment_nll, supervised_logits
from bridge_edge.train.optim import Optimizer, build_optimizer

VOCAB = 1536
SHAPES = {"ta": 6, "student": 3}  # layers; everything else is shared
TOKENIZER_SEED, TRAIN_SEED, PROBE_SEED = 11, {"ta": 100_000, "student": 200_000}, 99


def config(layers: int) -> Qwen2Config:
    """Qwen2 architecture; 256 is the K-quants' block, so every matrix can be quantised without a fallback."""
    return Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


def texts(doc: Document) -> tuple[str, str]:
    """Prompt and completion of a document in its layout, with the special tokens written out."""
    completion = f"{doc.steps}\nAnswer: {doc.answer}" if doc.steps else f"Answer: {doc.answer}"
    if doc.chat:
        return f"{START}user\n{doc.prompt}{STOP}\n{START}assistant\n", completion + STOP
    return f"{doc.prompt}\n", completion + END


def encode(tokenizer: PreTrainedTokenizerFast, docs: list[Document]) -> list[Encoded]:
    pairs = [texts(d) for d in docs]
    prompts = tokenizer([p for p, _ in pairs], add_special_tokens=False)["input_ids"]
    completions = tokenizer([c for _, c in pairs], add_special_tokens=False)["input_ids"]
    rows = []
    for p, c in zip(prompts, completions, strict=True):
        segments = np.array([PROMPT] * len(p) + [RATIONALE] * len(c), dtype=np.int8)
        rows.append(Encoded(np.array(p + c, dtype=np.int32), segments))
    return rows


def stream(tokenizer: PreTrainedTokenizerFast, seed: int, skip: int, micro: int) -> Iterator[Batch]:
    """Endless batches of near-equal length; `skip` of them are passed over when a run resumes."""
    rng = random.Random(seed)
    source = documents(seed)
    done = 0
    while True:
        rows = [r for r in encode(tokenizer, list(itertools.islice(source, 2048))) if len(r) <= 320]
        groups = bucket([len(r) for r in rows], micro, range(len(rows)))
        rng.shuffle(groups)
        for group in groups:
            done += 1
            if done > skip:
                yield collate([rows[i] for i in group], 0)


def rate(tokens: float, total: float, decay: float) -> float:
    """Constant after a short rise, linear to zero over the last `decay` share of the tokens."""
    rise = min(1.0, (tokens + 1) / 200_000)
    return rise * min(1.0, max(0.01, (total - tokens) / (decay * total)))


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


@dataclass(frozen=True)
class Job:
    """One pretraining run, as a worker process is handed it."""

    shape: str
    tokenizer: Path
    out: Path
    tokens: float
    until: int | None
    lr: float
    micro: int
    workers: int
    save_every: int
    decay: float
    init: Path | None


def average_gradients(model: torch.nn.Module, workers: int) -> None:
    """Mean of the gradients over all workers, in one exchange."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    distributed.all_reduce(flat)
    flat /= workers
    for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def shared_step(optimizer: Optimizer, scale: float, rank: int, workers: int) -> None:
    """One step with Muon's two halves worked on by different workers, who then hand each other the weights."""
    if workers < 2:
        optimizer.step(scale)
        return
    mine = Optimizer([p for i, p in enumerate(optimizer.parts) if i == rank or i > 1])
    mine.base = [b for i, b in enumerate(optimizer.base) if i == rank or i > 1]
    mine.step(scale)
    for owner, part in enumerate(optimizer.parts[:2]):
        exchange([p.data for group in part.param_groups for p in group["params"]], owner)
        part.zero_grad(set_to_none=True)


def exchange(tensors: list[torch.Tensor], owner: int) -> None:
    """Make `tensors` on every worker what they are on `owner`, in one message."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    distributed.broadcast(flat, owner)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def gather_momentum(optimizer: Optimizer) -> None:
    """Bring both halves of Muon's momentum to every worker, before a checkpoint."""
    for owner, part in enumerate(optimizer.parts[:2]):
        parameters = [p for group in part.param_groups for p in group["params"]]
        for parameter in parameters:
            part.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        exchange([part.state[p]["momentum_buffer"] for p in parameters], owner)


def work(rank: int, job: Job, port: int) -> None:
    """Train in one process of `job.workers`, each with documents of its own; rank 0 reports and saves."""
    parent = os.getppid()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if job.workers > 1:
        where = f"tcp://127.0.0.1:{port}"
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=job.workers)
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    model = Qwen2ForCausalLM(config(SHAPES[job.shape]))
    use_fast_attention(model)
    optimizer = build_optimizer(model, "muon", job.lr)
    state: dict[str, float] = {"step": 0, "tokens": 0, "seconds": 0.0, "micro": job.micro, "done": 0}
    saved = job.out / "state.pt"
    if saved.exists():
        loaded = torch.load(saved, weights_only=True)
        model.load_state_dict(loaded["model"])
        if "optimizer" in loaded:
            optimizer.load_state_dict(loaded["optimizer"])
        state |= loaded["state"]
        if state["micro"] != job.micro:  # another batch size is another phase, with documents of its own
            state |= {"micro": job.micro, "done": 0}
    elif job.init is not None:
        former = json.loads((job.init / "pretraining.json").read_text())
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(job.init, dtype=torch.float32).state_dict())
        state["former_tokens"] = former["tokens"] + former.get("former_tokens", 0)
    seed = TRAIN_SEED[job.shape] + job.micro + 10_000 * rank + int(state["step"] - state["done"])
    last = time.monotonic()
    losses: list[float] = []
    for batch in stream(tokenizer, seed, int(state["done"]), job.micro):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, labels, segments = supervised_logits(model, batch)
        loss = segment_nll(logits, labels, segments, {RATIONALE: 1.0})
        loss.backward()
        losses.append(float(loss.detach()))
        if job.workers > 1:
            average_gradients(model, job.workers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        state["tokens"] += job.micro * job.workers
        shared_step(optimizer, rate(state["tokens"], job.tokens, job.decay), rank, job.workers)
        state["step"] += 1
        state["done"] += 1
        now = time.monotonic()
        state["seconds"] += now - last
        last = now
        finished = state["tokens"] >= job.tokens or state["step"] == job.until
        if job.workers > 1 and os.getppid() != parent:  # its launcher is gone; two runs must not write one checkpoint
            break
        if rank == 0 and state["done"] % 50 == 0:
            speed = job.micro * job.workers * min(state["done"], 50) / sum_of_last(now)
            place = f"step {state['step']:.0f} tokens {state['tokens']:,.0f}"
            click.echo(f"{place} loss {np.mean(losses[-100:]):.4f} {speed:,.0f} tok/s")
        saving = finished or state["done"] % job.save_every == 0
        if saving and job.workers > 1:
            gather_momentum(optimizer)
        if rank == 0 and saving:
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state},
                saved.with_suffix(".tmp"),
            )
            os.replace(saved.with_suffix(".tmp"), saved)
        if finished:
            break
    if rank == 0 and (job.workers == 1 or os.getppid() == parent):
        write_base(model, job, float(np.mean(losses[-200:])), state)


_marks: list[float] = []


def sum_of_last(now: float) -> float:
    """Seconds since the former call (or a small number at the first)."""
    _marks.append(now)
    return max(1e-6, now - _marks[-2]) if len(_marks) > 1 else 1e9


def write_base(model: Qwen2ForCausalLM, job: Job, loss: float, state: dict[str, float]) -> None:
    """Weights as float16 safetensors, and how they were made."""
    half = Qwen2ForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.config._attn_implementation = "sdpa"
    half.to(torch.float16).save_pretrained(job.out)
    record = {"shape": job.shape, "lr": job.lr, "workers": job.workers, "loss": round(loss, 5), **state}
    (job.out / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")


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
