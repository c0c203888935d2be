"""Optimisers and the learning-rate schedule.

`muon` gives every hidden matrix to torch's Muon (orthogonalised momentum, https://kellerjordan.github.io/posts/muon/),
or to that of `muon.py` where the processor has no bf16, and the rest (embeddings, norms, biases) to AdamW; `adamw`
gives everything to AdamW. Both hide behind one object with the three calls the loop needs, so that the loop does not
know which it has.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from bridge_edge.errors import UserError
from bridge_edge.parallel import Map
from bridge_edge.train.muon import Float32Muon
from bridge_edge.train.precision import use_bf16

OPTIMIZERS = ("muon", "adamw")


class Optimizer:
    """One or more torch optimisers stepped together; `scale` multiplies every base learning rate."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.base = [[group["lr"] for group in part.param_groups] for part in parts]

    def step(self, scale: float, run: Map = map) -> None:
        """One step at `scale` times the base rates; `run` may work on the parts side by side."""
        for part, rates in zip(self.parts, self.base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * scale
        list(run(lambda part: part.step(), self.parts))
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def hidden_matrices(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The trainable matrices between the embeddings and the vocabulary projection, which Muon is for."""
    return [
        parameter
        for label, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and "embed" not in label and "lm_head" not in label
    ]


def build_optimizer(model: torch.nn.Module, name: str, lr: float, weight_decay: float = 0.01) -> Optimizer:
    """Make the optimiser `name` over the trainable parameters of `model`.

    `lr` is AdamW's rate; Muon's updates are scaled to AdamW's RMS (adjust_lr_fn="match_rms_adamw"), so the
    same number serves both. Raises UserError for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"unknown optimizer {name!r}", f"choose one of: {', '.join(OPTIMIZERS)}")
    matrices = hidden_matrices(model) if name == "muon" else []
    known = {id(matrix) for matrix in matrices}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    parts: list[torch.optim.Optimizer] = []
    for half in (matrices[::2], matrices[1::2]):  # always two, so that a checkpoint fits any number of cores
        if half:
            muon = torch.optim.Muon if use_bf16("auto", half[0].device) else Float32Muon
            parts.append(muon(half, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        parts.append(torch.optim.AdamW(others, lr=lr, weight_decay=0.0, betas=(0.9, 0.98), fused=True))
    return Optimizer(parts)


def schedule(step: int, total: int, warmup: float = 0.05, floor: float = 0.02) -> float:
    """Factor of the base learning rate at `step` of `total`: linear warm-up, then cosine down to `floor`."""
    rise = max(1, int(total * warmup))
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, total - rise)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
