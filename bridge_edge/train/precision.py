"""Which number format a computation runs in."""

from __future__ import annotations

import torch


def use_bf16(precision: str, device: torch.device) -> bool:
    """bf16 where it was asked for, or where `auto` finds hardware that multiplies it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
