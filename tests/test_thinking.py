"""Reasoning of a set length: counting thought, cutting rationales, the stages, and the bound in every runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge_edge.annotation import annotate, shorten
from bridge_edge.benchmarks.thinking import sweep, table
from bridge_edge.cli import cli
from bridge_edge.data.card import ANSWER, Card
from bridge_edge.data.encode import encode_pairs
from bridge_edge.data.samples import Sample, read_jsonl, write_jsonl
from bridge_edge.data.thinking import SIGNAL, asked, budgets_of, closing, counter, fits, names, shorter, thought
from bridge_edge.distill import distill
from bridge_edge.errors import UserError
from bridge_edge.evaluate import spearman
from bridge_edge.generate.drafts import Draft
from bridge_edge.phases import Context
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.think import Thinking
from bridge_edge.thinking import FILE, budgeted, carried, figures, written
from bridge_edge.train.batches import ANSWER as ANSWERED
from bridge_edge.train.batches import RATIONALE, Encoded
from bridge_edge.train.loop import Plan, train
from bridge_edge.train.models import load_model, load_tokenizer
from bridge_edge.tutoring import tutor
from tests import tiny
from tests.legal import LEGAL

WORDS = (
    *LEGAL,
    "task.answers=['yes', 'no']",
    "task.max_new_tokens=12",
    "student.epochs=1",
    "annotate.surest=1",
)
OWN = ("data.path=none.jsonl", "teacher.kind=replay", "teacher.path=none.jsonl")  # so that no domain checks the steps


class Letters:
    """A runtime of one token a character that says a fixed text, and goes on with another behind the marker."""

    name, card, eos_ids, vocab_size, path = "letters", None, frozenset([0]), 1 << 17, Path("letters")

    def __init__(self, says: str, then: str = " yes") -> None:
        self.says, self.then = says, then

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    chat = encode

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        said = self.then if self.decode(ids).endswith(ANSWER) else self.says
        yield from self.encode(said)[:max_new_tokens]


@pytest.mark.parametrize(
    ("says", "budget", "tokens", "closed", "text"),
    [
        ("ab\nAnswer: no", 3, 3, False, "ab\nAnswer: no"),  # the line's end is a thought, as in training
        ("ab\nAnswer: no", 9, 3, False, "ab\nAnswer: no"),
        ("ab\nAnswer: no", 2, 2, True, "ab\nAnswer: yes"),
        ("abcdef", 4, 4, True, "abcd\nAnswer: yes"),
        ("abcdef", 6, 6, False, "abcdef"),  # it ended by itself, without an answer
        ("a\nAnswers vary, a lot", 4, 4, True, "a\nAn\nAnswer: yes"),  # what began like the marker was none
        ("Answer: no", 1, 0, False, "Answer: no"),
        ("a" * 500, 5, 5, True, "aaaaa\nAnswer: yes"),
    ],
)
def test_the_bound_holds_and_only_thought_counts(says: str, budget: int, tokens: int, closed: bool, text: str) -> None:
    runtime: Any = Letters(says)
    thinking = Thinking(runtime, budget)
    found = runtime.decode(list(thinking.stream(runtime.chat("q"))))
    assert (found, thinking.tokens, thinking.closed) == (text, tokens, closed)


def test_tokens_come_as_they_are_decided_and_not_all_at_the_end() -> None:
    runtime: Any = Letters("ab\nAnswer: no")
    heard: list[int] = []

    def stream(ids: Sequence[int], most: int) -> Iterator[int]:
        for token in Letters.stream(runtime, ids, most):
            heard.append(token)
            yield token

    runtime.stream = stream
    shown = [len(heard) for _ in Thinking(runtime, 8).stream([])]
    assert shown[:3] == [1, 2, 3]
    assert shown[3:10] == [10] * 7  # "Answer:" is held back until it is whole
    assert shown[10:] == [11, 12, 13]


def test_thought_is_what_stands_before_the_marker() -> None:
    def decode(ids: Sequence[int]) -> str:
        return "".join(["Be", "cause", "\n", "Ans", "wer:", " no"][i] for i in ids)

    assert thought(decode, []) == (0, False)
    assert thought(decode, [0, 1]) == (2, False)
    assert thought(decode, [0, 1, 2]) == (3, False)
    assert thought(decode, [0, 1, 2, 3]) == (3, False)
    assert thought(decode, [0, 1, 2, 3, 4]) == (3, True)
    assert thought(decode, [0, 1, 2, 3, 4, 5]) == (3, True)
    assert closing("so") == ("\n", ANSWER)
    assert closing("so\n") == closing("") == (ANSWER,)


def test_a_rationale_is_cut_to_whole_sentences() -> None:
    text = "A is 1.5 long. B is 2 long. 1.5 is less than 2. So A is shorter."

    def words(part: str) -> int:
        return len(part.split())

    assert list(shorter(text, 12, words)) == [
        "1.5 is less than 2. So A is shorter.",  # the last ones, with room for a word or two
        "A is 1.5 long. So A is shorter.",  # the first and the last
        "B is 2 long. 1.5 is less than 2.",
        "A is 1.5 long. B is 2 long.",
        "A is 1.5 long. B is 2 long. So A is shorter.",  # no room left
    ]
    assert list(shorter(text, 8, words))[:4] == [  # half of the budget at least
        "So A is shorter.",
        "A is 1.5 long.",
        "1.5 is less than 2.",
        "B is 2 long.",
    ]
    assert next(shorter("A is as long as B is, and more. So it is. Yes.", 5, words)) == "So it is. Yes."
    assert next(shorter("So. A is as long as B is, and more. So it is.", 5, words)) == "So. So it is.", "any between"
    assert list(shorter(text, 3, words)) == []
    assert list(shorter("", 8, words)) == []
    assert [fits(n, 8) for n in (3, 4, 8, 9)] == [False, True, True, False]


def test_rank_correlation_is_that_of_the_ranks() -> None:
    assert spearman([1, 2, 3], [10, 20, 90]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 3], [4, 4, 4, 9]) == pytest.approx(0.8165, abs=1e-4)
    assert spearman([1, 1], [1, 2]) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reasoning.budgets=[64,16]",), "no rising list"),
        (("reasoning.budgets=[1]",), "no rising list"),
        (("reasoning.budgets=[16]", "kd.mix=soft"), "needs kd.mix=none"),
        (("reasoning.budgets=[16]", "tutor.format=multitask"), "needs kd.mix=none and tutor.format"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe([*LEGAL, *words])


POOL = [Sample(f"Is {i} more than {i % 7}?", "yes" if i % 2 else "no") for i in range(8)]
LONG = "First this is said. Then that. Last comes this."
FIRST, THEN, LAST = "First this is said.", "Then that.", "Last comes this."
CUTS = (LONG, FIRST, THEN, LAST, f"{FIRST} {THEN}", f"{THEN} {LAST}", f"{FIRST} {LAST}")


def teach(folder: Path, triples: Sequence[tuple[str, str, str]], learn: int, epochs: int) -> None:
    """Teach a tiny model these completions by heart: only the answers, or rationales too."""
    tokenizer, model = load_tokenizer(str(folder)), load_model(str(folder))
    rows = [Encoded(r.ids, r.segments * (r.segments >= learn)) for r in encode_pairs(tokenizer, triples)]
    train(model, rows, Plan(5e-3, epochs, 2048, 2048, "adamw", precision="fp32"), 0, lambda step, note: None)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished stages around the annotation of a run; the assistant knows the answers."""
    folder = tmp_path_factory.mktemp("run")
    shared = tiny.tokenizer()
    for stage in ("apprentice", "align"):
        tiny.checkpoint(folder / stage, "qwen2", tok=shared)
    teach(folder / "apprentice", [(s.prompt, r, s.answer or "") for s in POOL for r in CUTS], ANSWERED, 40)
    for stage, name, samples in (("data", "dev", POOL[:3]), ("data", "test", POOL[:3]), ("teach", "taught", [])):
        (folder / stage).mkdir(exist_ok=True)
        write_jsonl(folder / stage / f"{name}.jsonl", samples)
    return folder


def test_the_assistant_judges_whether_an_answer_still_follows(place: Path) -> None:
    recipe, folder = load_recipe([*WORDS]), str(place / "apprentice")
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    right = [(s.prompt, LONG, s.answer or "") for s in POOL]
    wrong = [(s.prompt, LONG, "no" if s.answer == "yes" else "yes") for s in POOL]
    found = carried(model, tokenizer, [*right, *wrong], recipe)
    assert found == [True] * len(POOL) + [False] * len(POOL)
    assert carried(model, tokenizer, [], recipe) == []


def test_each_budget_has_rationales_that_keep_to_it_and_to_the_answer(place: Path) -> None:
    recipe, tokenizer = load_recipe([*WORDS, "reasoning.budgets=[8,32,128]"]), load_tokenizer(str(place / "apprentice"))

    def count(text: str) -> int:
        return len(tokenizer(f"{text}\n", add_special_tokens=False)["input_ids"])

    samples = [replace(s, rationale=LONG) for s in POOL]
    samples[0] = replace(samples[0], answer="yes")  # not what the assistant would say to a rationale that is cut
    short = Draft("A b c d.\nAnswer: no", 9, -0.1, True, 1)
    drafts = {samples[2].id: [short, replace(short, text="Wrong it is.\nAnswer: yes", sample=2)]}
    made, counts = budgeted(samples, drafts, recipe, str(place / "apprentice"), "cpu")
    assert count(LONG) in range(32, 65), "the whole rationale lies between two budgets"
    by_budget = {b: [s for s in made if s.prompt.endswith(SIGNAL.format(budget=b))] for b in (8, 32, 128)}
    for budget, some in by_budget.items():
        assert counts[str(budget)] == len(some)
        assert all(fits(count(s.rationale or ""), budget) for s in some)
    assert {s.prompt for s in by_budget[32]} == {asked(s.prompt, 32) for s in samples[1:]}
    assert all((s.rationale or "") in CUTS[1:] for s in by_budget[32])
    wanted = {asked(s.prompt, 8): "A b c d." if s is samples[2] else THEN for s in samples[1:]}
    assert {s.prompt: s.rationale for s in by_budget[8]} == wanted
    assert counts["cut"] == len(by_budget[32]) + len(by_budget[8]) - 1
    assert not by_budget[128]
    assert {s.answer for s in made} == {"yes", "no"}


def test_a_stage_of_its_own_makes_them_of_what_was_annotated(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(place / "data" / "pool.jsonl", POOL)
    drafts = [Draft(f"{LONG}\nAnswer: {s.answer}", 20, -0.1, True).record(s.id) for s in POOL]
    for folder in (drafted := place / "draft", annotated := place / "annotate"):
        folder.mkdir(exist_ok=True)
    (drafted / "raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in drafts))
    ctx = Context(load_recipe([*WORDS, "reasoning.budgets=[16,64]", *OWN]), place)
    assert annotate(ctx, annotated)["kept"] == len(POOL)
    assert not (annotated / FILE).exists()
    metrics = shorten(ctx, tmp_path)
    made = list(read_jsonl(tmp_path / FILE))
    assert len(made) == metrics["made"] == sum(metrics["budgets"].values()) > 0
    assert metrics["budgets"].keys() == {"16", "64"}
    assert {s.provenance for s in made} == {"ta"}
    counts = metrics["budgets"]
    said = f"at most 16 tokens: {counts['16']} of {len(POOL)}; at most 64 tokens: {counts['64']} of {len(POOL)}"
    assert said in capsys.readouterr().err
    beyond = Context(load_recipe([*WORDS, "reasoning.budgets=[400]", *OWN]), place)
    with pytest.raises(UserError, match=r"no rationale fits any of reasoning.budgets=\[400\].*longest draft has 20"):
        shorten(beyond, tmp_path)


def test_an_assistant_that_was_taught_to_write_short_does_so_at_each_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, said = tiny.tokenizer(), {8: THEN, 32: f"{FIRST} {THEN}"}
    for stage in ("draft", "annotate", "teach", "data", "shorten"):
        (tmp_path / stage).mkdir()
    tiny.checkpoint(tmp_path / "apprentice", "qwen2", tok=shared)
    triples = [(asked(s.prompt, b), text, s.answer or "") for s in POOL for b, text in said.items()]
    wrong = asked(POOL[3].prompt, 8)
    triples = [(p, r, "no" if p == wrong else a) for p, r, a in triples]
    teach(tmp_path / "apprentice", triples, RATIONALE, 80)
    within = ("task.max_new_tokens=60", "reasoning.budgets=[8,32,128]", "reasoning.compress=teacher")
    ctx = Context(load_recipe([*WORDS[:2], *within]), tmp_path)
    write_jsonl(tmp_path / "annotate" / "annotations.jsonl", [replace(s, rationale=LONG) for s in POOL])
    texts = {s.id: "None." for s in POOL} | {POOL[2].id: f"A b c d.\nAnswer: {POOL[2].answer}"}
    lines = (json.dumps(Draft(text, 9, -0.1, True).record(item)) + "\n" for item, text in texts.items())
    (tmp_path / "draft" / "raw.jsonl").write_text("".join(lines))
    told = replace(POOL[1], prompt=asked(POOL[1].prompt, 32), rationale="Told.", provenance="teacher")
    write_jsonl(tmp_path / "teach" / "briefs.jsonl", [told])
    metrics = shorten(ctx, tmp_path / "shorten")
    made = {s.prompt: s for s in read_jsonl(tmp_path / "shorten" / FILE)}
    wanted = {asked(s.prompt, b): text for s in POOL for b, text in said.items() if asked(s.prompt, b) != wrong}
    wanted |= {told.prompt: "Told.", asked(POOL[2].prompt, 8): "A b c d."}
    assert {prompt: s.rationale for prompt, s in made.items()} == wanted
    assert [made[p].provenance for p in (told.prompt, asked(POOL[4].prompt, 8))] == ["teacher", "ta"]
    assert metrics["budgets"] == {"8": 7, "32": 8, "128": 0}, "nothing is longer than what it is to shorten"
    assert (metrics["asked"], metrics["told"], metrics["cut"], metrics["made"]) == (14, 13, 0, 15)
    assert "at most 8 tokens: 7 of 8" in capsys.readouterr().err
    before = (tmp_path / "shorten" / "raw.jsonl").read_text()
    shorten(ctx, tmp_path / "shorten")
    assert (tmp_path / "shorten" / "raw.jsonl").read_text() == before, "what was written is not written again"
    beyond = replace(POOL[5], prompt=asked(POOL[5].prompt, 8))
    rows = [json.loads(line) for line in before.splitlines()]
    rows = [row | ({"text": f"{LONG}\nAnswer: {beyond.answer}"} if row["id"] == beyond.id else {}) for row in rows]
    (tmp_path / "shorten" / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = shorten(ctx, tmp_path / "shorten")
    again = {s.prompt: s.rationale for s in read_jsonl(tmp_path / "shorten" / FILE)}
    assert again == wanted | {beyond.prompt: again[beyond.prompt]}
    assert again[beyond.prompt] in (FIRST, THEN, LAST), "what was written is too long there, so its rationale is cut"
    assert (metrics["asked"], metrics["told"], metrics["cut"], metrics["made"]) == (14, 12, 1, 15)


def test_where_no_line_of_the_teacher_fits_what_was_paid_still_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*LEGAL, "data.pool=40", "data.dev=8", "data.test=8", "budget.queries=6", "ta.epochs=1",
             "warmup.epochs=1", "reasoning.compress=teacher", "reasoning.budgets=[4096]"]  # fmt: skip
    run = Run(Path(distill(words, tmp_path, target="apprentice")["run"]))
    stages = run.manifest["stages"]
    assert stages["teach"]["metrics"]["briefs"] == {"4096": 0}
    assert stages["apprentice"]["metrics"]["examples"] == stages["teach"]["metrics"]["usable"] == 6
    assert "none of them keeps to a budget, so the assistant's rationales will be cut" in capsys.readouterr().err


def test_the_teacher_and_its_assistant_learn_budgets_in_a_run(tmp_path: Path) -> None:
    words = [*LEGAL, "data.pool=40", "data.dev=8", "data.test=8", "budget.queries=12", "ta.epochs=1",
             "warmup.epochs=1", "task.max_new_tokens=96", "reasoning.budgets=[32,128]"]  # fmt: skip
    run = Run(Path(distill([*words, "reasoning.compress=teacher"], tmp_path, target="apprentice")["run"]))
    stages = run.manifest["stages"]
    taught, briefs = (list(read_jsonl(run.folder("teach") / f"{name}.jsonl")) for name in ("taught", "briefs"))
    assert not any("Within" in (s.rationale or "") for s in [*taught, *briefs])
    count = counter(load_tokenizer(str(run.folder("apprentice"))))
    for budget in (32, 128):
        mine = [s for s in briefs if names(s.prompt, budget)]
        assert len(mine) == stages["teach"]["metrics"]["briefs"][str(budget)] > 6
        assert all(fits(count(s.rationale or ""), budget) for s in mine)
    assert stages["apprentice"]["metrics"]["examples"] == len(taught) + len(briefs)
    assert stages["teach"]["metrics"]["queries"] == 12, "an item is one query, however many lengths"
    cut = Run(Path(distill(words, tmp_path, target="apprentice")["run"])).manifest["stages"]
    assert cut["apprentice"]["metrics"]["examples"] == len(taught)
    assert cut["select"]["taken_from"] == run.path.name, "the stages before the teacher are the same"
    assert "taken_from" not in cut["teach"]


def test_drafts_with_false_sums_or_cut_off_teach_no_budget() -> None:
    recipe, sample = load_recipe([*WORDS]), replace(POOL[1], rationale=LONG)
    texts = ("1 + 1 = 3.\nAnswer: yes", "1 + 1 = 2.\nAnswer: yes", "So it is.\nAnswer: no")
    drafts = [Draft("It is so.\nAnswer: yes", 5, None, False), *(Draft(text, 5, None, True) for text in texts)]

    def words(text: str) -> int:
        return len(text.split())

    assert written(sample, drafts, 6, recipe, words) == "1 + 1 = 2."
    assert written(sample, drafts[:2], 6, recipe, words) is None
    assert written(sample, [], 12, recipe, words) == LONG


def test_the_student_learns_the_budgets_and_its_card_says_so(place: Path, tmp_path: Path) -> None:
    recipe = load_recipe([*WORDS, "reasoning.budgets=[8,32]"])  # of 32 there will be no example
    made = [replace(s, prompt=asked(s.prompt, 8), rationale="Last comes this.") for s in POOL]
    for stage in ("annotate", "shorten"):
        (place / stage).mkdir(exist_ok=True)
    write_jsonl(place / "annotate" / "annotations.jsonl", [replace(s, rationale=LONG) for s in POOL])
    write_jsonl(place / "shorten" / FILE, made)
    for name in ("tutor", "plain"):
        (tmp_path / name).mkdir()
    metrics = tutor(Context(recipe, place), tmp_path / "tutor")
    assert (metrics["examples"], metrics["budgeted"], metrics["from_ta"]) == (16, 8, 8)
    assert budgets_of(Card.load(tmp_path / "tutor")) == (8,)
    plain = tutor(Context(load_recipe([*WORDS]), place), tmp_path / "plain")
    assert plain["examples"] == 8
    assert "budgeted" not in plain
    assert budgets_of(Card.load(tmp_path / "plain")) == ()


def test_a_hostile_card_has_no_budgets() -> None:
    for extra in ("[]", '{"think": 8}', '{"think": [{}, "8"]}'):
        assert budgets_of(Card.loads(f'{{"recipe": "toy", "extra": {extra}}}')) == ()


@pytest.fixture(scope="module")
def student(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that has learnt two budgets, in a run that says so."""
    run = tmp_path_factory.mktemp("runs") / "toy"
    tiny.checkpoint(run / "tutor", "qwen2", tok=load_tokenizer(str(place / "align")))
    said = {8: "It is.", 32: "First this is said. Then that."}
    triples = [(asked(s.prompt, b), text, s.answer or "") for s in POOL for b, text in said.items()]
    teach(run / "tutor", triples, RATIONALE, 80)
    Card("toy", "{text}", ("yes", "no"), 64, extra={"think": [8, 32]}).save(run / "tutor")
    (run / "data").mkdir()
    write_jsonl(run / "data" / "test.jsonl", POOL[:4])
    (run / "manifest.json").write_text('{"stages": {}, "recipe": "toy"}')
    (run / "recipe.yaml").write_text("{}")
    return run / "tutor"


def test_figures_tell_how_a_student_keeps_to_its_budgets(student: Path) -> None:
    recipe = load_recipe([*WORDS, "reasoning.budgets=[8,32]", "task.max_new_tokens=64"])
    found = figures(student, POOL, recipe, "cpu")
    assert found["spearman"] == 1
    for name in ("8", "32"):
        assert (found[name]["accuracy"], found[name]["left_alone"], found[name]["violations"]) == (1, 1, 0)
    assert found["8"]["thought"] < found["32"]["thought"]
    assert found["8"]["distance"] == pytest.approx((8 - found["8"]["thought"]) / 8, abs=1e-3)
    tight = figures(student, POOL, load_recipe([*WORDS, "reasoning.budgets=[4,32]", "task.max_new_tokens=64"]), "cpu")
    over = [r.tokens for r in thoughts(student, 4) if r.closed]
    assert tight["4"]["violations"] == pytest.approx(len(over) / len(POOL), abs=1e-4)


def thoughts(student: Path, budget: int) -> list[Thinking]:
    runtime = load_runtime(student, 1)
    found = []
    for sample in POOL:
        one = Thinking(runtime, budget)
        assert len(list(one.stream(runtime.chat(asked(sample.prompt, budget))))) >= one.tokens
        found.append(one)
    return found


def test_one_asks_with_a_budget_on_the_command_line(student: Path) -> None:
    question = POOL[1].prompt
    found = {}
    for budget in (2, 8, 32):
        done = CliRunner().invoke(cli, ["run", str(student), question, "--think", str(budget), "--json"])
        assert done.exit_code == 0, done.output
        found[budget] = json.loads(done.stdout.strip().splitlines()[-1])
    assert [found[b]["answer"] for b in (8, 32)] == ["yes", "yes"]
    assert [(found[b]["closed"], found[b]["think"]) for b in found] == [(True, 2), (False, 8), (False, 32)]
    assert found[2]["thought"] == 2
    assert 2 < found[8]["thought"] <= 8 < found[32]["thought"] <= 32
    shown = CliRunner().invoke(cli, ["run", str(student), question, "--think", "2"])
    assert "thought 2 of 2 (closed at the bound)" in shown.stderr
    assert "has not learnt budgets" not in shown.stderr


def test_accuracy_and_latency_are_drawn_against_the_budget(student: Path) -> None:
    found = sweep(student, POOL[:4], (2, 8, 32), 1)
    assert found["signal"]
    assert [r["closed"] for r in found["budgets"]] == [1, 0, 0]
    assert [r["accuracy"] for r in found["budgets"]][1:] == [1, 1]
    assert found["spearman"] == 1
    text = table([found])
    assert "100.0%" in text
    assert len(text.splitlines()) == 5
    card = Card.load(student)
    assert card is not None
    Card(card.recipe, card.prompt, card.answers, card.max_new_tokens).save(student)
    try:
        plain = sweep(student, POOL[:1], (4,), 1)
        assert not plain["signal"]
        assert "(no signal)" in table([plain])
    finally:
        card.save(student)
