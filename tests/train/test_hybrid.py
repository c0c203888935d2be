"""Each mixed loss against a slow, obvious implementation, and its gradient against finite differences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.nn import Linear
from transformers import PreTrainedModel

from bridge_edge.recipe_methods import KdSpec
from bridge_edge.train.batches import Batch, collate
from bridge_edge.train.hybrid import (
    Mix,
    Taught,
    divergence,
    hard_labels,
    hybrid_losses,
    risk_losses,
    risk_penalty,
    soft_share,
    token_losses,
)
from bridge_edge.train.loop import Plan, train
from bridge_edge.train.losses import States, label_losses, segment_mean, supervised_states
from bridge_edge.train.models import load_model
from tests import tiny
from tests.train.test_losses import rows as encoded_rows

N, V = 5, 7
KINDS, DIVERGENCES = (get_args(KdSpec.model_fields[name].annotation) for name in ("mix", "divergence"))
WITH_TEACHER = [k for k in KINDS if k not in ("none", "hard", "risk")]


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
    rows, chosen = torch.tensor([0, 0, 0, 1, 1]), student.gather(-1, labels[:, None])[:, 0]
    found = risk_penalty(chosen, student.logsumexp(-1), rows, Mix("risk"))
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


def states(hidden: torch.Tensor, head: Linear) -> States:
    labels, rows = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 0, 0, 1, 1])
    return States(hidden, head, V, labels, torch.full((N,), 2), rows)


@pytest.mark.parametrize("kind", [*WITH_TEACHER, "risk"])
def test_chunks_change_neither_losses_nor_gradients(kind: str) -> None:
    torch.manual_seed(0)
    own, other = Linear(4, V, bias=False), Linear(6, V, bias=False)
    hidden, taught = torch.randn(N, 4), states(torch.randn(N, 6), other)
    results = []
    for size in (2, 100):
        own.zero_grad()
        moving = hidden.clone().requires_grad_()
        if kind == "risk":
            found = risk_losses(states(moving, own), Mix(kind), size)
        else:
            found, _ = hybrid_losses(states(moving, own), taught, Mix(kind), 0.5, size=size)
        found.sum().backward()
        assert own.weight.grad is not None
        assert moving.grad is not None
        results.append((found.detach(), own.weight.grad.clone(), moving.grad.clone()))
        assert other.weight.grad is None
    for few, all_at_once in zip(*results, strict=True):
        assert torch.allclose(few, all_at_once, atol=1e-6)


def test_a_hard_label_is_the_datas_the_most_probable_or_a_drawn_one() -> None:
    p = torch.tensor([[0.1, 0.6, 0.3]] * 4)
    data, chances = torch.tensor([2, 2, 2, 2]), torch.tensor([0.05, 0.2, 0.69, 0.95])
    assert hard_labels(p.log(), data, Mix(), None).tolist() == [2, 2, 2, 2]
    assert hard_labels(p.log(), data, Mix(label="argmax"), None).tolist() == [1, 1, 1, 1]
    assert hard_labels(p.log(), data, Mix(label="sample"), chances).tolist() == [0, 1, 1, 2]
    with pytest.raises(ValueError, match="random numbers"):
        hard_labels(p.log(), data, Mix(label="sample"), None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student and a TA of another shape over the same tokens; the TA's vocabulary is padded."""
    place: Path = tmp_path_factory.mktemp("models")
    student = load_model(str(tiny.checkpoint(place / "student", "llama", hidden=32)))
    return student, load_model(str(tiny.checkpoint(place / "ta", "qwen2", vocab_size=tiny.VOCAB + 16)))


def batch() -> Batch:
    return collate(encoded_rows(), 0)


@pytest.mark.parametrize("kind", ["soft", "entropy", "curriculum", "risk"])
def test_the_loops_losses_are_those_of_whole_logits(kind: str, models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    student, ta = models
    mix = Mix(kind)
    found, segments = Taught(ta, mix)(student, batch(), 0.1)
    own, other = supervised_states(student, batch()), supervised_states(ta, batch())
    logits = own.head(own.hidden)
    if kind == "risk":
        chosen, values = logits.gather(-1, own.labels[:, None])[:, 0], logits.logsumexp(-1)
        wanted = values - chosen + risk_penalty(chosen, values, own.rows, mix)
    else:
        wanted = token_losses(logits, other.head(other.hidden), own.labels, mix, 0.1)[0]
    assert torch.equal(segments, own.segments)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_student_alone_learns_and_hard_labels_are_the_plain_loss(
    models: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    student, ta = models
    plain = label_losses(student, batch(), 0.0)
    assert torch.equal(Taught(ta, Mix("hard"))(student, batch(), 0.0)[0], plain[0])
    for mix in (Mix("entropy"), Mix("hard", label="argmax")):
        losses, segments = Taught(ta, mix)(student, batch(), 0.0)
        grads = torch.autograd.grad(segment_mean(losses, segments, {1: 1.0, 2: 1.0}), list(student.parameters()))
        assert all(torch.isfinite(g).all() for g in grads)
        assert not torch.allclose(losses, plain[0])
    assert not any(p.requires_grad for p in ta.parameters())


def test_drawn_labels_are_the_same_at_the_same_step(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    student, ta = models
    found = [
        Taught(ta, Mix("hard", label="sample"), seed)(student, batch(), progress)[0]
        for seed, progress in ((0, 0.5), (0, 0.5), (1, 0.5), (0, 0.6))
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_micro_batches_side_by_side_come_to_the_same(tmp_path: Path) -> None:
    """Chunks are computed again in the backward pass, here in the thread of their micro-batch."""
    tiny.checkpoint(tmp_path / "student", "llama", hidden=32)
    ta = load_model(str(tiny.checkpoint(tmp_path / "ta", "qwen2")))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            student = load_model(str(tmp_path / "student"))
            plan = Plan(1e-3, 2, 64, 16, "adamw", precision="fp32", losses=Taught(ta, Mix("entropy")))
            train(student, encoded_rows() * 4, plan, 0, lambda share, note: None)
        finally:
            torch.set_num_threads(before)
        found.append([p.detach() for p in student.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
