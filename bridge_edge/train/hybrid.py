"""Hard and soft labels mixed per token, from a TA to a student (Bridge-Garden, arXiv 2605.26246).

What: `token_losses` gives l = lambda * D(TA, student) + (1 - lambda) * NLL(label) for every token, with lambda by one
of the methods of `Mix` and D one of five divergences; `Taught` does so for the batches of the training loop, with the
TA frozen in memory, in chunks, so that no (N, V) logits are ever held for a whole batch.
Why: a token that must be exact wants the hard label, a flexible one the TA's distribution; mixing them lowers exposure
bias without sampling from the student. Chunks keep a vocabulary of 150,000 from deciding the batch size.
Not covered: TAs with another tokenizer (the two vocabularies must mean the same ids; rows that a model pads its
vocabulary with are cut off), and on-policy sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from bridge_edge.train.batches import Batch
from bridge_edge.train.losses import States, label_losses, supervised_states

HELD = 1 << 24  # logits that are held at once
FEWEST = 16  # tokens in a chunk, however large the vocabulary
Chunk = Callable[[slice, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Mix:
    """How to mix, and what the methods are set by.

    `kind`: `hard` (lambda 0), `soft` (1), `static` (`share`), `confidence` (1 - max p), `confidence-label`
    (1 - p(label), as the authors' code has it), `entropy` (H / log V), `power` ((sum p^g - 1) / (V^(1-g) - 1) with
    g = `gamma`, as their code has it), `curriculum` (0, rising to `share` over the first `rise` of the steps), `risk`
    (hard labels and (`alpha` / 4) * delta^2, delta the soft Bellman residual z(label) - V(next) with V = logsumexp of
    the student's logits; no TA is needed). p is the TA's distribution. `label` says what the hard label is: the token
    in the `dataset`, the TA's `argmax`, or a `sample` of its distribution. The recipe checks the values (`kd.*`).
    """

    kind: str = "static"
    share: float = 0.2
    gamma: float = 0.1
    rise: float = 0.2
    alpha: float = 0.05
    divergence: str = "forward"
    skew: float = 0.1
    ab: tuple[float, float] = (0.2, 0.7)
    label: str = "dataset"

    @property
    def needs_teacher(self) -> bool:
        return self.kind not in ("hard", "risk") or self.label != "dataset"


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
            return teacher.new_ones(size)
        case "static":
            return teacher.new_full(size, mix.share)
        case "curriculum":
            return teacher.new_full(size, mix.share * (min(1.0, progress / mix.rise) if mix.rise else 1.0))
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
    return teacher.new_zeros(size)


def hard_labels(teacher: torch.Tensor, labels: torch.Tensor, mix: Mix, chances: torch.Tensor | None) -> torch.Tensor:
    """The hard labels (N,) that `mix` means, from the TA's log-probabilities (N, V) and those of the data (N,);
    `chances` (N,) are the uniform random numbers of a draw."""
    if mix.label == "argmax":
        return teacher.argmax(-1)
    if mix.label == "sample":
        if chances is None:
            raise ValueError("kd.label=sample needs random numbers")
        reached = teacher.exp().cumsum(-1) > chances.to(teacher)[:, None]
        return torch.where(reached.any(-1), reached.int().argmax(-1), teacher.argmax(-1))  # a sum may end below 1
    return labels


def token_losses(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    mix: Mix,
    progress: float = 1.0,
    chances: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (N,) and lambdas (N,) from logits (N, V) and (N, V'); gradients flow into `student` alone.

    Where V and V' differ by padding, both are cut to the smaller. `risk` has its own term: see `risk_penalty`.
    """
    vocab = min(student.shape[-1], teacher.shape[-1])
    log_student = student[:, :vocab].float().log_softmax(-1)
    log_teacher = teacher[:, :vocab].detach().float().log_softmax(-1)
    labels = hard_labels(log_teacher, labels, mix, chances)
    hard = -log_student.gather(-1, labels[:, None])[:, 0]
    share = soft_share(log_teacher, labels, mix, progress)
    return share * divergence(log_student, log_teacher, mix) + (1 - share) * hard, share


def risk_penalty(chosen: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, mix: Mix) -> torch.Tensor:
    """(alpha / 4) * delta^2 of each token, (N,): delta = z(label at t) - V(t + 1).

    `chosen` (N,) are the labels' logits z, `values` (N,) the logsumexp V of all logits, `rows` (N,) says which example
    each token is of; a row's last token has no next one and pays nothing.
    """
    follows = torch.zeros_like(rows, dtype=torch.bool)
    follows[:-1] = rows[1:] == rows[:-1]
    delta = chosen - torch.cat([values[1:], values[-1:]])
    return torch.where(follows, mix.alpha / 4 * delta.square(), torch.zeros_like(delta))


def chunks(states: States, size: int | None) -> Iterator[slice]:
    """Places of `size` tokens at a time; by default as many as keep their logits within `HELD`."""
    size = size or max(FEWEST, HELD // states.vocab)
    return (slice(start, start + size) for start in range(0, len(states.labels), size))


def hybrid_losses(
    student: States,
    teacher: States,
    mix: Mix,
    progress: float = 1.0,
    chances: torch.Tensor | None = None,
    size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`token_losses` of the states of student and TA, `size` tokens at a time.

    Logits are made again in the backward pass, so at no time more than one chunk of them is held.
    """

    def part(piece: slice, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            other = teacher.head(teacher.hidden[piece])
        drawn = None if chances is None else chances[piece]
        return token_losses(student.head(own), other, student.labels[piece], mix, progress, drawn)

    found = in_chunks(part, student, size)
    return torch.cat([loss for loss, _ in found]), torch.cat([share.detach() for _, share in found])


def risk_losses(student: States, mix: Mix, size: int | None = None) -> torch.Tensor:
    """NLL of each label and its `risk_penalty`, (N,), `size` tokens at a time."""

    def part(piece: slice, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = student.head(own)
        return logits.gather(-1, student.labels[piece][:, None])[:, 0], logits.logsumexp(-1)

    found = in_chunks(part, student, size)
    chosen, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values - chosen + risk_penalty(chosen, values, student.rows, mix)


def in_chunks(part: Chunk, student: States, size: int | None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`part` of each chunk, whose inside is not kept but computed again for its gradient; nothing in it is random."""
    found = []
    for piece in chunks(student, size):
        loss, other = checkpoint(part, piece, student.hidden[piece], use_reentrant=False, preserve_rng_state=False)
        found.append((loss, other))
    return found


def chosen(states: States) -> torch.Tensor:
    """Log-probability (N,) of each label, in chunks of logits."""

    def part(piece: slice, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = states.head(hidden)
        return logits.gather(-1, states.labels[piece][:, None])[:, 0] - logits.logsumexp(-1), states.labels[piece]

    return torch.cat([logs for logs, _ in in_chunks(part, states, None)])


class Taught:
    """The token losses of a student whose TA lies in memory, frozen (see `train.losses.TokenLosses`).

    Draws of `kd.label=sample` depend on the seed, the batch and the step, so that a resumed training makes them again.
    """

    def __init__(self, ta: PreTrainedModel, mix: Mix, seed: int = 0) -> None:
        self.ta, self.mix, self.seed = ta.eval().requires_grad_(False), mix, seed

    def __call__(self, model: PreTrainedModel, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        if self.mix.kind == "hard" and not self.mix.needs_teacher:
            return label_losses(model, batch, progress)
        states = supervised_states(model, batch)
        if self.mix.kind == "risk":
            return risk_losses(states, self.mix), states.segments
        losses, _ = hybrid_losses(states, self.states(batch), self.mix, progress, self._chances(batch, progress))
        return losses, states.segments

    def states(self, batch: Batch) -> States:
        """What the TA makes of a batch."""
        with torch.no_grad():
            return supervised_states(self.ta, batch)

    def _chances(self, batch: Batch, progress: float) -> torch.Tensor | None:
        if self.mix.label != "sample":
            return None
        place = self.seed * 1_000_003 + int(batch.ids.sum()) + int(progress * (1 << 40))
        source = torch.Generator().manual_seed(place)
        return torch.rand(int((batch.segments[:, 1:] > 0).sum()), generator=source, dtype=torch.float64)
