"""Reinforcement: rewards by hand, losses the slow way, and a student that becomes better at what is rewarded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch

from bridge_edge import tutoring
from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.data.thinking import asked, budgets_of, thought
from bridge_edge.errors import UserError
from bridge_edge.phases import Context
from bridge_edge.recipe_io import load_recipe
from bridge_edge.reinforce import Aim, Grpo, Reward, advantages, chosen, fidelity, grpo_losses, questions
from bridge_edge.rollouts import Rollouts
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import STAGES, needed_for, unreinforced
from bridge_edge.train.batches import PROMPT, RATIONALE, collate, key_of
from bridge_edge.train.loop import Plan, train
from bridge_edge.train.losses import supervised_states
from bridge_edge.train.models import load_model, save_model
from tests import tiny
from tests.legal import LEGAL

BUDGETS = (8, 16)
POOL = [Sample(f"Is {i} more than {i % 7}?", "yes" if i % 2 else "no", f"{i} and {i % 7}.") for i in range(6)]
TOKENIZER = tiny.tokenizer()
WORDS = (*LEGAL, "task.answers=['yes', 'no']", "task.max_new_tokens=12", "student.epochs=1", "student.lr=1e-2",
         "reasoning.budgets=[8,16]")  # fmt: skip
RL = (*WORDS, "reasoning.rl=true", "reasoning.grpo.items=6", "reasoning.grpo.questions=2", "reasoning.grpo.group=3")


def ids(text: str) -> np.ndarray:
    return np.array([*TOKENIZER(text, add_special_tokens=False)["input_ids"], 2], np.int32)


def test_fidelity_is_whole_up_to_the_budget_and_gone_a_quarter_beyond() -> None:
    assert [fidelity(n, 40) for n in (0, 40, 45, 50, 90)] == [1, 1, 0.5, 0, 0]
    assert [fidelity(n, 40, 1.0) for n in (40, 50, 80, 90)] == [1, 0.75, 0, 0]
    assert [fidelity(n, 40, 0.0) for n in (0, 40, 41, 90)] == [1, 1, 0, 0]
    assert fidelity(90, None, 0.0) == 1


@pytest.mark.parametrize(
    ("text", "product", "additive"),
    [
        ("It is so.\nAnswer: yes", 1, 2),
        ("It is so.\nAnswer: no", 0, 1),  # short and wrong: what an additive reward pays for
        ("It is so. " * 30 + "\nAnswer: yes", 0, 1),
        ("It is so.", 0, 1),
    ],
)
def test_rewards_of_a_right_a_wrong_a_long_and_no_answer(text: str, product: float, additive: float) -> None:
    aim, reward = Aim(20, "Yes"), Reward(TOKENIZER, {}, ("yes", "no"))
    assert reward(ids(text), aim) == product
    assert replace(reward, additive=True)(ids(text), aim) == additive


def test_advantages_and_losses_are_what_the_formulas_say() -> None:
    rewards = [[1.0, 0.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]]
    found = advantages(torch.tensor(rewards))
    for got, row in zip(found.tolist(), rewards, strict=True):
        spread = stdev(row) + 1e-4
        assert got == pytest.approx([(r - mean(row)) / spread for r in row], abs=1e-4)
    own, before, weight = [-0.5, -2.0, -1.0], [-0.7, -1.0, -1.0], [0.8, -0.3, 0.0]
    leaf = torch.tensor(own, requires_grad=True)
    losses = grpo_losses(leaf, torch.tensor(before), torch.tensor(weight), 0.1)
    losses.sum().backward()
    assert leaf.grad is not None
    for i, (a, b, w) in enumerate(zip(own, before, weight, strict=True)):
        assert float(losses[i].detach()) == pytest.approx(-w + 0.1 * (math.exp(b - a) - (b - a) - 1), abs=1e-5)
        step = 1e-4  # the ratio's denominator is the model of the drawing, which does not move
        sides = [-w * math.exp(s * step) + 0.1 * (math.exp(b - a - s * step) - (b - a - s * step) - 1) for s in (1, -1)]
        assert float(leaf.grad[i]) == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-3)


def test_questions_name_every_budget_and_know_their_aim() -> None:
    examples, aims = questions(TOKENIZER, POOL, BUDGETS, 30, seed=0)
    assert len(examples) == 30
    assert len(aims) == len(POOL) * len(BUDGETS)
    texts = [str(TOKENIZER.decode(row.ids)) for row in examples]
    for row, text in zip(examples, texts, strict=True):
        aim = aims[key_of(row.ids, row.segments)]
        assert aim.budget in BUDGETS
        [sample] = [s for s in POOL if asked(s.prompt, aim.budget or 0) in text]
        assert aim.answer == sample.answer
    assert questions(TOKENIZER, [], BUDGETS, 0, seed=0) == ([], {})
    assert questions(TOKENIZER, POOL, BUDGETS, 3, seed=1)[0][0].ids.tolist() != examples[0].ids.tolist()


class Even(Grpo):
    """Pays for tokens with even ids, of which a random model finds half."""

    def rewards(self, batch: Any, said: Any) -> torch.Tensor:
        return torch.tensor([float((row.ids[row.segments > 0] % 2 == 0).mean()) for row in said]).view(-1, self.group)


class EvenlyPaid(Reward):
    """Pays for tokens with even ids, and twice where a budget is named."""

    def __call__(self, said: np.ndarray, aim: Aim) -> float:
        return float((said % 2 == 0).mean()) * (2 if aim.budget else 1)


def test_a_model_is_worth_the_reward_of_its_greedy_answers(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "qwen2", tok=TOKENIZER)
    examples, aims = questions(TOKENIZER, POOL, BUDGETS, 5, seed=0)
    grpo = replace(losses_on(tmp_path, aims, 0.0), reward=EvenlyPaid(TOKENIZER, aims, ("yes", "no")))
    model: Any = grpo.before
    each = []
    for row in examples:
        prompt = torch.tensor(row.ids[row.segments == PROMPT][None].astype(np.int64))
        said = model.generate(prompt, do_sample=False, max_new_tokens=6)[0, prompt.shape[1] :].numpy()
        each.append(grpo.reward(said[said != TOKENIZER.eos_token_id], aims[key_of(row.ids, row.segments)]))
    assert grpo.worth(model, examples).tolist() == pytest.approx(each)


@pytest.mark.parametrize("best", ["before", "half", "after"])
def test_the_reinforcement_is_kept_as_far_as_it_did_good(
    best: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {name: tmp_path / name for name in ("before", "after")}
    tiny.checkpoint(places["before"], "qwen2", tok=TOKENIZER)
    model = load_model(str(places["before"]))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_model(model, TOKENIZER, places["after"], None)
    old = dict(load_model(str(places["before"])).named_parameters())
    new = dict(load_model(str(places["after"])).named_parameters())
    grpo = losses_on(places["before"], {}, 0.0)
    wanted: dict[str, Any] = {"before": old, "after": new, "half": {name: (old[name] + new[name]) / 2 for name in old}}
    assert not any(torch.equal(old[name], new[name]) for name in old)

    def worth(self: Grpo, model: Any, examples: Any) -> np.ndarray:
        """1 for the weights that are to be the best."""
        return np.full(4, float(all(torch.allclose(p, wanted[best][name]) for name, p in model.named_parameters())))

    monkeypatch.setattr(Grpo, "worth", worth)
    found = tutoring.best_of(grpo, [], places["after"], "cpu")
    assert found == {"reward": {name: float(name == best) for name in ("before", "half", "after")}, "kept": best}
    for name, parameter in load_model(str(places["after"])).named_parameters():
        assert torch.allclose(parameter, wanted[best][name])


@pytest.mark.parametrize(
    ("gains", "kept"),
    [
        ([0.0] * 100, "before"),
        ([1.0] * 4 + [-1.0] * 3 + [0.0] * 93, "before"),  # 0.01 with a standard error of 0.026
        ([1.0] * 8 + [-1.0] * 3 + [0.0] * 89, "after"),  # 0.05 with one of 0.033
        ([-1.0] * 8 + [0.0] * 92, "before"),
    ],
)
def test_a_gain_within_its_error_is_none(
    gains: list[float], kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.checkpoint(tmp_path / "before", "qwen2", tok=TOKENIZER)
    tiny.checkpoint(tmp_path / "after", "qwen2", tok=TOKENIZER)
    grpo = losses_on(tmp_path / "before", {}, 0.0)
    said = iter([np.array(gains), np.full(len(gains), -1.0), np.zeros(len(gains))])  # after, half, before
    monkeypatch.setattr(Grpo, "worth", lambda self, model, examples: next(said))
    found = tutoring.best_of(grpo, [], tmp_path / "after", "cpu")
    assert found["kept"] == kept
    assert found["reward"]["after"] == pytest.approx(sum(gains) / 100)


def losses_on(folder: Path, aims: dict[bytes, Aim], kl: float, group: int = 8) -> Grpo:
    rollouts = Rollouts.of(TOKENIZER, 6, 16, "fp32", 0)
    reward = Reward(TOKENIZER, aims, ("yes", "no"))
    return Grpo(rollouts, reward, load_model(str(folder)).eval(), group, kl)


def test_the_loss_of_a_batch_is_the_slow_one(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "qwen2", tok=TOKENIZER)
    examples, aims = questions(TOKENIZER, POOL, BUDGETS, 3, seed=0)
    grpo, model, batch = losses_on(tmp_path, aims, 0.3, group=4), load_model(str(tmp_path)), collate(examples, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    score = {tuple(row.ids.tolist()): len(row) % 3 / 2 for row in grpo.rollouts(model, batch, 0.5, 4)}
    said, wanted = grpo.rollouts(model, batch, 0.5, 4), []

    class Scored(Grpo):
        def rewards(self, batch: Any, said: Any) -> torch.Tensor:
            return torch.tensor([score[tuple(row.ids.tolist())] for row in said]).view(-1, 4)

    rewards = [score[tuple(row.ids.tolist())] for row in said]
    assert len(set(rewards)) > 1
    for i, row in enumerate(said):
        group = rewards[i // 4 * 4 : i // 4 * 4 + 4]
        if len(set(group)) == 1:  # tells nothing
            continue
        weight = (rewards[i] - mean(group)) / (stdev(group) + 1e-4)
        with torch.no_grad():
            now, then = (
                m(input_ids=torch.tensor([row.ids.tolist()])).logits[0].log_softmax(-1) for m in (model, grpo.before)
            )
        for t in range(len(row)):
            if row.segments[t]:
                d = float(then[t - 1, row.ids[t]] - now[t - 1, row.ids[t]])
                wanted.append(-weight + 0.3 * (math.exp(d) - d - 1))
    scored = Scored(*vars(grpo).values())
    found, segments = scored(model, batch, 0.5)
    assert 0 < len(wanted) < sum(int((row.segments > 0).sum()) for row in said), "groups of both kinds"
    assert found.tolist() == pytest.approx(wanted, abs=1e-3)
    assert set(segments.tolist()) == {RATIONALE}


def test_answers_are_drawn_for_a_whole_step_and_one_is_kept_where_none_is_better(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "qwen2", tok=TOKENIZER)
    examples, aims = questions(TOKENIZER, POOL, BUDGETS, 5, seed=0)
    grpo, model = Even(*vars(losses_on(tmp_path, aims, 0.3, group=4)).values()), load_model(str(tmp_path))
    grpo = replace(grpo, rollouts=replace(grpo.rollouts, rows=8))  # two questions at once
    batches = [collate(examples[:2], 0), collate(examples[2:], 0)]
    calls: list[int] = []

    def run(work: Any, parts: Any) -> Any:
        calls.extend(len(part) for part in parts)
        return map(work, parts)

    grpo.ahead(model, batches, 0.5, run)
    assert calls == [2, 2, 1]
    assert set(grpo.drawn) == {key_of(row.ids, row.segments) for row in examples}
    drawn = dict(grpo.drawn)
    assert len(grpo(model, batches[0], 0.5)[0]) == sum(
        int((answer.segments > 0).sum())
        for row in examples[:2] if (group := drawn[key_of(row.ids, row.segments)]).tells for answer in group.said
    )  # fmt: skip
    even = [replace(group, rewards=torch.ones(4)) for group in drawn.values()]
    grpo.drawn.update(zip(drawn, even, strict=True))
    losses, _ = grpo(model, batches[0], 0.5)
    first = even[list(drawn).index(key_of(examples[0].ids, examples[0].segments))].said[0]
    assert len(losses) == int((first.segments > 0).sum())
    assert losses.tolist() == pytest.approx([0.0] * len(losses), abs=1e-6), "no advantage, and no way gone yet"
    grpo.ahead(model, batches[1:], 0.6, run)
    assert len(grpo.drawn) == 3, "those of the step before are gone"


def test_a_student_learns_what_is_rewarded_and_stays_nearer_with_a_weight_on_it(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "qwen2", tok=TOKENIZER)
    examples, aims = questions(TOKENIZER, POOL, BUDGETS, 24, seed=0)
    plan = Plan(3e-3, 1, 128, 128, "adamw", precision="fp32", weights=((RATIONALE, 1.0),))

    def reached(kl: float, epochs: float) -> tuple[float, float]:
        """The mean reward after these epochs, and the divergence of what is then said from the model before."""
        grpo, model = Even(*vars(losses_on(tmp_path, aims, kl, group=4)).values()), load_model(str(tmp_path))
        if epochs:
            train(model, examples, replace(plan, epochs=epochs, losses=grpo), 0, lambda step, note: None)
        batch = collate(examples, 0)
        said = grpo.rollouts(model, batch, 1.0, 4)
        drawn = collate(said, 0)
        with torch.no_grad():
            gap = chosen(supervised_states(model, drawn)) - chosen(supervised_states(grpo.before, drawn))
        return float(grpo.rewards(batch, said).mean()), float(gap.mean())

    before, free, held = reached(0.0, 0), reached(0.0, 2), reached(30.0, 2)
    assert before[1] == 0
    assert free[0] > before[0] + 0.1
    assert held[1] < free[1] / 2


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what was reinforced, though two dev items of a random student tell no gain."""
    monkeypatch.setattr(tutoring, "surpasses", lambda new, old: True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for stage in ("apprentice", "align"):
        tiny.checkpoint(folder / stage, "qwen2", tok=TOKENIZER)
    budgeted = [replace(s, prompt=asked(s.prompt, 8)) for s in POOL]
    files = {
        "data/dev": POOL[:2],
        "data/pool": POOL,
        "teach/taught": [],
        "annotate/annotations": POOL,
        "shorten/budgeted": budgeted,
    }
    for name, samples in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_jsonl(path, samples)
    return folder


@pytest.mark.usefixtures("kept")
def test_what_was_tutored_is_reinforced_and_stays_as_it_is(place: Path, tmp_path: Path) -> None:
    """The stage `sft` is the tutoring of a run without reinforcement."""
    recipe = load_recipe([*RL])
    tutored = tutoring.tutor(Context(load_recipe([*WORDS]), place), folder(place / "plain"))
    again = tutoring.tutor(Context(unreinforced(recipe), place), folder(place / tutoring.SFT))
    assert again["curve"] == tutored["curve"]
    before = (place / tutoring.SFT / "model.safetensors").read_bytes()
    assert before == (place / "plain" / "model.safetensors").read_bytes()
    found = [tutoring.tutor(Context(recipe, place), folder(tmp_path / name)) for name in ("one", "two")]
    assert budgets_of(Card.load(tmp_path / "one")) == (8,)  # of 16 the student has seen no example
    assert found[0]["examples"] == 6
    assert set(found[0]["reward"]) == {"before", "half", "after"}
    assert found[0]["kept"] == "after"
    assert json.dumps(found[0]["curve"]) == json.dumps(found[1]["curve"])
    assert (place / tutoring.SFT / "model.safetensors").read_bytes() == before
    gap = distance(tmp_path / "one", place / tutoring.SFT)
    assert 0 < gap < distance(tmp_path / "one", place / "align")
    assert distance(tmp_path / "one", tmp_path / "two") == 0


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def distance(one: Path, two: Path) -> float:
    """How far two checkpoints' weights lie apart."""
    pairs = zip(*(load_model(str(path)).parameters() for path in (one, two)), strict=True)
    return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))


def test_without_the_tutoring_all_budgets_are_reinforced(place: Path, tmp_path: Path) -> None:
    tutoring.tutor(Context(load_recipe([*RL, "reasoning.grpo.sft=false"]), place), tmp_path)
    assert budgets_of(Card.load(tmp_path)) == BUDGETS


@pytest.mark.usefixtures("kept")
def test_without_budgets_right_answers_are_reinforced(place: Path, tmp_path: Path) -> None:
    words = (*(w for w in RL if "budgets" not in w), "reasoning.budgets=[]")
    recipe = load_recipe(words)
    assert not any(stage.name == "shorten" for stage in needed_for(None, recipe))
    sft = folder(tmp_path / tutoring.SFT)
    tutoring.tutor(Context(unreinforced(recipe), place), sft)
    ctx = Context(recipe, place, places={tutoring.SFT: str(sft)})
    found = tutoring.tutor(ctx, folder(tmp_path / "tutor"))
    assert found["examples"] == 6
    assert budgets_of(Card.load(tmp_path / "tutor")) == ()
    assert distance(tmp_path / "tutor", sft) > 0
    examples, aims = questions(TOKENIZER, POOL, (None,), 4, seed=0)
    assert all(aim.budget is None for aim in aims.values())
    assert any(str(TOKENIZER.decode(examples[0].ids)).count(s.prompt) for s in POOL)
    reward = Reward(TOKENIZER, {}, ("yes", "no"))
    assert [reward(ids("It is so. " * n + "\nAnswer: yes"), Aim(None, "yes")) for n in (1, 40)] == [1, 1]


def test_a_labelled_pool_is_what_answers_are_held_against(place: Path) -> None:
    shown = POOL[:2]
    assert tutoring.graded(Context(load_recipe([*RL]), place), shown) == POOL
    assert (
        tutoring.graded(Context(load_recipe([*RL, "data.labels=none", "select.difficulty=entropy"]), place), shown)
        == shown
    )


def test_a_student_that_does_not_reason_is_not_reinforced() -> None:
    with pytest.raises(UserError, match=r"reasoning\.rl needs tutor\.format"):
        load_recipe([*LEGAL, "reasoning.rl=true", "tutor.format=multitask"])


@pytest.mark.usefixtures("kept")
def test_the_learning_rate_is_a_share_of_the_tutorings(place: Path, tmp_path: Path) -> None:
    for name, words in (("share", ()), ("same", ("reasoning.grpo.lr=2.5e-3",)), ("other", ("reasoning.grpo.lr=1e-3",))):
        tutoring.tutor(Context(load_recipe([*RL, *words]), place), folder(tmp_path / name))
    assert distance(tmp_path / "share", tmp_path / "same") == 0
    assert distance(tmp_path / "share", tmp_path / "other") > 0


def test_the_recipes_bounds_of_a_budget_reach_the_reward(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Reward] = []

    def heard(*args: Any, **kwargs: Any) -> Reward:
        made.append(Reward(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(tutoring, "Reward", heard)
    for k, words in enumerate(((), ("reasoning.grpo.tolerance=0.1", "reasoning.grpo.least=0.4"))):
        tutoring.tutor(Context(load_recipe([*RL, *words]), place), folder(tmp_path / str(k)))
    assert [(reward.tolerance, reward.least) for reward in made] == [(0.25, 0.0), (0.1, 0.4)]


def test_only_the_student_and_its_test_hang_on_the_reinforcement() -> None:
    outputs = {stage.name: stage.name for stage in STAGES}

    def keys(*words: str) -> dict[str, str]:
        recipe = load_recipe([*WORDS, *words])
        return {stage.name: stage_key(stage, recipe, outputs) for stage in needed_for(None, recipe)}

    plain, rl = keys(), keys("reasoning.rl=true")
    assert {name for name in plain if plain[name] != rl[name]} == {"tutor", "evaluate"}
    assert keys("reasoning.grpo.kl=0.5") == plain
    assert keys("reasoning.rl=true", "reasoning.grpo.kl=0.5")["tutor"] != rl["tutor"]
    assert keys("reasoning.rl=true", "reasoning.grpo.tolerance=0.25") == rl
    assert keys("reasoning.rl=true", "reasoning.grpo.tolerance=0")["tutor"] != rl["tutor"]
    assert keys("reasoning.rl=true", "reasoning.grpo.least=0") == rl
    assert keys("reasoning.rl=true", "reasoning.grpo.least=0.5")["tutor"] != rl["tutor"]


def test_without_tolerance_a_right_answer_a_little_too_long_is_worth_nothing() -> None:
    said = ids("It is so. It is so.\nAnswer: yes")
    tokens, _ = thought(lambda some: str(TOKENIZER.decode(list(some))), said.tolist())
    near = Reward(TOKENIZER, {}, ("yes", "no"), tolerance=1.0)
    none = replace(near, tolerance=0.0)
    assert 0 < near(said, Aim(tokens - 1, "yes")) < 1
    assert none(said, Aim(tokens - 1, "yes")) == 0
    assert none(said, Aim(tokens, "yes")) == 1


def test_an_answer_below_the_least_share_of_its_budget_is_worth_less() -> None:
    assert [fidelity(n, 40, least=0.5) for n in (0, 5, 10, 20, 30, 40)] == [0.0, 0.25, 0.5, 1.0, 1.0, 1.0]
    assert fidelity(45, 40, least=0.5) == fidelity(45, 40) == 0.5
    assert [fidelity(n, 40) for n in (0, 5)] == [1.0, 1.0]
    assert fidelity(0, None, least=0.5) == 1.0
    said = ids("It is so.\nAnswer: yes")
    tokens, _ = thought(lambda some: str(TOKENIZER.decode(list(some))), said.tolist())
    filled = Reward(TOKENIZER, {}, ("yes", "no"), least=0.5)
    assert filled(said, Aim(4 * tokens, "yes")) == pytest.approx(0.5)
    assert filled(said, Aim(4 * tokens, "no")) == 0
