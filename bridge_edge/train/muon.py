"""Muon for processors without bf16.

What: the update of `torch.optim.Muon` with its Newton-Schulz iteration in float32, small matrices of one shape
together. State and arguments are torch's own, so a checkpoint of either continues in the other.
Why: torch rounds the matrices to bf16 first. A processor that cannot multiply bf16 does so number by number, which
takes longer than all the rest of a training step of a small model (`python -m bridge_edge.benchmarks.optimiser`).
Not covered: complex parameters, `closure`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Muon

TOGETHER = 1 << 21  # numbers that are stacked: enough for small matrices, and large ones gain nothing by it


class Float32Muon(Muon):
    """`torch.optim.Muon` whose iteration runs in float32, with learning rates adjusted by `match_rms_adamw` only."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                size = max(1, TOGETHER // shape.numel())
                for start in range(0, len(parameters), size):
                    self._update(parameters[start : start + size], group)

    def _update(self, parameters: Sequence[torch.nn.Parameter], group: dict[str, Any]) -> None:
        moved = torch.stack([self._nesterov(p, group["momentum"]) for p in parameters])
        moved = orthogonal(moved, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * max(moved.shape[1:]) ** 0.5
        for parameter, update in zip(parameters, moved, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _nesterov(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        state, grad = self.state[parameter], parameter.grad
        assert grad is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        state["momentum_buffer"].lerp_(grad, 1 - momentum)
        return grad.lerp(state["momentum_buffer"], momentum)


def orthogonal(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Each of `matrices` (n, rows, columns) with its singular values brought near 1, by Newton-Schulz in float32."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
