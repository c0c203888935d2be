"""Hard and soft labels mixed per token, from a TA to a student (Bridge-Garden, arXiv 2605.26246).

What: `token_losses` gives l = lambda * D(TA, student) + (1 - lambda) * NLL(label) for every token, with lambda by one
of the methods of KINDS and D one of DIVERGENCES; `hybrid_losses` does the same from hidden states in chunks, so that
no (N, V) logits are ever held for the whole batch.
Why: a token that must be exact wants the hard label, a flexible one the TA's distribution; mixing them lowers exposure
bias without sampling from the student. Chunks keep a vocabulary of 150,000 from deciding the batch size.
Not covered: TAs with another tokenizer (the two vocabularies must mean the same ids; rows that a model pads its
vocabulary with are cut off), and on-policy sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from bridge_edge.errors import UserError, unknown

KINDS = ("hard", "soft", "static", "confidence", "confidence-label", "entropy", "power", "curriculum", "risk")
DIVERGENCES = ("forward", "reverse", "js", "skew", "alpha-beta")
CHUNK = 1024  # tokens whose logits are held at once


@dataclass(frozen=True)
class Mix:
    """How to mix, and what the methods are set by.

    `kind`: `hard` (lambda 0), `soft` (1), `static` (`share`), `confidence` (1 - max p), `confidence-label`
    (1 - p(label), as the authors' code has it), `entropy` (H / log V), `power` ((sum p^g - 1) / (V^(1-g) - 1) with
    g = `gamma`, as their code has it), `curriculum` (0, rising to `share` over the first `rise` of the steps), `risk`
    (hard labels and (`alpha` / 4) * delta^2, delta the soft Bellman residual z(label) - V(next) with V = logsumexp of
    the student's logits; no TA is needed). p is the TA's distribution.
    """

    kind: str = "static"
    share: float = 0.2
    gamma: float = 0.1
    rise: float = 0.2
    alpha: float = 0.05
    divergence: str = "forward"
    skew: float = 0.1
    ab: tuple[float, float] = (0.2, 0.7)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kd.mix", self.kind, KINDS)
        if self.divergence not in DIVERGENCES:
            raise unknown("kd.divergence", self.divergence, DIVERGENCES)
        for name, low, high in (("share", 0.0, 1.0), ("gamma", 0.0, 1.0), ("rise", 0.0, 1.0), ("skew", 0.0, 1.0)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"kd.{name}={getattr(self, name)} is out of range", f"use {low:g} to {high:g}")
        if self.divergence == "alpha-beta" and (min(map(abs, self.ab)) < 1e-6 or abs(sum(self.ab)) < 1e-6):
            raise UserError(f"kd.ab={list(self.ab)} has no alpha-beta divergence", "use alpha, beta and a sum beside 0")

    @property
    def needs_teacher(self) -> bool:
        return self.kind not in ("hard", "risk")


def divergence(student: torch.Tensor, teacher: torch.Tensor, mix: Mix) -> torch.Tensor:
    """D of log-probabilities (N, V) and (N, V): shape (N,), >= 0, 0 where they are equal.

    `forward` KL(T || S), `reverse` KL(S || T), `js` Jensen-Shannon, `skew` KL(T || s T + (1 - s) S) (DistiLLM, arXiv
    2402.03898), `alpha-beta` (ABKD, arXiv 2505.04560). Tokens that the TA gives no probability (-inf) count as 0.
    """
    p, q = teacher.exp(), student.exp()
    match mix.divergence:
        case "forward":
            return _kl(p, teacher, student)
        case "reverse":
            # The TA's zeros would make this infinite for any student: they are held at the smallest float.
            return _kl(q, student, teacher.clamp_min(math.log(torch.finfo(teacher.dtype).tiny)))
        case "js":
            middle = ((p + q) / 2).clamp_min(torch.finfo(p.dtype).tiny).log()
            return (_kl(p, teacher, middle) + _kl(q, student, middle)) / 2
        case "skew":
            mixed = (mix.skew * p + (1 - mix.skew) * q).clamp_min(torch.finfo(p.dtype).tiny).log()
            return _kl(p, teacher, mixed)
    a, b = mix.ab
    terms = p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
    return -terms.sum(-1) / (a * b)


def _kl(p: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p)).sum(-1)


def soft_share(teacher: torch.Tensor, labels: torch.Tensor, mix: Mix, progress: float) -> torch.Tensor:
    """lambda of each token, (N,) in 0..1, from the TA's log-probabilities (N, V); `progress` is the part of the steps
    that lies behind."""
    size, vocab = labels.shape, teacher.shape[-1]
    match mix.kind:
        case "soft":
            return torch.ones(size, dtype=teacher.dtype)
        case "static":
            return torch.full(size, mix.share, dtype=teacher.dtype)
        case "curriculum":
            now = mix.share * (min(1.0, progress / mix.rise) if mix.rise else 1.0)
            return torch.full(size, now, dtype=teacher.dtype)
        case "confidence":
            return 1 - teacher.max(-1).values.exp()
        case "confidence-label":
            return 1 - teacher.gather(-1, labels[:, None])[:, 0].exp()
        case "entropy":
            p = teacher.exp()
            return torch.where(p > 0, -p * teacher, torch.zeros_like(p)).sum(-1) / math.log(vocab)
        case "power":
            spread = (teacher * mix.gamma).exp().where(teacher > -math.inf, torch.zeros_like(teacher)).sum(-1)
            return (spread - 1) / (vocab ** (1 - mix.gamma) - 1)
    return torch.zeros(size, dtype=teacher.dtype)


def token_losses(
    student: torch.Tensor, teacher: torch.Tensor | None, labels: torch.Tensor, mix: Mix, progress: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (N,) and lambdas (N,) from logits (N, V) and (N, V'); gradients flow into `student` alone.

    Where V and V' differ by padding, both are cut to the smaller. `risk` has its own term: see `risk_penalty`.
    """
    if teacher is None:
        if mix.needs_teacher:
            raise ValueError(f"kd.mix={mix.kind} needs the TA's logits")
        return F.cross_entropy(student.float(), labels, reduction="none"), torch.zeros(labels.shape)
    vocab = min(student.shape[-1], teacher.shape[-1])
    log_student = student[:, :vocab].float().log_softmax(-1)
    log_teacher = teacher[:, :vocab].detach().float().log_softmax(-1)
    hard = -log_student.gather(-1, labels[:, None])[:, 0]
    share = soft_share(log_teacher, labels, mix, progress)
    return share * divergence(log_student, log_teacher, mix) + (1 - share) * hard, share


def risk_penalty(student: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, mix: Mix) -> torch.Tensor:
    """(alpha / 4) * delta^2 of each token, (N,): delta = z(label at t) - V(t + 1), V = logsumexp of the logits.

    `rows` (N,) says which example each token is of; a row's last token has no next one and pays nothing.
    """
    chosen = student.float().gather(-1, labels[:, None])[:, 0]
    values = student.float().logsumexp(-1)
    follows = torch.zeros_like(rows, dtype=torch.bool)
    follows[:-1] = rows[1:] == rows[:-1]
    delta = chosen - torch.cat([values[1:], values[-1:]])
    return torch.where(follows, mix.alpha / 4 * delta.square(), torch.zeros_like(delta))


Head = Callable[[torch.Tensor], torch.Tensor]


def hybrid_losses(
    hidden: torch.Tensor, head: Head, taught: torch.Tensor, taught_head: Head, labels: torch.Tensor, mix: Mix,
    progress: float = 1.0, chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """`token_losses` from the hidden states (N, H) and (N, H') of student and TA, `chunk` tokens at a time.

    Logits are made again in the backward pass, so at no time more than one chunk of them is held.
    """

    def part(own: torch.Tensor, other: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            teacher = taught_head(other)
        return token_losses(head(own), teacher, wanted, mix, progress)

    losses, shares = [], []
    for start in range(0, len(labels), chunk):
        piece = slice(start, start + chunk)
        loss, share = checkpoint(part, hidden[piece], taught[piece], labels[piece], use_reentrant=False)
        losses.append(loss)
        shares.append(share.detach())
    return torch.cat(losses), torch.cat(shares)
