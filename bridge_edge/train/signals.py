"""The TA's distributions kept on disk (`kd.top_k`), so that the TA need not lie in memory while the student learns.

What: `keep` runs the TA once over the examples and writes, for each supervised token, the ids and float16
log-probabilities of its k most probable tokens, the log of the mass of all others (the tail), and what only the whole
distribution tells: lambda and the hard label. `Kept` is the token losses that are made of it. Shards are safetensors,
each written beside its place and renamed, so that a killed run goes on from the last whole one.
Why: a TA of 7B parameters beside the student takes the memory that the batch needs, and runs again in every epoch.

How far off: student and TA are compared over k + 1 outcomes, the tail being one. By the chain rule the forward KL is
too small by exactly t * KL(TA's tail || student's tail), t being the TA's mass there, and the reverse KL likewise with
the student's mass s; Jensen-Shannon by at most ln 2 * (t + s) / 2, and the skewed KL by at most t * log(m / (skew * t))
with m = skew * t + (1 - skew) * s. None is ever too large. Rounding changes the forward KL by at most
2^-11 * sum p |log p| |log(p / q) - KL| (first order). lambda and the NLL are exact.
Not covered: the alpha-beta divergence, which has no such bound; `kd.label=sample` is drawn once, not at each step.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PreTrainedModel

from bridge_edge.errors import UserError, first_line
from bridge_edge.parallel import Map, side_by_side
from bridge_edge.progress import track
from bridge_edge.train.batches import Batch, Encoded, bucket, collate, key_of
from bridge_edge.train.hybrid import Mix, chunks, divergence, hard_labels, in_chunks, soft_share
from bridge_edge.train.loop import Plan
from bridge_edge.train.losses import States, supervised_states
from bridge_edge.train.precision import use_bf16

SHARD = 512  # examples a file: written, or lost with a kill, at once
OPEN = 64  # shards that are held open
NARROW = 1 << 16  # rows of a vocabulary up to which an id takes two bytes
PLAIN = 12  # bytes of a token besides its k entries: tail, lambda, label
STEADY = ("soft", "static", "curriculum")  # lambdas that do not ask for the TA
FIELDS = ("ids", "logs", "tail", "share", "label")
Signals = dict[str, torch.Tensor]


def token_bytes(k: int, vocab: int) -> int:
    """Bytes that one supervised token takes on disk."""
    return min(k, vocab - 1) * (2 + id_type(vocab).itemsize) + PLAIN


def id_type(vocab: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if vocab <= NARROW else np.int32)


def coarse(logs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (n, k + 1) of the tokens `ids` (n, k) and of all others together, from those of all (n, V)."""
    tail = logs.scatter(-1, ids, -math.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logs.gather(-1, ids), tail], -1)


def signals_of(
    teacher: torch.Tensor, labels: torch.Tensor, mix: Mix, k: int, chances: torch.Tensor | None = None
) -> Signals:
    """What is kept of the TA's logits (n, V), V being the shared part of both vocabularies and above k."""
    logs = teacher.float().log_softmax(-1)
    labels = hard_labels(logs, labels, mix, chances)
    ids = logs.topk(k, dim=-1).indices
    both = coarse(logs, ids)
    share = soft_share(logs, labels, mix, 1.0)
    return {"ids": ids, "logs": both[:, :-1].half(), "tail": both[:, -1], "share": share, "label": labels}


def kept_losses(
    student: States, found: Signals, vocab: int, mix: Mix, progress: float, size: int | None = None
) -> torch.Tensor:
    """Losses (N,) of the student's states from what is kept of the TA over the first `vocab` tokens, `size` states at a
    time."""

    def part(piece: slice, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels = found["ids"][piece].long(), found["label"][piece].long()
        teacher = torch.cat([found["logs"][piece].float(), found["tail"][piece, None]], -1).log_softmax(-1)
        logs = student.head(own)[:, :vocab].log_softmax(-1)
        share = soft_share(teacher, labels, mix, progress) if mix.kind in STEADY else found["share"][piece]
        hard = -logs.gather(-1, labels[:, None])[:, 0]
        return share * divergence(coarse(logs, ids), teacher, mix) + (1 - share) * hard, share

    return torch.cat([losses for losses, _ in in_chunks(part, student, size)])


@dataclass(frozen=True)
class Keeper:
    """Writes what `mix` needs of a TA: `k` tokens of the `vocab` that it shares with the student. Of `plan` the batch,
    the precision and the seed count."""

    ta: PreTrainedModel
    mix: Mix
    k: int
    vocab: int
    plan: Plan

    def keep(self, examples: Sequence[Encoded], folder: Path) -> None:
        """Write the shards of `examples`, each example once; those that a killed run left whole stay as they are."""
        folder.mkdir(exist_ok=True)
        once = {key_of(row.ids, row.segments): row for row in examples}
        keys = sorted(once, key=lambda key: len(once[key]))
        with side_by_side(self.ta) as run, track("the assistant's distributions", len(keys)) as advance:
            for start in range(0, len(keys), SHARD):
                part, path = keys[start : start + SHARD], folder / f"{start // SHARD:06d}.safetensors"
                if not path.exists():
                    self._write([once[key] for key in part], path, run)
                advance(len(part), "")

    def _write(self, rows: list[Encoded], path: Path, run: Map) -> None:
        """One shard, which is there as a whole or not at all."""
        found: dict[int, dict[str, np.ndarray]] = {}
        batches = bucket([len(r) for r in rows], self.plan.micro_tokens, range(len(rows)))
        for places, read in zip(
            batches, run(lambda places: self._read([rows[i] for i in places]), batches), strict=True
        ):
            found |= dict(zip(places, read, strict=True))
        counts = [len(found[i]["tail"]) for i in range(len(rows))]
        whole = {name: np.concatenate([found[i][name] for i in range(len(rows))]) for name in FIELDS}
        whole["starts"] = np.cumsum([0, *counts])
        keys = b"".join(key_of(row.ids, row.segments) for row in rows)
        whole["keys"] = np.frombuffer(keys, np.uint8).reshape(len(rows), -1)
        write_shard(whole, path)

    @torch.no_grad()
    def _read(self, rows: list[Encoded]) -> list[dict[str, np.ndarray]]:
        """What is kept of each row."""
        batch = collate(rows, 0).to(self.ta.device)
        chances = self._chances(rows)
        with torch.autocast(self.ta.device.type, torch.bfloat16, enabled=use_bf16(self.plan.precision, self.ta.device)):
            states = supervised_states(self.ta, batch)
            parts = [
                signals_of(
                    states.head(states.hidden[piece])[:, : self.vocab],
                    states.labels[piece],
                    self.mix,
                    min(self.k, self.vocab - 1),
                    None if chances is None else chances[piece],
                )
                for piece in chunks(states, None)
            ]
        joined = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in FIELDS}
        joined["ids"], joined["label"] = joined["ids"].astype(id_type(self.vocab)), joined["label"].astype(np.int32)
        owner = states.rows.cpu().numpy()
        return [{name: values[owner == i] for name, values in joined.items()} for i in range(len(rows))]

    def _chances(self, rows: list[Encoded]) -> torch.Tensor | None:
        """Random numbers (N,) that belong to each row, whatever batch it is in."""
        if self.mix.label != "sample":
            return None
        found = []
        for row in rows:
            place = int.from_bytes(key_of(row.ids, row.segments)[:7]) + self.plan.seed
            source = torch.Generator().manual_seed(place)
            found.append(torch.rand(int((row.segments[1:] > 0).sum()), generator=source, dtype=torch.float64))
        return torch.cat(found)


def write_shard(arrays: dict[str, np.ndarray], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        save_file(arrays, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write the assistant's distributions to {path}: {first_line(error)}",
            "free some space, or keep fewer with kd.top_k; what is whole is kept",
        ) from error


class Kept:
    """The token losses of a student whose TA lies in the shards of a folder (see `train.losses.TokenLosses`)."""

    def __init__(self, folder: Path, mix: Mix, vocab: int) -> None:
        self.mix, self.vocab = mix, vocab
        self.opened = lru_cache(OPEN)(lambda path: safe_open(path, "numpy"))
        self.places: dict[bytes, tuple[Path, slice]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "numpy") as file:
                keys, starts = file.get_tensor("keys"), file.get_tensor("starts").tolist()
            for i, key in enumerate(keys):
                self.places[key.tobytes()] = (path, slice(starts[i], starts[i + 1]))

    def __call__(self, model: PreTrainedModel, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        states = supervised_states(model, batch)
        return kept_losses(states, self.of(batch), self.vocab, self.mix, progress), states.segments

    def of(self, batch: Batch) -> Signals:
        """What is kept of the supervised tokens of a batch, row by row, as `supervised_states` has them."""
        ids, segments = batch.ids.cpu().numpy(), batch.segments.cpu().numpy()
        places = [self.places[key_of(*row)] for row in zip(ids, segments, strict=True)]
        found: Signals = {}
        for name in FIELDS:
            joined = np.concatenate([self.opened(path).get_slice(name)[place] for path, place in places])
            found[name] = torch.from_numpy(joined.astype(np.int32) if name == "ids" else joined).to(batch.ids.device)
        return found
