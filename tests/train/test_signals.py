"""What is kept of the TA on disk: how far its losses are from the live ones, against the bounds that are stated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from transformers import PreTrainedModel

from bridge_edge.errors import UserError
from bridge_edge.train import signals
from bridge_edge.train.batches import Encoded, collate
from bridge_edge.train.hybrid import Mix, Taught, token_losses
from bridge_edge.train.loop import Plan
from bridge_edge.train.losses import States
from bridge_edge.train.models import load_model
from bridge_edge.train.signals import Keeper, Kept, kept_losses, signals_of, token_bytes
from tests import tiny
from tests.train.test_hybrid import WITH_TEACHER, logits, probabilities
from tests.train.test_losses import rows as encoded_rows

N, V, K = 12, 40, 6
STUDENT, TEACHER, LABELS = logits(1, N, V), 2 * logits(2, N, V), torch.arange(N) % V
PLAN = Plan(1e-3, 1, 256, 64, precision="fp32", seed=3)
BOUNDED = ("forward", "reverse", "js", "skew")


def states(student: torch.Tensor) -> States:
    none = torch.zeros(len(student), dtype=torch.long)
    return States(student, lambda hidden: hidden, student.shape[-1], LABELS, none, none)


def kept(student: torch.Tensor, teacher: torch.Tensor, mix: Mix, k: int = K, progress: float = 0.1) -> torch.Tensor:
    found = signals_of(teacher, LABELS, mix, k)
    return kept_losses(states(student), found, V, mix, progress, size=5)


def live(student: torch.Tensor, teacher: torch.Tensor, mix: Mix, progress: float = 0.1) -> torch.Tensor:
    return token_losses(student, teacher, LABELS, mix, progress)[0]


def tails(i: int) -> tuple[list[float], list[float], list[float], list[float], float]:
    """Of a token: p and q of the k kept ones, p and q of the tail, and what rounding p may add to the forward KL."""
    p, q = probabilities(TEACHER[i]), probabilities(STUDENT[i])
    first = sorted(range(V), key=lambda j: -p[j])[:K]
    rest = [j for j in range(V) if j not in first]
    whole = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    rounding = sum(p[j] * abs(math.log(p[j])) * abs(math.log(p[j] / q[j]) - whole) for j in first) / 2048
    return [p[j] for j in first], [q[j] for j in first], [p[j] for j in rest], [q[j] for j in rest], rounding


def tail_kl(a: list[float], b: list[float]) -> float:
    """Mass of a times KL of the two tails, each scaled to one."""
    return sum(x * math.log((x / sum(a)) / (y / sum(b))) for x, y in zip(a, b, strict=True))


def allowed(i: int, form: str, mix: Mix) -> float:
    """How much too small the divergence of token i may be, as the module says."""
    _, _, p, q, _ = tails(i)
    t, s = sum(p), sum(q)
    table = {
        "forward": lambda: tail_kl(p, q),
        "reverse": lambda: tail_kl(q, p),
        "js": lambda: math.log(2) * (t + s) / 2,
        "skew": lambda: t * math.log((mix.skew * t + (1 - mix.skew) * s) / (mix.skew * t)),
    }
    return table[form]()


@pytest.mark.parametrize("form", BOUNDED)
def test_what_is_left_out_is_within_the_stated_bound(form: str) -> None:
    mix = Mix("soft", divergence=form)
    gap = live(STUDENT, TEACHER, mix) - kept(STUDENT, TEACHER, mix)
    assert gap.max() > 0.01  # the tail is no trifle here
    for i in range(N):
        rounding = 3 * tails(i)[4] + 1e-3 * (form != "forward") + 1e-5
        assert -rounding <= float(gap[i]) <= allowed(i, form, mix) + rounding


def test_the_forward_kl_is_too_small_by_the_tails_own_divergence() -> None:
    mix = Mix("soft")
    gap = live(STUDENT, TEACHER, mix) - kept(STUDENT, TEACHER, mix)
    for i in range(N):
        assert float(gap[i]) == pytest.approx(allowed(i, "forward", mix), abs=1.5 * tails(i)[4] + 1e-5)


@pytest.mark.parametrize("form", BOUNDED)
@pytest.mark.parametrize("kind", WITH_TEACHER)
def test_with_all_tokens_kept_only_rounding_is_left(kind: str, form: str) -> None:
    mix = Mix(kind, share=0.3, divergence=form)
    found, wanted = kept(STUDENT, TEACHER, mix, V - 1), live(STUDENT, TEACHER, mix)
    assert torch.allclose(found, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", WITH_TEACHER)
def test_lambda_and_the_hard_label_are_exact(kind: str) -> None:
    hard = live(STUDENT, TEACHER, Mix("hard"))
    share = token_losses(STUDENT, TEACHER, LABELS, Mix(kind), 0.1)[1]
    soft = kept(STUDENT, TEACHER, Mix("soft"))
    assert torch.allclose(kept(STUDENT, TEACHER, Mix(kind)), share * soft + (1 - share) * hard, atol=1e-5)


@pytest.mark.parametrize("form", BOUNDED)
def test_gradients_agree_with_finite_differences(form: str) -> None:
    mix = Mix("static", share=0.5, divergence=form)
    student = STUDENT.clone().requires_grad_()
    kept(student, TEACHER, mix).sum().backward()
    assert student.grad is not None
    for i, j in ((0, int(TEACHER[0].argmax())), (3, int(TEACHER[3].argmin())), (7, 2)):
        sides = []
        for sign in (1, -1):
            moved = STUDENT.clone()
            moved[i, j] += sign * 1e-2
            sides.append(float(kept(moved, TEACHER, mix).double().sum()))
        assert float(student.grad[i, j]) == pytest.approx((sides[0] - sides[1]) / 2e-2, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("form", BOUNDED)
@pytest.mark.parametrize("degenerate", ["one-hot", "uniform", "-inf"])
def test_degenerate_teachers_give_finite_losses_and_gradients(form: str, degenerate: str) -> None:
    teacher = torch.zeros(N, V)
    if degenerate == "one-hot":
        teacher[:, 3] = 200.0
    if degenerate == "-inf":
        teacher[:, 2:] = -math.inf  # fewer than the k that are kept
    student = STUDENT.clone().requires_grad_()
    losses = kept(student, teacher, Mix("entropy", divergence=form))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student, and a TA whose vocabulary is padded."""
    folder = tmp_path_factory.mktemp("models")
    tiny.checkpoint(folder / "ta", "qwen2", vocab_size=tiny.VOCAB + 16)
    tiny.checkpoint(folder / "student", "llama", hidden=32)
    return load_model(str(folder / "student")), load_model(str(folder / "ta")).eval()


def stored(models: tuple[PreTrainedModel, PreTrainedModel], folder: Path, mix: Mix, rows: list[Encoded]) -> Kept:
    Keeper(models[1], mix, tiny.VOCAB, tiny.VOCAB, PLAN).keep(rows, folder)
    return Kept(folder, mix, tiny.VOCAB)


@pytest.mark.parametrize("label", ["dataset", "argmax"])
def test_any_batch_of_kept_examples_has_the_live_losses(
    label: str, models: tuple[PreTrainedModel, PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "SHARD", 2)
    rows, mix = encoded_rows(), Mix("confidence", label=label)
    found = stored(models, tmp_path, mix, [*rows, rows[0]])
    taught = Taught(models[1], mix)
    assert len(list(tmp_path.glob("*.safetensors"))) == math.ceil(len(rows) / 2)
    for chosen in (rows, rows[::-1], [rows[1], rows[0], rows[0]]):
        batch = collate(chosen, 7)
        for ours, theirs in zip(found(models[0], batch, 0.5), taught(models[0], batch, 0.5), strict=True):
            assert torch.allclose(ours.float(), theirs.float(), atol=5e-3)


def test_a_drawn_label_does_not_hang_on_the_batch(
    models: tuple[PreTrainedModel, PreTrainedModel], tmp_path: Path
) -> None:
    rows, mix = encoded_rows(), Mix("static", label="sample")
    one, two = stored(models, tmp_path / "one", mix, rows), stored(models, tmp_path / "two", mix, rows[:1])
    batch = collate(rows[:1], 0)
    drawn = one.of(batch)["label"]
    assert torch.equal(drawn, two.of(batch)["label"])
    assert not torch.equal(drawn, one.of(batch)["ids"][:, 0])  # not just the most probable ones


def test_what_a_killed_run_left_whole_is_not_made_again(
    models: tuple[PreTrainedModel, PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "SHARD", 1)
    rows, mix, write = encoded_rows(), Mix("static"), signals.write_shard
    made: list[str] = []

    def dies(arrays: dict[str, Any], path: Path) -> None:
        if len(made) == 2:
            path.with_suffix(".tmp").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        made.append(path.name)
        write(arrays, path)

    monkeypatch.setattr(signals, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        stored(models, tmp_path / "out", mix, rows)
    early = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")}
    monkeypatch.setattr(signals, "write_shard", write)
    found = stored(models, tmp_path / "out", mix, rows)
    assert len(early) == 2 < len(rows) == len(list((tmp_path / "out").glob("*.safetensors")))
    assert all(path.stat().st_mtime_ns == before for path, before in early.items())
    whole = stored(models, tmp_path / "whole", mix, rows)
    for row in rows:
        ours, theirs = (one.of(collate([row], 0)) for one in (found, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_sizes_are_as_planned_and_ids_of_large_vocabularies_fit(
    models: tuple[PreTrainedModel, PreTrainedModel], tmp_path: Path
) -> None:
    rows = encoded_rows()
    Keeper(models[1], Mix("static"), K, tiny.VOCAB, PLAN).keep(rows, tmp_path)
    arrays = load_file(tmp_path / "000000.safetensors")
    tokens = sum(int((row.segments[1:] > 0).sum()) for row in rows)
    assert sum(arrays[name].nbytes for name in signals.FIELDS) == tokens * token_bytes(K, tiny.VOCAB)
    assert signals.id_type(1 << 16).itemsize == 2
    assert signals.id_type(151_936).itemsize == 4


def test_a_disk_that_refuses_is_said_and_leaves_no_half_shard(
    models: tuple[PreTrainedModel, PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*names: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signals.os, "replace", full)
    with pytest.raises(UserError, match=r"cannot write the assistant's distributions.*No space left"):
        stored(models, tmp_path / "out", Mix("static"), encoded_rows())
    assert not list((tmp_path / "out").iterdir())
