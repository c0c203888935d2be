"""Each mixed loss against a slow, obvious implementation, and its gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from bridge_edge.errors import UserError
from bridge_edge.train.hybrid import (
    DIVERGENCES,
    KINDS,
    Mix,
    divergence,
    hybrid_losses,
    risk_penalty,
    soft_share,
    token_losses,
)

N, V = 5, 7
WITH_TEACHER = [k for k in KINDS if k not in ("hard", "risk")]


def logits(seed: int, n: int = N, v: int = V) -> torch.Tensor:
    return 2 * torch.randn(n, v, generator=torch.Generator().manual_seed(seed))


def probabilities(row: torch.Tensor) -> list[float]:
    raised = [math.exp(x - max(row.tolist())) for x in row.tolist()]
    return [x / sum(raised) for x in raised]


def slow_divergence(p: list[float], q: list[float], mix: Mix) -> float:
    def kl(a: list[float], b: list[float]) -> float:
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)

    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    a, b = mix.ab
    table = {
        "forward": lambda: kl(p, q),
        "reverse": lambda: kl(q, p),
        "js": lambda: (kl(p, middle) + kl(q, middle)) / 2,
        "skew": lambda: kl(p, [mix.skew * x + (1 - mix.skew) * y for x, y in zip(p, q, strict=True)]),
        "alpha-beta": lambda: (
            -sum(
                x**a * y**b - a / (a + b) * x ** (a + b) - b / (a + b) * y ** (a + b) for x, y in zip(p, q, strict=True)
            )
            / (a * b)
        ),
    }
    return table[mix.divergence]()


def slow_share(p: list[float], label: int, mix: Mix, progress: float) -> float:
    table = {
        "soft": lambda: 1.0,
        "static": lambda: mix.share,
        "curriculum": lambda: mix.share * min(1.0, progress / mix.rise),
        "confidence": lambda: 1 - max(p),
        "confidence-label": lambda: 1 - p[label],
        "entropy": lambda: -sum(x * math.log(x) for x in p if x > 0) / math.log(len(p)),
        "power": lambda: (sum(x**mix.gamma for x in p if x > 0) - 1) / (len(p) ** (1 - mix.gamma) - 1),
    }
    return table[mix.kind]()


@pytest.mark.parametrize("kind", WITH_TEACHER)
@pytest.mark.parametrize("form", DIVERGENCES)
def test_losses_are_what_the_formulas_say(kind: str, form: str) -> None:
    mix = Mix(kind, share=0.3, divergence=form)
    student, teacher, labels = logits(1), logits(2), torch.tensor([0, 3, 6, 2, 2])
    found, shares = token_losses(student, teacher, labels, mix, progress=0.1)
    for i in range(N):
        p, q, label = probabilities(teacher[i]), probabilities(student[i]), int(labels[i])
        share = slow_share(p, label, mix, 0.1)
        wanted = share * slow_divergence(p, q, mix) - (1 - share) * math.log(q[label])
        assert float(shares[i]) == pytest.approx(share, abs=1e-5)
        assert float(found[i]) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", WITH_TEACHER)
@pytest.mark.parametrize("form", DIVERGENCES)
def test_gradients_agree_with_finite_differences(kind: str, form: str) -> None:
    mix = Mix(kind, divergence=form)
    teacher, labels = logits(2), torch.tensor([0, 3, 6, 2, 2])
    student = logits(3).requires_grad_()
    token_losses(student, teacher, labels, mix)[0].sum().backward()
    assert student.grad is not None
    step = 1e-2
    for i, j in ((0, 0), (2, 5), (4, 2)):
        sides = []
        for sign in (1, -1):
            moved = student.detach().clone()
            moved[i, j] += sign * step
            sides.append(float(token_losses(moved, teacher, labels, mix)[0].double().sum()))
        assert float(student.grad[i, j]) == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("form", DIVERGENCES)
def test_equal_distributions_do_not_diverge_and_others_do(form: str) -> None:
    one, other = logits(4).log_softmax(-1), logits(5).log_softmax(-1)
    mix = Mix("soft", divergence=form)
    assert divergence(one, one, mix).abs().max() < 1e-5
    assert divergence(one, other, mix).min() > 1e-3


@pytest.mark.parametrize("kind", WITH_TEACHER)
@pytest.mark.parametrize("form", DIVERGENCES)
@pytest.mark.parametrize("degenerate", ["one-hot", "uniform", "-inf"])
def test_degenerate_teachers_give_finite_losses_and_gradients(kind: str, form: str, degenerate: str) -> None:
    teacher = torch.zeros(N, V)
    if degenerate == "one-hot":
        teacher[:, 3] = 200.0
    if degenerate == "-inf":
        teacher[:, 4:] = -math.inf
    student = logits(6).requires_grad_()
    found, share = token_losses(student, teacher, torch.full((N,), 3), Mix(kind, divergence=form))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert (share >= -1e-6).all()
    assert (share <= 1 + 1e-6).all()
    if degenerate == "one-hot" and kind in ("confidence", "confidence-label", "entropy", "power"):
        assert share.abs().max() < 1e-3  # a sure TA: the hard label alone


def test_a_uniform_teacher_is_all_garden_to_entropy_and_power() -> None:
    flat = torch.zeros(2, V).log_softmax(-1)
    for kind in ("entropy", "power"):
        assert soft_share(flat, torch.tensor([0, 1]), Mix(kind), 1.0).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_the_curriculum_begins_with_hard_labels() -> None:
    flat, label = torch.zeros(1, V).log_softmax(-1), torch.tensor([0])
    shares = [float(soft_share(flat, label, Mix("curriculum", share=0.4), p)) for p in (0.0, 0.1, 0.2, 1.0)]
    assert shares == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_risk_is_the_squared_residual_within_a_row() -> None:
    student, labels = logits(7), torch.tensor([1, 2, 3, 4, 5])
    rows = torch.tensor([0, 0, 0, 1, 1])
    found = risk_penalty(student, labels, rows, Mix("risk"))
    for i in range(N):
        if i in (2, 4):
            assert found[i] == 0
            continue
        value = math.log(sum(math.exp(x) for x in student[i + 1].tolist()))
        assert float(found[i]) == pytest.approx(0.05 / 4 * (float(student[i, labels[i]]) - value) ** 2, rel=1e-4)


def test_padded_vocabularies_are_cut_to_the_shared_part() -> None:
    student, teacher, labels = logits(8), logits(9), torch.tensor([0, 1, 2, 3, 4])
    padded = torch.cat([teacher, torch.full((N, 3), 9.0)], -1)
    mix = Mix("entropy")
    assert torch.equal(token_losses(student, teacher, labels, mix)[0], token_losses(student, padded, labels, mix)[0])


@pytest.mark.parametrize("kind", WITH_TEACHER)
def test_chunks_change_neither_losses_nor_gradients(kind: str) -> None:
    torch.manual_seed(0)
    own, other = torch.nn.Linear(4, V, bias=False), torch.nn.Linear(6, V, bias=False)
    hidden, taught, labels = torch.randn(N, 4), torch.randn(N, 6), torch.tensor([0, 1, 2, 3, 4])
    results = []
    for chunk in (2, 100):
        own.zero_grad()
        moving = hidden.clone().requires_grad_()
        found, share = hybrid_losses(moving, own, taught, other, labels, Mix(kind), 0.5, chunk)
        found.sum().backward()
        assert own.weight.grad is not None
        assert moving.grad is not None
        results.append((found.detach(), share, own.weight.grad.clone(), moving.grad.clone()))
        assert other.weight.grad is None
    for few, all_at_once in zip(*results, strict=True):
        assert torch.allclose(few, all_at_once, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"kind": "mixed"}, "kd.mix"),
        ({"divergence": "kl"}, "kd.divergence"),
        ({"share": 1.5}, "kd.share"),
        ({"divergence": "alpha-beta", "ab": (0.5, -0.5)}, "kd.ab"),
    ],
)
def test_bad_settings_are_named(words: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Mix(**words)  # type: ignore[arg-type]


def test_a_mix_that_needs_the_teacher_says_so() -> None:
    with pytest.raises(ValueError, match="needs the TA"):
        token_losses(logits(1), None, torch.zeros(N, dtype=torch.long), Mix("static"))
    plain, share = token_losses(logits(1), None, torch.zeros(N, dtype=torch.long), Mix("hard"))
    assert plain.shape == share.shape == (N,)
