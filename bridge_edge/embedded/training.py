"""One run of pretraining: batches of generated documents, steps shared between processes, checkpoints.

Each process works on one core with documents of its own. Gradients are averaged, and Muon's two halves are worked on by
different processes, which then hand each other the weights. What continues exactly: weights, optimiser and the place in
the stream of documents. Not covered: several machines.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import distributed
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from bridge_edge.embedded.skills import Document, documents
from bridge_edge.embedded.tokenizer import END, START, STOP
from bridge_edge.train.attention import use_fast_attention
from bridge_edge.train.batches import PROMPT, RATIONALE, Batch, Encoded, bucket, collate
from bridge_edge.train.losses import segment_nll, supervised_logits
from bridge_edge.train.optim import Optimizer, build_optimizer

VOCAB = 1536
SHAPES = {"ta": 6, "student": 3}  # layers; everything else is shared
TRAIN_SEED = {"ta": 100_000, "student": 200_000}
REPORT_EVERY = 50  # steps


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


def encode(tokenizer: PreTrainedTokenizerBase, docs: list[Document]) -> list[Encoded]:
    pairs = [texts(d) for d in docs]
    prompts = tokenizer([p for p, _ in pairs], add_special_tokens=False)["input_ids"]
    completions = tokenizer([c for _, c in pairs], add_special_tokens=False)["input_ids"]
    rows = []
    for p, c in zip(prompts, completions, strict=True):
        segments = np.array([PROMPT] * len(p) + [RATIONALE] * len(c), dtype=np.int8)
        rows.append(Encoded(np.array(p + c, dtype=np.int32), segments))
    return rows


def stream(tokenizer: PreTrainedTokenizerBase, seed: int, skip: int, micro: int) -> Iterator[Batch]:
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


@dataclass
class Training:
    """What a checkpoint holds: a model, its optimiser, and how far they are."""

    model: Qwen2ForCausalLM
    optimizer: Optimizer
    state: dict[str, float]

    def save(self, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        torch.save(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "state": self.state}, temporary
        )
        os.replace(temporary, path)


def begin(job: Job, saved: Path) -> Training:
    """From the checkpoint, else from the base that the job names, else from noise."""
    model = Qwen2ForCausalLM(config(SHAPES[job.shape]))
    use_fast_attention(model)
    optimizer = build_optimizer(model, "muon", job.lr)
    state: dict[str, float] = {"step": 0, "tokens": 0, "seconds": 0.0, "micro": job.micro, "done": 0}
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
    return Training(model, optimizer, state)


def backward(model: Qwen2ForCausalLM, batch: Batch) -> float:
    """The loss of a batch; its gradients are left on the model."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, labels, segments = supervised_logits(model, batch)
    loss = segment_nll(logits, labels, segments, {RATIONALE: 1.0})
    loss.backward()
    return float(loss.detach())


def advance(training: Training, batch: Batch, job: Job, rank: int) -> float:
    """One step together with the other workers; returns this worker's loss."""
    loss, state = backward(training.model, batch), training.state
    if job.workers > 1:
        average_gradients(training.model, job.workers)
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    state["tokens"] += job.micro * job.workers
    shared_step(training.optimizer, rate(state["tokens"], job.tokens, job.decay), rank, job.workers)
    state["step"] += 1
    state["done"] += 1
    return loss


def work(rank: int, job: Job, port: int) -> None:
    """Train in one process of `job.workers`, each with documents of its own; rank 0 reports and saves."""
    parent = os.getppid()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if job.workers > 1:
        where = f"tcp://127.0.0.1:{port}"
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=job.workers)
    saved = job.out / "state.pt"
    training = begin(job, saved)
    state, before, losses = training.state, dict(training.state), list[float]()
    seed = TRAIN_SEED[job.shape] + job.micro + 10_000 * rank + int(state["step"] - state["done"])
    last = time.monotonic()
    for batch in stream(AutoTokenizer.from_pretrained(job.tokenizer), seed, int(state["done"]), job.micro):
        losses.append(advance(training, batch, job, rank))
        now = time.monotonic()
        state["seconds"] += now - last
        last = now
        if job.workers > 1 and os.getppid() != parent:  # its launcher is gone; two runs must not write one checkpoint
            return
        if rank == 0 and state["done"] % REPORT_EVERY == 0:
            speed = (state["tokens"] - before["tokens"]) / (state["seconds"] - before["seconds"])
            place = f"step {state['step']:.0f} tokens {state['tokens']:,.0f}"
            click.echo(f"{place} loss {np.mean(losses[-100:]):.4f} {speed:,.0f} tok/s")
        finished = state["tokens"] >= job.tokens or state["step"] == job.until
        if finished or state["done"] % job.save_every == 0:
            if job.workers > 1:
                gather_momentum(training.optimizer)
            if rank == 0:
                training.save(saved)
        if finished:
            break
    if rank == 0:
        write_base(training.model, job, float(np.mean(losses[-200:])), state)


def write_base(model: Qwen2ForCausalLM, job: Job, loss: float, state: dict[str, float]) -> None:
    """Weights as float16 safetensors, and how they were made."""
    half = Qwen2ForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.config._attn_implementation = "sdpa"
    half.to(torch.float16).save_pretrained(job.out)
    record = {"shape": job.shape, "lr": job.lr, "workers": job.workers, "loss": round(loss, 5), **state}
    (job.out / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")
