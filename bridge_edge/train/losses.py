"""Losses as pure functions of logits and labels, and the forward pass that feeds them.

Only positions that carry loss reach the vocabulary projection, the most expensive matrix product of a
small model: prompts and padding are dropped before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from bridge_edge.parallel import Map
from bridge_edge.train.batches import Batch

TokenLosses = Callable[[PreTrainedModel, Batch, float], tuple[torch.Tensor, torch.Tensor]]
"""What the training loop is handed: from a model, a batch and the share of the steps that lies behind to the losses
(N,) of the supervised tokens and their segment codes (N,). One that has a method `ahead` is shown all batches of a step
first (see `Ahead`)."""


@runtime_checkable
class Ahead(Protocol):
    """Losses with work to do for all batches of a step at once; `run` does pieces of it side by side."""

    def ahead(self, model: PreTrainedModel, batches: Sequence[Batch], progress: float, run: Map) -> None: ...


@dataclass(frozen=True)
class States:
    """The supervised positions of a batch just before the vocabulary projection `head`, which maps (n, H) to (n, V).

    `hidden` is (N, H); `labels`, `segments` and `rows` (which row of the batch) are (N,), tokens of a row in order.
    """

    hidden: torch.Tensor
    head: Callable[[torch.Tensor], torch.Tensor]
    vocab: int
    labels: torch.Tensor
    segments: torch.Tensor
    rows: torch.Tensor


def supervised_states(model: PreTrainedModel, batch: Batch) -> States:
    """Run `model` up to the projection, for the tokens whose segment is not PROMPT. Position t predicts t + 1."""
    wrapped: Any = model  # with adapters, the causal model lies inside
    causal = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
    output = causal.get_output_embeddings()
    cap = getattr(causal.config, "final_logit_softcapping", None)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        logits = output(hidden)  # (n, V)
        if cap:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    hidden = causal.get_decoder()(input_ids=batch.ids, use_cache=False).last_hidden_state  # (B, T, H)
    segments = batch.segments[:, 1:]  # (B, T-1)
    chosen = segments > 0
    places = torch.nonzero(chosen)[:, 0]
    labels = batch.ids[:, 1:][chosen]
    return States(hidden[:, :-1][chosen], head, output.weight.shape[0], labels, segments[chosen], places)


def supervised_logits(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (N, V) in float32, labels (N,) and segment codes (N,) of the supervised tokens."""
    states = supervised_states(model, batch)
    return states.head(states.hidden), states.labels, states.segments


def label_losses(model: PreTrainedModel, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain losses: the NLL of each supervised token (see `TokenLosses`)."""
    logits, labels, segments = supervised_logits(model, batch)
    return F.cross_entropy(logits, labels, reduction="none"), segments


def segment_mean(losses: torch.Tensor, segments: torch.Tensor, weights: Mapping[int, float]) -> torch.Tensor:
    """Weighted sum of the mean loss of each segment (scalar).

    L = sum_s weights[s] * mean loss over the tokens of segment s. A mean per segment keeps a long rationale
    from swamping a short answer. `weights` maps segment codes to their weight; segments without tokens
    contribute nothing.
    """
    total = losses.sum() * 0.0
    for code, weight in weights.items():
        part = losses[segments == code]
        if weight and part.numel():
            total = total + weight * part.mean()
    return total


def segment_nll(
    logits: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor, weights: Mapping[int, float]
) -> torch.Tensor:
    """`segment_mean` of the NLL of labels (N,) under logits (N, V)."""
    return segment_mean(F.cross_entropy(logits, labels, reduction="none"), segments, weights)
