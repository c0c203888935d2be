"""Causal attention for short rows on a CPU that multiplies in bfloat16.

torch's fused CPU kernel is slow in bfloat16 (its backward took 45 % of a training step on an AVX512-BF16 machine at
about 100 tokens a row). Two plain matrix products and a softmax are about twice as fast end to end there, at the price
of materialising (B, heads, T, T). Grouped heads are folded into rows, so keys and values are never repeated. Longer
rows, and float32, in which torch's kernel is the faster one (`python -m bridge_edge.benchmarks.attention`), go to it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

LONGEST = 512
PLAIN: tuple[torch.dtype, ...] = (torch.bfloat16,)  # the types for which two products are the faster way
NAME = "bridge_edge_causal"


def causal_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (B, H, T, D)
    key: torch.Tensor,  # (B, G, S, D)
    value: torch.Tensor,  # (B, G, S, D)
    attention_mask: torch.Tensor | None,  # (B, 1, T, S) bool, True where a position may be seen
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention where position t sees 0..t, and of those only what the mask allows; the output is (B, T, H, D)."""
    batch, heads, length, width = query.shape
    groups, seen = key.shape[1], key.shape[2]
    scale = width**-0.5 if scaling is None else scaling
    if length > LONGEST or query.dtype not in PLAIN:
        if attention_mask is None and seen != length:  # torch's own causal mask is aligned to the first key
            attention_mask = torch.ones(length, seen, dtype=torch.bool, device=query.device).tril(seen - length)
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, is_causal=attention_mask is None, scale=scale, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous(), None
    folded = (query * scale).reshape(batch, groups, -1, width)  # (B, G, H/G*T, D)
    scores = torch.matmul(folded, key.transpose(2, 3)).view(batch, groups, -1, length, seen)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask[:, :, None, :, :seen], torch.finfo(scores.dtype).min)
    elif length > 1:
        future = torch.full((length, seen), float("-inf"), dtype=scores.dtype, device=scores.device)
        scores = scores + future.triu(1 + seen - length)
    weights = scores.softmax(-1, dtype=scores.dtype)
    out = torch.matmul(weights.view(batch, groups, -1, seen), value).view(batch, heads, length, width)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, causal_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_fast_attention(model: PreTrainedModel) -> str:
    """Switch `model` to this attention where it is the plain causal kind; returns the implementation it had before.

    Left alone: models with sliding windows or soft-capped scores, and models that are not on a CPU.
    """
    config = model.config
    before = str(config._attn_implementation)
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    capped = getattr(config, "attn_logit_softcapping", None)
    if model.device.type == "cpu" and not windowed and not capped:
        model.set_attn_implementation(NAME)
    return before
