"""Losses as pure functions of logits and labels, and the forward pass that feeds them.

Only positions that carry loss reach the vocabulary projection, the most expensive matrix product of a
small model: prompts and padding are dropped before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from bridge_edge.train.batches import Batch


def supervised_logits(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run `model` and project only the supervised positions.

    Returns logits (N, V) in float32, labels (N,) and segment codes (N,), where N counts the tokens whose
    segment is not PROMPT. Position t predicts token t + 1.
    """
    wrapped: Any = model  # with adapters, the causal model lies inside
    causal = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
    hidden = causal.get_decoder()(input_ids=batch.ids, use_cache=False).last_hidden_state  # (B, T, H)
    segments = batch.segments[:, 1:]  # (B, T-1)
    chosen = segments > 0
    logits = causal.get_output_embeddings()(hidden[:, :-1][chosen])  # (N, V)
    cap = getattr(causal.config, "final_logit_softcapping", None)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    return logits.float(), batch.ids[:, 1:][chosen], segments[chosen]


def segment_nll(
    logits: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor, weights: Mapping[int, float]
) -> torch.Tensor:
    """Weighted sum of the mean token NLL of each segment (scalar).

    L = sum_s weights[s] * mean NLL over the tokens of segment s. A mean per segment keeps a long rationale
    from swamping a short answer. `weights` maps segment codes to their weight; segments without tokens
    contribute nothing.
    """
    nll = F.cross_entropy(logits, labels, reduction="none")  # (N,)
    total = nll.sum() * 0.0
    for code, weight in weights.items():
        part = nll[segments == code]
        if weight and part.numel():
            total = total + weight * part.mean()
    return total
