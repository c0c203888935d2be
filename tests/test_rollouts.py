"""A student's own texts as batches: how they are encoded, their losses the slow way, and that a resume redraws them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from bridge_edge.data.card import ANSWER as MARKER
from bridge_edge.rollouts import OnPolicy, Rollouts
from bridge_edge.train.batches import ANSWER, PROMPT, RATIONALE, Batch, Encoded, collate
from bridge_edge.train.hybrid import Mix, Taught
from bridge_edge.train.loop import Plan, train
from bridge_edge.train.losses import label_losses
from bridge_edge.train.models import load_model
from tests import tiny
from tests.train.test_losses import rows as encoded_rows

BOUND = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    tiny.checkpoint(place / "ta", "qwen2")
    tiny.checkpoint(place / "student", "llama", hidden=32)
    return place


@pytest.fixture
def student(folder: Path) -> PreTrainedModel:
    return load_model(str(folder / "student")).train()


@pytest.fixture
def losses(folder: Path) -> OnPolicy:
    rollouts = Rollouts.of(tiny.tokenizer(), BOUND, 4, "fp32", seed=1)
    taught = Taught(load_model(str(folder / "ta")), Mix("soft", divergence="reverse"))
    return OnPolicy(taught, rollouts, share=1.0)


def test_from_the_marker_on_a_text_is_its_answer() -> None:
    tokenizer = tiny.tokenizer()
    rollouts = Rollouts.of(tokenizer, BOUND, 4, "fp32", 0)
    why, answer = (tokenizer(text)["input_ids"] for text in ("It pays.\n", f"{MARKER} no"))
    found = rollouts.encoded([5, 6], [*why, *answer, 2])
    assert found.ids.tolist() == [5, 6, *why, *answer, 2]
    assert found.segments.tolist() == [PROMPT] * 2 + [RATIONALE] * len(why) + [ANSWER] * (len(answer) + 1)
    assert rollouts.encoded([5], why).segments.tolist() == [PROMPT] + [RATIONALE] * len(why)


def test_texts_belong_to_the_prompt_the_step_and_the_copy(student: PreTrainedModel, losses: OnPolicy) -> None:
    rows, draw = encoded_rows(), losses.rollouts
    batch = collate(rows, 0)
    found = draw(student, batch, 0.25, copies=2)
    assert student.training
    for i, one in enumerate(found):
        prompt = rows[i // 2].ids[: int(np.flatnonzero(rows[i // 2].segments)[0])]
        assert one.ids[: len(prompt)].tolist() == prompt.tolist()
        assert 0 < len(one) - len(prompt) <= BOUND + 1
    texts = [one.ids.tolist() for one in found]
    assert texts == [one.ids.tolist() for one in draw(student, batch, 0.25, copies=2)]
    assert texts != [one.ids.tolist() for one in draw(student, batch, 0.5, copies=2)]
    assert texts[0] != texts[1]
    assert texts != [one.ids.tolist() for one in replace(draw, seed=2)(student, batch, 0.25, copies=2)]


def test_the_loss_is_the_reverse_kl_of_what_the_student_says(student: PreTrainedModel, losses: OnPolicy) -> None:
    batch = collate(encoded_rows(), 0)
    found, segments = losses(student, batch, 0.25)
    wanted = []
    for row in losses.rollouts(student, batch, 0.25):
        ids = torch.tensor([row.ids.tolist()])
        with torch.no_grad():
            p, q = (m(input_ids=ids).logits[0].double().softmax(-1) for m in (losses.taught.ta, student))
        wanted += [
            sum(b * (np.log(b) - np.log(a)) for a, b in zip(p[t - 1].tolist(), q[t - 1].tolist(), strict=True))
            for t in range(len(row))
            if row.segments[t]
        ]
    assert found.tolist() == pytest.approx(wanted, abs=1e-3)
    assert set(segments.tolist()) <= {RATIONALE, ANSWER}
    assert float(torch.autograd.grad(found.mean(), student.get_output_embeddings().weight)[0].abs().max()) > 0


def test_texts_of_a_step_are_those_of_its_batches_one_by_one(student: PreTrainedModel, losses: OnPolicy) -> None:
    rows = encoded_rows()
    batches = [collate(rows[:1], 0), collate(rows[1:], 0)]
    alone = [losses(student, batch, 0.25)[0] for batch in batches]
    sizes: list[int] = []

    class Counted(Rollouts):
        def __call__(self, model: PreTrainedModel, batch: Batch, progress: float, copies: int = 1) -> list[Encoded]:
            sizes.append(len(batch.ids))
            return super().__call__(model, batch, progress, copies)

    together = replace(losses, rollouts=Counted(**vars(losses.rollouts)), drawn={})
    together.ahead(student, batches, 0.25, map)
    assert sizes == [len(rows)]
    for batch, wanted in zip(batches, alone, strict=True):
        assert together(student, batch, 0.25)[0].tolist() == pytest.approx(wanted.tolist(), abs=1e-4)
    assert sizes == [len(rows)], "what was drawn together is drawn again"
    late = replace(together, start=0.5)
    late.ahead(student, batches, 0.25, map)
    assert not late.drawn
    assert sizes == [len(rows)]


def test_about_the_share_of_the_batches_is_the_students_own(losses: OnPolicy) -> None:
    batch = collate(encoded_rows(), 0)
    for share in (0.0, 0.3, 1.0):
        chosen = [replace(losses, share=share).own(batch, step / 400) for step in range(400)]
        assert np.mean(chosen) == pytest.approx(share, abs=0.08)
    late = replace(losses, start=0.5)
    assert [late.own(batch, progress) for progress in (0.0, 0.49, 0.5, 0.99)] == [False, False, True, True]
    taught = losses.taught(student_of(losses), batch, 0.5)[0]
    assert torch.equal(replace(losses, share=0.0)(student_of(losses), batch, 0.5)[0], taught)
    plain = label_losses(student_of(losses), batch, 0.0)[0]
    assert torch.equal(late(student_of(losses), batch, 0.49)[0], plain), "before, it is tuned on hard labels"
    assert not torch.equal(replace(late, share=0.0)(student_of(losses), batch, 0.5)[0], plain)


def student_of(losses: OnPolicy) -> PreTrainedModel:
    """Any model will do where nothing is drawn."""
    return losses.taught.ta


def test_a_killed_training_goes_on_with_the_same_texts(folder: Path, losses: OnPolicy, tmp_path: Path) -> None:
    plan = Plan(1e-3, 3, 32, 32, "adamw", precision="fp32", save_every=0.0, losses=losses)

    def trained(name: str, dies_at: int | None = None) -> list[torch.Tensor]:
        model, steps = load_model(str(folder / "student")), []

        def advance(step: float, note: str) -> None:
            steps.append(note)
            if dies_at is not None and len(steps) > dies_at:
                raise KeyboardInterrupt

        train(model, encoded_rows(), plan, 0, advance, tmp_path / f"{name}.pt")
        return [p.detach() for p in model.parameters()]

    whole = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("killed", dies_at=4)
    assert (tmp_path / "killed.pt").exists()
    assert all(torch.equal(a, b) for a, b in zip(whole, trained("killed"), strict=True))
