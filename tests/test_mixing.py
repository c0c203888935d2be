"""The TA's distribution in the student's tutoring: what is refused, what a key sees, and a run through the stage."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from bridge_edge import mixing, phases
from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.distill import distill
from bridge_edge.errors import UserError
from bridge_edge.mixing import PROBE, Mix, answers, mix_of, readings, teaching
from bridge_edge.phases import Context
from bridge_edge.plan import plan
from bridge_edge.plan_report import plan_text
from bridge_edge.recipe import settings
from bridge_edge.recipe_io import load_recipe
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import STAGES, needed_for
from bridge_edge.train.models import load_model, load_tokenizer
from bridge_edge.tutoring import tutor
from tests import tiny
from tests.legal import LEGAL

SMALL = (
    *(*LEGAL, "task.max_new_tokens=8", "task.answers=['yes', 'no']", "student.epochs=2", "student.lr=1e-2"),
    "swap.enabled=false",
)
OUTPUTS = {stage.name: stage.name for stage in STAGES}
POOL = [Sample(f"Is {i} more than {i % 7}?", "yes" if i % 2 else "no", f"{i} and {i % 7}.") for i in range(12)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished stages before `tutor`: the TA's vocabulary is padded, as those of large models are."""
    folder = tmp_path_factory.mktemp("run")
    shared = tiny.tokenizer()
    tiny.checkpoint(folder / "apprentice", "qwen2", tok=shared, vocab_size=tiny.VOCAB + 16)
    tiny.checkpoint(folder / "align", "llama", hidden=32, tok=shared)
    for stage, name, samples in (("data", "dev", POOL[:3]), ("teach", "taught", POOL[3:5])):
        (folder / stage).mkdir()
        write_jsonl(folder / stage / f"{name}.jsonl", samples)
    (folder / "annotate").mkdir()
    write_jsonl(folder / "annotate" / "annotations.jsonl", POOL[5:])
    return folder


def tutored(place: Path, out: Path, *words: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and metrics of a student tutored as the words say."""
    out.mkdir()
    recipe = load_recipe([*SMALL, *words])
    metrics = tutor(Context(recipe, place), out)
    return {name: p.detach() for name, p in load_model(str(out)).named_parameters()}, metrics


def test_hard_labels_give_the_student_that_no_mixture_gives_and_the_others_another(place: Path, tmp_path: Path) -> None:
    plain, metrics = tutored(place, tmp_path / "none")
    hard, with_figures = tutored(place, tmp_path / "hard", "kd.mix=hard")
    assert "kd" not in metrics
    assert with_figures["kd"]["lambda_mean"] == 0
    assert all(torch.equal(plain[name], hard[name]) for name in plain)
    for mix in ("soft", "entropy", "curriculum", "risk"):
        other, found = tutored(place, tmp_path / mix, f"kd.mix={mix}")
        assert not all(torch.equal(plain[name], other[name]) for name in plain), mix
        assert found["kd"]["mix"] == mix
        assert found["tokens"] == metrics["tokens"]


def test_soft_labels_bring_the_student_nearer_to_the_assistant(place: Path, tmp_path: Path) -> None:
    words = ("student.epochs=12", "kd.divergence=forward")
    kl = {mix: tutored(place, tmp_path / mix, f"kd.mix={mix}", *words)[1]["kd"] for mix in ("hard", "soft")}
    assert kl["soft"]["teacher_forced_kl"] < kl["hard"]["teacher_forced_kl"]


def test_a_student_that_is_taught_on_its_own_texts_is_nearer_to_the_assistant_there(
    place: Path, tmp_path: Path
) -> None:
    words = ("student.epochs=5", "kd.divergence=reverse")
    others = tutored(place, tmp_path / "hard", "kd.mix=hard", "student.epochs=5")[1]["kd"]
    own = tutored(place, tmp_path / "own", "kd.mix=soft", "kd.on_policy=1", "kd.on_policy_from=0", *words)[1]["kd"]
    assert own["rollout_kl"] < others["rollout_kl"]
    assert own["on_policy"] == 1


def test_figures_are_those_of_the_obvious_way(place: Path, tmp_path: Path) -> None:
    _, metrics = tutored(place, tmp_path / "out", "kd.mix=entropy")
    found, recipe = metrics["kd"], load_recipe([*SMALL, "kd.mix=entropy"])
    taught = teaching(recipe, str(place / "apprentice"), "cpu")
    model, tokenizer = load_model(str(tmp_path / "out")).eval(), load_tokenizer(str(tmp_path / "out"))
    prompts = [list(range(5, 9)), list(range(20, 23))]
    rows = answers(model, prompts, tokenizer, recipe)
    losses, _ = readings(taught, model, rows, Mix("soft"), recipe)
    wanted = []
    for row in rows:
        ids = torch.tensor([row.ids.tolist()])
        with torch.no_grad():
            p, q = (m(input_ids=ids).logits[0, :, : tiny.VOCAB].log_softmax(-1) for m in (taught.ta, model))
        kl = (p.exp() * (p - q)).sum(-1)
        wanted += [float(kl[t - 1]) for t in range(len(row)) if row.segments[t]]
    assert sorted(losses.tolist()) == pytest.approx(sorted(wanted), abs=1e-4)
    assert found["exposure_bias"] == pytest.approx(found["rollout_kl"] - found["teacher_forced_kl"], abs=2e-5)
    assert sum(found["lambda_histogram"]) > 0
    assert 0 < found["lambda_mean"] < 1
    assert (found["texts"], found["dev_items"]) == (len(POOL) - 3, 3)
    assert found["texts"] < PROBE


def test_kept_on_disk_the_assistant_teaches_the_same_and_is_gone_while_the_student_learns(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Any]] = []
    load, train = mixing.load_model, phases.train

    def loaded(*words: str) -> Any:
        model = load(*words)
        held.append(weakref.ref(model))
        return model

    def alone(*words: Any) -> Any:
        assert len(held) == 1
        assert held[0]() is None
        assert list((tmp_path / "kept" / mixing.KEPT).glob("*.safetensors"))
        return train(*words)

    _, metrics = tutored(place, tmp_path / "live", "kd.mix=confidence")
    monkeypatch.setattr(mixing, "load_model", loaded)
    monkeypatch.setattr(phases, "train", alone)
    _, found = tutored(place, tmp_path / "kept", "kd.mix=confidence", "kd.top_k=384")
    assert found["loss"] == pytest.approx(metrics["loss"], rel=0.01)
    assert found["kd"]["teacher_forced_kl"] == pytest.approx(metrics["kd"]["teacher_forced_kl"], rel=0.05)
    assert found["kd"]["top_k"] == 384
    assert not (tmp_path / "kept" / mixing.KEPT).exists()


def test_plan_says_what_the_kept_distributions_take(place: Path, tmp_path: Path) -> None:
    words = [*LEGAL, f"ta.model={place / 'apprentice'}", f"student.model={place / 'align'}", "data.pool=60"]
    words += ["kd.mix=static", "task.max_new_tokens=8", "student.epochs=4", "swap.enabled=false"]
    without = plan(words, tmp_path / "runs", 1)
    found = plan([*words, "kd.top_k=10"], tmp_path / "runs", 1)
    assert without["signals"] is None
    assert found["signals"] == 60 * 9 * (10 * 4 + 12)
    assert found["disk"]["needed"] - without["disk"]["needed"] == found["signals"]
    assert "Signals    28 kB at most" in plan_text(found)
    swapped = plan([*words, "kd.top_k=10", "swap.enabled=true"], tmp_path / "runs", 1)
    assert swapped["signals"] == 4 * found["signals"]  # no pass repeats a text


def test_a_key_sees_the_mixture_and_the_assistant_only_where_they_matter() -> None:
    def key(stage: str, *words: str, **outputs: str) -> str:
        recipe = load_recipe([*LEGAL, *words])
        chosen = next(s for s in needed_for(None, recipe) if s.name == stage)
        return stage_key(chosen, recipe, {**OUTPUTS, **outputs})

    assert key("tutor") == key("tutor", apprentice="other") == key("tutor", "kd.share=0.9", "kd.divergence=js")
    assert key("tutor", "kd.mix=static") != key("tutor")
    assert key("tutor", "kd.mix=static") != key("tutor", "kd.mix=static", apprentice="other")
    assert key("tutor", "kd.mix=static") != key("tutor", "kd.mix=static", "kd.share=0.9")
    assert key("tutor", "kd.mix=static") == key("tutor", "kd.mix=static", "kd.gamma=0.9", "kd.skew=0.5")
    assert key("tutor", "kd.mix=risk") == key("tutor", "kd.mix=risk", "kd.divergence=js", "kd.top_k=8")
    assert key("tutor", "kd.mix=static") != key("tutor", "kd.mix=static", "kd.top_k=8")
    assert key("tutor", "kd.mix=soft") != key("tutor", "kd.mix=soft", "kd.on_policy=0.5")
    others = [stage.name for stage in needed_for(None, load_recipe(LEGAL)) if stage.name != "tutor"]
    assert [key(name, "kd.mix=soft") for name in others] == [key(name) for name in others]
    assert "kd" not in settings(load_recipe(LEGAL))


def test_the_recipes_values_are_the_mixtures() -> None:
    mix = mix_of(load_recipe([*LEGAL, "kd.mix=power", "kd.gamma=0.5", "kd.ab=[0.5, 0.1]", "kd.label=argmax"]))
    assert mix == Mix("power", gamma=0.5, ab=(0.5, 0.1), label="argmax")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kd.mix=mixed",), r"kd\.mix"),
        (("kd.divergence=kl",), r"kd\.divergence"),
        (("kd.share=1.5",), r"kd\.share"),
        (("kd.ab=[0.5, -0.5]",), r"kd\.ab.*no divergence"),
        (("kd.mix=soft", "kd.divergence=alpha-beta", "kd.top_k=8"), "no bound on what top_k leaves out"),
        (("kd.mix=static", "kd.on_policy=1"), "on_policy=1 needs mix=soft and no top_k"),
        (("kd.mix=soft", "kd.on_policy=0.5", "kd.top_k=8"), "on_policy=0.5 needs mix=soft and no top_k"),
        (("kd.mix=risk", "kd.label=argmax"), "mix=risk knows no label=argmax"),
        (("kd.mix=soft", "tutor.format=multitask"), "needs tutor.format=rationale_answer"),
        (("kd.mix=soft", "shared_tokenizer=false"), "set shared_tokenizer=true"),
    ],
)
def test_values_that_mean_nothing_are_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe([*LEGAL, *words])


def other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text("Sir, " + path.read_text())


def few_rows(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(other_template, "chat templates frame a prompt differently"), (few_rows, "has 300 rows for 3")],
)
def test_models_that_do_not_share_their_tokens_are_refused_before_any_work(
    spoil: Any, said: str, place: Path, tmp_path: Path
) -> None:
    student = tiny.checkpoint(tmp_path / "student", "llama", hidden=32)
    spoil(student)
    words = [*LEGAL, f"ta.model={place / 'apprentice'}", f"student.model={student}", "kd.mix=static"]
    for verb in (lambda: plan(words, tmp_path / "runs", 1), lambda: distill(words, tmp_path / "runs")):
        with pytest.raises(UserError, match=said):
            verb()
    assert not (tmp_path / "runs").exists()
    assert plan([*words, "kd.mix=none"], tmp_path / "runs", 1)["calls"] > 0
