"""Recipes: what is shipped parses, what is wrong is named, and what is printed loads back as the same recipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bridge_edge.errors import UserError
from bridge_edge.recipe_io import Loader, dump, load_recipe, parse_overrides, recipe_names, scale_names

OWN = """
task: {prompt: "Is {text} a fruit?", answers: [Yes, No]}
data: {path: fruit.jsonl, test_path: sub/test.tsv}
teacher: {kind: replay, path: ../answers.jsonl}
"""


PRICED = ("teacher.price.prompt=2.5", "teacher.price.completion=10")


def own(folder: Path, text: str = OWN, name: str = "fruit.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(text: str) -> object:
    return yaml.load(text, Loader)


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("scale", scale_names())
@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses_at_every_scale_and_loads_back(name: str, scale: str, tmp_path: Path) -> None:
    recipe = load_recipe([f"recipe={name}", f"scale={scale}"])
    assert (recipe.name, recipe.scale) == (name, scale)
    assert recipe.task.module == name
    again = load_recipe([f"recipe={own(tmp_path, dump(recipe), 'shown.yaml')}"])
    assert again == recipe


def test_three_domains_and_three_scales_are_shipped() -> None:
    assert {"legal", "medical", "finance"} <= set(recipe_names())
    assert set(scale_names()) == {"embedded", "edge", "server"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("2.5", 2.5),
        ("17", 17),
        ("0", 0),
        ("No", "No"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("", None),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("007", "007"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_words_and_numbers_are_read_as_people_mean_them(text: str, value: object) -> None:
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def test_words_that_look_like_numbers_survive_being_written_and_read() -> None:
    answers = ["1e-4", "12:30", "No", "0.5", "007", "2024-01-31", "null", "true", "a: b", "#1"]
    recipe = load_recipe(["recipe=legal"])
    recipe = recipe.model_copy(update={"task": recipe.task.model_copy(update={"answers": tuple(answers)})})
    assert yaml.load(dump(recipe), Loader)["task"]["answers"] == answers


def test_overrides_reach_their_place_with_their_type() -> None:
    recipe = load_recipe(
        ["recipe=legal", "student.lr=1e-4", "budget.queries=7", "task.answers=[No, Yes, 3]", "student.lora={r: 4}"]
    )
    assert recipe.student.lr == 1e-4
    assert recipe.budget.queries == 7
    assert recipe.task.answers == ("No", "Yes", "3")
    assert recipe.student.lora is not None
    assert recipe.student.lora.r == 4
    assert load_recipe(["recipe=legal", "scale=edge", "student.lora=null"]).student.lora is None


def test_later_wins_scale_then_file_then_override(tmp_path: Path) -> None:
    path = own(tmp_path, OWN + "student: {lr: 0.5}\nscale: edge\n")
    recipe = load_recipe([f"recipe={path}"])
    assert (recipe.scale, recipe.student.lr, recipe.student.lora is not None) == ("edge", 0.5, True)
    recipe = load_recipe([f"recipe={path}", "scale=embedded", "student.lr=0.25"])
    assert (recipe.scale, recipe.student.lr, recipe.student.model) == ("embedded", 0.25, "embedded:student")


def test_all_errors_come_at_once_with_guesses() -> None:
    text = refused("recipe=legal", "student.learning_rat=1", "budget.querys=3", "select.strategy=brigde", "ta.epochs=0")
    assert "unknown key 'budget.querys', did you mean 'budget.queries'?" in text
    assert "student.learning_rat" in text
    assert "brigde" in text
    assert "'bridge'" in text
    assert "ta.epochs=0" in text


def test_an_unknown_key_without_a_near_one_lists_the_choices() -> None:
    text = refused("recipe=legal", "budget.zzzzzzzzzzzz=1")
    assert "budget.fraction" in text
    assert "budget.usd" in text


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("budget.queries=0", "buys nothing"),
        ("budget.usd=-1", "buys nothing"),
        ("budget.fraction=1.5", "above the pool"),
        ("budget.fraction=.nan", "finite"),
        ("student.lr=.inf", "finite"),
        ("budget.queries=5001", "above the pool of 5000"),
        ("task.prompt=no column", "names no column"),
        ("task.prompt='{text'", "task.prompt"),
        ("task.prompt='{text.upper}'", "no plain column"),
        ("task.prompt='{0}'", "no plain column"),
        ("student=5", "student"),
        ("teacher=replay", "teacher.path"),
        ("teacher=reply", "did you mean 'replay'"),
        ("scale=egde", "did you mean 'edge'"),
        ("scale=nowhere.yaml", "no file"),
        ("data.labels=none", "select.difficulty=entropy"),
        ("select.difficulty=hard", "'pass-rate'"),
        ("select.samples=1", "select.samples"),
        ("budget", "key=value"),
        ("=5", "key=value"),
        ("task.answers=[Yes", "task.answers"),
    ],
)
def test_bad_values_are_named(word: str, says: str) -> None:
    assert says in refused("recipe=legal", word)


def test_difficulties_that_need_labels_are_refused_without() -> None:
    for measure, others in (("loss", "disagreement"), ("pass-rate", "margin")):
        assert others in refused("recipe=legal", "data.labels=none", f"select.difficulty={measure}")
    for measure in ("entropy", "token-entropy", "margin", "disagreement"):
        assert load_recipe(["recipe=legal", "data.labels=none", f"select.difficulty={measure}"])


def test_a_recipe_must_be_named_and_known(tmp_path: Path) -> None:
    assert "legal" in refused("budget.queries=3")
    assert "did you mean 'legal'" in refused("recipe=leagl")
    assert "no file" in refused(f"recipe={tmp_path}/none.yaml")
    assert "line 2" in refused(f"recipe={own(tmp_path, 'a: 1' + chr(10) + 'b: [', 'bad.yaml')}")
    assert "no mapping" in refused(f"recipe={own(tmp_path, '- a', 'list.yaml')}")
    assert "task.module" in refused(f"recipe={own(tmp_path, 'task: {}', 'empty.yaml')}")


def test_the_expert_is_refused_for_own_data(tmp_path: Path) -> None:
    path = own(tmp_path, OWN.replace("{kind: replay, path: ../answers.jsonl}", "{kind: expert}"))
    assert "teacher=openai" in refused(f"recipe={path}")


def test_relative_paths_belong_to_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(["recipe=a/b/fruit.yaml"])
    assert recipe.name == "fruit"
    assert recipe.data.path == str(path.parent / "fruit.jsonl")
    assert recipe.data.test_path == str(path.parent / "sub" / "test.tsv")
    assert recipe.teacher.path == str(tmp_path / "a" / "answers.jsonl")


def test_relative_paths_of_a_teacher_file_and_of_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path / "a")
    own(tmp_path / "t", "kind: replay\npath: recorded.jsonl\n", "teacher.yaml")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(["recipe=a/fruit.yaml", "teacher=t/teacher.yaml", "data.path=here.jsonl"])
    assert recipe.teacher.path == str(tmp_path / "t" / "recorded.jsonl")
    assert recipe.data.path == str(tmp_path / "here.jsonl")


def test_models_are_paths_only_where_they_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own(tmp_path / "a", OWN + "ta: {model: ./base}\nstudent: {model: owner/name}\n")
    recipe = load_recipe([f"recipe={path}"])
    assert recipe.ta.model == str(tmp_path / "a" / "base")
    assert recipe.student.model == "owner/name"
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe(["recipe=legal", "ta.model=mine"]).ta.model == str(tmp_path / "mine")


def test_a_recipe_may_set_values_for_one_scale(tmp_path: Path) -> None:
    path = own(tmp_path, OWN + "student: {lr: 0.5}\nscales: {edge: {student: {lr: 0.125}, seed: 7}}\n")
    found = [load_recipe([f"recipe={path}", *more]) for more in ([], ["scale=edge"], ["scale=edge", "seed=8"])]
    assert [(r.student.lr, r.seed) for r in found] == [(0.5, 0), (0.125, 7), (0.125, 8)]


@pytest.mark.parametrize(
    ("text", "said"), [("scales: {egde: {seed: 1}}", "did you mean 'edge'"), ("scales: [1]", "map")]
)
def test_values_for_an_unknown_scale_are_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe([f"recipe={own(tmp_path, OWN + text)}"])


def test_a_scale_of_ones_own_loads_back(tmp_path: Path) -> None:
    scale = own(tmp_path, "ta: {model: owner/ta}\nstudent: {model: owner/student}\n", "mine.yaml")
    recipe = load_recipe(["recipe=legal", f"scale={scale}"])
    assert (recipe.ta.model, recipe.scale) == ("owner/ta", str(scale))
    assert load_recipe([f"recipe={own(tmp_path, dump(recipe), 'shown.yaml')}"]) == recipe


def test_dollar_signs_are_text_and_the_environment_stays_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_MINE", "hidden")
    path = own(tmp_path, OWN.replace("Is {text} a fruit?", "Is ${text} a lot?"))
    recipe = load_recipe([f"recipe={path}", "description='${oc.env:TOKEN_OF_MINE}'"])
    assert recipe.task.prompt == "Is ${text} a lot?"
    assert "hidden" not in dump(recipe)


def test_selectors_are_told_from_values() -> None:
    selectors, values = parse_overrides(["recipe=legal", "teacher=openai", "teacher.base_url=http://x/v1?a=b"])
    assert selectors == {"recipe": "legal", "teacher": "openai"}
    assert values == [("teacher.base_url", "http://x/v1?a=b")]
    recipe = load_recipe(["recipe=legal", "teacher=openai", "teacher.model=m", *PRICED])
    assert (recipe.teacher.kind, recipe.teacher.model) == ("openai", "m")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["teacher.prompt=Solve it"], "lacks {question}"),
        (['teacher.prompt="{question} {gold}"'], "{gold} is unknown here"),
        (['teacher.system="{question}"'], "{question} is unknown here"),
        (['teacher.prompt="{question"'], "no template"),
        (["teacher=local"], "teacher=local needs teacher.model"),
        (["teacher.model=gpt"], "teacher.model is given, but teacher.kind is 'expert', which needs none"),
        (["teacher.base_url=http://x/v1"], "to ask that teacher add teacher=openai"),
        (["teacher.path=said.jsonl"], "to ask that teacher add teacher=replay"),
        (["teacher=local", "teacher.model=x.gguf", "teacher.samples=3"], "greedily"),
        (["teacher=openai", *PRICED], "teacher=openai needs teacher.model"),
        (
            ["teacher=openai", "teacher.model=m"],
            "teacher=openai needs teacher.price.prompt and teacher.price.completion",
        ),
        (["teacher=openai-batch", "teacher.model=m", "teacher.price.prompt=1"], "no cap in dollars holds"),
        (["teacher.batch_discount=1.5"], "batch_discount"),
        (["teacher=openai-batches"], "openai-batch"),
    ],
)
def test_bad_teachers_are_refused(words: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(problem)):
        load_recipe(["recipe=legal", *words])


def test_a_local_teacher_is_a_whole_path_and_the_name_of_a_model_at_an_api_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big").mkdir()
    local = load_recipe(["recipe=legal", "teacher=local", "teacher.model=big"])
    assert local.teacher.model == str(tmp_path / "big")
    assert load_recipe(["recipe=legal", "teacher=openai", "teacher.model=big", *PRICED]).teacher.model == "big"
    own = "kind: local\nmodel: ./big\n"
    (tmp_path / "t.yaml").write_text(own)
    monkeypatch.chdir("/")
    found = load_recipe(["recipe=legal", f"teacher={tmp_path / 't.yaml'}"])
    assert found.teacher.model == str(tmp_path / "big")
