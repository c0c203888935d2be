"""What the student is shown of the assistant's annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bridge_edge.annotation import _finished_batches, annotate, keep_best
from bridge_edge.annotation import draft as draft_stage
from bridge_edge.budget import Ledger
from bridge_edge.curriculum import DECISIONS
from bridge_edge.data.card import parse
from bridge_edge.data.encode import encode_samples
from bridge_edge.data.samples import Sample, read_jsonl, write_jsonl
from bridge_edge.distill import annotation_of, summary_text
from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Draft, vote
from bridge_edge.generate.filters import Entry, too_long, unsure
from bridge_edge.generate.likeness import near_duplicates_of
from bridge_edge.generate.reader import read
from bridge_edge.phases import Context
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe
from bridge_edge.shipping import assistant_gguf
from bridge_edge.train.models import load_model, load_tokenizer
from tests import tiny
from tests.teacher.loopback import chat, serve

POOL = [Sample(f"What of case {i}?", "Yes" if i % 2 else "No") for i in range(6)]
TEXTS = (
    "2 + 2 = 4. 4 is less than 5.\nAnswer: No",
    "2 + 2 = 5. 5 is equal to 5.\nAnswer: Yes",  # a false sum
    "3 is less than 5.\nAnswer: Yes",  # the gold answer is No
    "Nothing to add.\nAnswer: Yes",
    "2 + 3 = 5.\nAnswer: No",
    "no answer at all",
)


def recipe(*changes: str) -> Recipe:
    return load_recipe(["recipe=legal", "annotate.surest=1", *changes])


def draft(text: str, logprob: float | None = -0.5, sample: int = 0, tokens: int = 10, ended: bool = True) -> Draft:
    return Draft(text, tokens, logprob, ended, sample)


def raw(cut: int | None = None) -> dict[str, list[Draft]]:
    pairs = enumerate(zip(POOL, TEXTS, strict=True))
    return {s.id: [draft(text, -0.1 * i, ended=i != cut)] for i, (s, text) in pairs}


def entry(name: str, *drafts: Draft, gold: str | None = None) -> Entry:
    verdict = vote(drafts, (), gold)
    return Entry(Sample(name, gold), verdict, len(drafts), verdict.candidates[0] if verdict.candidates else None)


def kept(out: Path) -> list[str]:
    return [s.prompt for s in read_jsonl(out / "annotations.jsonl")]


@pytest.fixture
def generic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool above belongs to no domain, so no checker of one may look at it."""

    class Blind:
        def check(self, *_: object) -> object:
            return type("Check", (), {"steps": True})

    monkeypatch.setattr("bridge_edge.phases.load_task", lambda _: Blind())


@pytest.mark.usefixtures("generic")
@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ((), [0, 3, 4]),
        (("annotate.arithmetic=false",), [0, 1, 3, 4]),
        (("annotate.keep=all",), [0, 2, 3, 4]),
        (("annotate.surest=0.5",), [0, 3]),
    ],
)
def test_each_filter_takes_what_it_says(changes: tuple[str, ...], left: list[int], tmp_path: Path) -> None:
    metrics = keep_best(recipe(*changes), POOL, raw(), tmp_path)
    assert kept(tmp_path) == [POOL[i].prompt for i in left]
    taken = sum(metrics[name] for name in ("unparsed", "answer_missed", "false_arithmetic", "unsure"))
    assert (metrics["kept"], metrics["pool"], metrics["tokens"]) == (len(left), 6, 60)
    assert taken == 6 - len(left)


def test_the_domains_checker_filters_only_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Checker:
        def check(self, sample: Sample, *_: object) -> object:
            return type("Check", (), {"steps": sample is not POOL[3]})

    monkeypatch.setattr("bridge_edge.phases.load_task", lambda _: Checker())
    metrics = keep_best(recipe("annotate.surest=0.5"), POOL, raw(), tmp_path)
    assert kept(tmp_path) == [POOL[i].prompt for i in (0, 3)]
    assert metrics["right_answer_wrong_steps"] == 0.5
    metrics = keep_best(recipe("annotate.surest=0.5", "annotate.steps=true"), POOL, raw(), tmp_path)
    assert kept(tmp_path) == [POOL[0].prompt], "the surest half is taken of what is left: of 0 and 4, both No"
    assert (metrics["wrong_steps"], metrics["unsure"], metrics["right_answer_wrong_steps"]) == (1, 1, 0.0)


@pytest.mark.usefixtures("generic")
def test_a_completion_cut_off_at_the_bound_is_not_kept(tmp_path: Path) -> None:
    metrics = keep_best(recipe(), POOL, raw(cut=0), tmp_path)
    assert kept(tmp_path) == [POOL[3].prompt, POOL[4].prompt]
    assert metrics["unparsed"] == 2


@pytest.mark.usefixtures("generic")
def test_nothing_usable_is_said(tmp_path: Path) -> None:
    empty = {k: [draft("?")] for k in raw()}
    with pytest.raises(UserError, match="no annotation of the assistant was usable"):
        keep_best(recipe(), POOL, empty, tmp_path)
    assert not (tmp_path / "annotations.jsonl").exists()


def test_with_a_second_reader_the_ranks_of_both_count() -> None:
    #        place among their own   by the reader   sum
    reads = [
        (-0.1, -9.0),  #      0               3     3
        (-0.2, -0.1),  #      1               0     1
        (-0.3, -0.2),  #      2               1     3
        (-9.0, -0.3),
    ]  #      3               2     5
    entries = [entry(f"y{i}", draft("Answer: Yes", own)) for i, (own, _) in enumerate(reads)]
    for one, (_, other) in zip(entries, reads, strict=True):
        one.read = other

    def left(share: float) -> list[int]:
        out = unsure(entries, recipe(f"annotate.surest={share}").annotate)
        return [i for i in range(4) if i not in out]

    assert [left(share) for share in (0.25, 0.5, 0.75)] == [[1], [0, 1], [0, 1, 2]]
    out = unsure(entries, recipe("annotate.surest=0.75").annotate)
    assert out == {3: "mean log-probability -9.0000, -0.3000 by the second reader, not among the surest of 'Yes'"}
    for one in entries:  # an engine that reports no log-probabilities: the reader alone
        assert one.best is not None
        one.best = replace(one.best, draft=replace(one.best.draft, logprob=None))
    assert [left(share) for share in (0.25, 0.5, 0.75)] == [[1], [1, 2], [1, 2, 3]]
    entries[0].read = None
    with pytest.raises(UserError, match="needs log-probabilities"):
        left(0.5)


@pytest.mark.usefixtures("generic")
def test_what_the_reader_is_shown_and_what_is_recorded(tmp_path: Path) -> None:
    shown: list[Sample] = []

    def reader(samples: Sequence[Sample]) -> list[float]:
        shown.extend(samples)
        return [-float(len(shown) - i) for i in range(len(samples))]  # the later the surer

    keep_best(recipe("annotate.surest=0.5"), POOL, raw(), tmp_path, reader)
    assert [s.rationale for s in shown] == [parse(TEXTS[i]).rationale for i in (0, 3, 4)], (
        "what is dropped before is not read"
    )
    lines = [json.loads(line) for line in (tmp_path / DECISIONS).read_text().splitlines()]
    assert [line["read"] for line in lines if "read" in line] == [-float(len(shown) - i) for i in range(len(shown))]


@pytest.mark.parametrize("form", ["rationale_answer", "multitask"])
def test_a_reader_says_how_likely_it_finds_a_text(form: str, tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "qwen2")
    tokenizer, model = load_tokenizer(str(tmp_path)), load_model(str(tmp_path)).eval()
    samples = [Sample(f"Is {i} odd?", "yes", rationale="It ends so. " * (i + 1)) for i in range(5)]
    found = read(str(tmp_path), samples, form, tokens=64, precision="fp32")
    for value, sample in zip(found, samples, strict=True):
        logs: list[float] = []
        for row in encode_samples(tokenizer, [sample], form):
            with torch.no_grad():
                said = model(input_ids=torch.tensor([row.ids.tolist()])).logits[0].log_softmax(-1)
            logs += [float(said[t - 1, row.ids[t]]) for t in range(1, len(row)) if row.segments[t] > 0]
        assert value == pytest.approx(sum(logs) / len(logs), abs=1e-4)


def test_the_surest_are_taken_within_each_answer() -> None:
    sure = [entry(f"y{i}", draft("Answer: Yes", -0.01 * i)) for i in range(8)]
    unsure_ones = [entry(f"n{i}", draft("Answer: No", -1.0 - i)) for i in range(4)]

    def left(entries: list[Entry], share: float) -> list[str]:
        out = unsure(entries, recipe(f"annotate.surest={share}").annotate)
        return [e.sample.prompt for i, e in enumerate(entries) if i not in out]

    assert left([*unsure_ones, *sure], 0.5) == ["n0", "n1", "y0", "y1", "y2", "y3"]
    assert left(unsure_ones, 0.01) == ["n0"]  # never an answer without an example
    assert left(sure, 1.0) == [f"y{i}" for i in range(8)]


def test_an_engine_that_reports_no_probabilities_cannot_be_asked_for_the_surest() -> None:
    entries = [entry("a", draft("Answer: Yes", None))]
    assert unsure(entries, recipe().annotate) == {}
    with pytest.raises(UserError, match="log-probabilities"):
        unsure(entries, recipe("annotate.surest=0.5").annotate)


def test_without_labels_the_majority_wins_and_its_surest_draft_stands_for_it() -> None:
    said = [draft("a.\nAnswer: No", -0.1, 0), draft("b.\nAnswer: Yes", -0.9, 1), draft("c.\nAnswer: yes", -0.4, 2)]
    found = vote([*said, draft("?", -0.1, 3)], ("Yes", "No"), None)
    assert [c.draft.sample for c in found.candidates] == [2, 1]
    assert (found.votes, found.agreement, found.by) == ({"no": 1, "yes": 2}, 0.5, "majority")


def test_with_labels_a_draft_that_is_right_wins_against_the_majority() -> None:
    said = [draft("a.\nAnswer: No", -0.1, 0), draft("b.\nAnswer: No", -0.9, 1), draft("c.\nAnswer: Yes", -2.0, 2)]
    found = vote(said, ("Yes", "No"), "Yes")
    assert [c.draft.sample for c in found.candidates] == [2]
    assert (found.agreement, found.by) == (pytest.approx(1 / 3), "gold")
    assert [c.draft.sample for c in vote(said[:2], ("Yes", "No"), "Yes").candidates] == [0, 1]


def test_a_draft_with_true_sums_is_taken_before_a_surer_one_with_a_false_sum() -> None:
    found = vote([draft("2 + 2 = 5.\nAnswer: 1", -0.1, 0), draft("2 + 2 = 4.\nAnswer: 1", -3.0, 1)], (), None)
    assert [(c.draft.sample, bool(c.false)) for c in found.candidates] == [(1, False), (0, True)]


def test_nothing_that_can_be_read_is_no_candidate() -> None:
    assert vote([draft("?"), draft("Answer: Yes", ended=False)], ("Yes",), "Yes").candidates == ()


def test_long_drafts_are_replaced_by_short_ones_and_the_longest_dropped_past_their_share() -> None:
    entries = [entry(f"s{i}", draft("Answer: Yes", tokens=10)) for i in range(8)]
    entries += [entry(f"l{n}", draft("Answer: Yes", tokens=n)) for n in (90, 70, 80)]
    entries.append(entry("both", draft("Answer: Yes", -0.1, 0, 99), draft("Answer: Yes", -0.7, 1, 20)))
    out = too_long(entries, recipe("annotate.longest=30", "annotate.long_share=0.2").annotate)
    assert [entries[i].sample.prompt for i in out] == ["l90"]  # 2 of 11 are long now; a third would be 3 of 12
    assert entries[-1].chosen.draft.sample == 1
    assert "instead of 0" in entries[-1].record()["notes"][0]
    assert too_long(entries, recipe("annotate.longest=30", "annotate.long_share=1").annotate) == {}
    assert len(too_long(entries, recipe("annotate.longest=30", "annotate.long_share=0").annotate)) == 3
    assert too_long(entries, recipe().annotate) == {}


def test_near_duplicates_are_those_of_all_pairs_compared() -> None:
    """Against the slow way: greedily keep what is not too close to anything kept before."""
    from bridge_edge.data.pool import shingles

    words = "one side and the other side are of two states so that the claim for damages is above the bound".split()
    texts = [" ".join([*words[: i % 7], f"case {i % 11}", *words[i % 7 :], f"end {i % 3}"]) for i in range(120)]
    order = sorted(range(len(texts)), key=lambda i: -i)
    kept: list[int] = []
    for i in order:
        mine = shingles(texts[i])
        if all(len(mine & shingles(texts[k])) / len(mine | shingles(texts[k])) < 0.7 for k in kept):
            kept.append(i)
    found = near_duplicates_of(texts, order, 0.7)
    assert sorted(set(range(120)) - set(found)) == sorted(kept)
    assert 5 < len(kept) < 115
    assert set(found.values()) <= set(kept)


@pytest.mark.usefixtures("generic")
def test_each_decision_is_kept_with_its_reason(tmp_path: Path) -> None:
    metrics = keep_best(recipe("annotate.surest=0.5"), POOL, raw(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / DECISIONS).read_text().splitlines()]
    assert [line["id"] for line in lines] == [s.id for s in POOL]
    by = [line.get("dropped_by") for line in lines]
    assert by == [None, "false_arithmetic", "answer_missed", None, "unsure", "unparsed"]
    assert "2 + 2 = 5" in lines[1]["why"]
    assert lines[2]["why"] == "says 'Yes', the gold answer is 'No'"
    assert [row["removed"] for row in metrics["filters"]] == [1, 1, 0, 1, 1, 0, 0]
    assert metrics["filters"][-1]["left"] == metrics["kept"] == 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("annotate.samples=4", "annotate.temperature=0"), "would all be equal"),
        (("annotate.engine=openai",), "needs annotate.base_url and annotate.model"),
        (("annotate.steps=true", "teacher=replay", "teacher.path=a.jsonl", "data.path=a.jsonl"), "whose checker knows"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        recipe(*words)


def context(path: Path, *words: str, **changes: Any) -> Context:
    """A run whose assistant is a tiny random model, with a pool of six items."""
    run = path / "run"
    if not run.exists():
        tiny.checkpoint(run / "apprentice")
        (run / "data").mkdir()
        write_jsonl(run / "data" / "pool.jsonl", [Sample(f"Is {i} above {i * i % 7}?") for i in range(6)])
    spec = recipe("annotate.keep=all", "task.max_new_tokens=8", "task.answers=[]", "ta.precision=fp32", *words)
    return Context(spec, run, **changes)


def drafts_of(ctx: Context, out: Path) -> list[dict[str, Any]]:
    """What the stage wrote."""
    out.mkdir(exist_ok=True)
    draft_stage(ctx, out)
    return [json.loads(line) for line in (out / "raw.jsonl").read_text().splitlines()]


def test_several_drafts_go_on_after_a_kill_with_the_same_words(tmp_path: Path) -> None:
    ctx = context(tmp_path, "annotate.samples=3", "annotate.batch_rows=1")
    whole = drafts_of(ctx, tmp_path / "a")
    assert [line.get("sample", 0) for line in whole] == [0, 1, 2] * 6
    assert len({line["text"] for line in whole}) > 12
    wider = drafts_of(context(tmp_path, "annotate.samples=3", "annotate.batch_rows=2"), tmp_path / "b")
    assert [{**line, "logprob": 0} for line in wider] == [{**line, "logprob": 0} for line in whole]
    logprobs = [[line["logprob"] for line in lines] for lines in (wider, whole)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=2e-5)  # sums of another batch are rounded otherwise
    raw_lines = (tmp_path / "a" / "raw.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "raw.jsonl").write_text("".join(raw_lines[:16]) + '{"id": "ha')
    assert drafts_of(ctx, tmp_path / "c") == whole
    other = drafts_of(context(tmp_path, "annotate.samples=3", "annotate.seed=1"), tmp_path / "d")
    assert sum(a["text"] == b["text"] for a, b in zip(whole, other, strict=True)) < 6


@pytest.mark.usefixtures("generic")
def test_the_stage_with_a_served_assistant_votes_and_records_its_calls(tmp_path: Path) -> None:
    said = {0: "1 is less than 2.\nAnswer: Yes", 1: "2 is less than 1.\nAnswer: Yes", 2: "So it is.\nAnswer: No"}

    def answer(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        return 200, {}, chat(said[body["seed"] % 3], 20, 9)

    with serve(answer) as server:
        words = ("annotate.engine=openai", f"annotate.base_url={server.url}", "annotate.model=ta", "annotate.samples=5")
        ctx = context(tmp_path, *words)
        for folder in (drafted := ctx.path / "draft", out := tmp_path / "out"):
            folder.mkdir()
        written = draft_stage(ctx, drafted)
        asked = len(server.bodies)
        (drafted / "raw.jsonl").write_text("")  # killed before a batch was written: nothing is asked again
        assert draft_stage(ctx, drafted) == written
        metrics = annotate(ctx, out)
    assert len(server.bodies) == asked == 30
    assert (metrics["drafts"], metrics["pool"], metrics["unparsed"]) == (30, 6, 0)
    assert 0.5 < metrics["agreement"] < 1
    assert metrics["kept"] + metrics["false_arithmetic"] == 6
    lines = [json.loads(line) for line in (out / DECISIONS).read_text().splitlines()]
    assert {line["id"] for line in lines if line["kept"]} == {s.id for s in read_jsonl(out / "annotations.jsonl")}
    assert all(max(line["votes"].values()) == round(5 * line["agreement"]) for line in lines)
    with Ledger(tmp_path / "run" / "assistant.sqlite") as ledger:
        assert (ledger.totals().queries, ledger.totals().usd) == (30, 0)


def test_the_stage_in_llama_cpp_leaves_no_model_behind(tmp_path: Path) -> None:
    native = drafts_of(context(tmp_path), tmp_path / "native")
    ctx = context(tmp_path, "annotate.engine=llama-cpp", convert=assistant_gguf)
    llama = drafts_of(ctx, tmp_path / "llama")
    assert sum(a["text"] == b["text"] for a, b in zip(native, llama, strict=True)) >= 5
    assert sorted(p.name for p in (tmp_path / "llama").iterdir()) == ["raw.jsonl"]


@pytest.mark.usefixtures("generic")
def test_the_summary_of_a_run_says_what_the_filters_took(tmp_path: Path) -> None:
    notes = annotation_of(keep_best(recipe("annotate.surest=0.5"), POOL, raw(), tmp_path))
    summary = {"run": "r", "teacher": {"queries": None, "usd_cap": None}, "annotation": notes, "test": {}}
    summary |= {"rounds": [], "turns": []}
    text = summary_text({**summary, "seconds": {}, "peak_memory_mb": 1})
    assert "2 of 6 kept; dropped: unparsed 1, answer_missed 1, false_arithmetic 1, unsure 1" in text
    assert "Annotated" not in summary_text({**summary, "annotation": {}, "seconds": {}, "peak_memory_mb": 1})


def test_half_written_batches_are_cut_off(tmp_path: Path) -> None:
    pool = [Sample(f"item {i}") for i in range(6)]
    batches = [pool[:2], pool[2:4], pool[4:]]
    path = tmp_path / "raw.jsonl"
    assert _finished_batches(path, batches) == 0

    def line(sample: Sample) -> str:
        return json.dumps({"id": sample.id, "text": "odd \u2028 and \u0085 breaks"}, ensure_ascii=False) + "\n"

    whole = line(pool[1]) + line(pool[0])
    for tail, finished in (
        ("", 1),
        (line(pool[2]), 1),
        (line(pool[2]) + line(pool[3])[:-9], 1),
        (line(pool[2]) + line(pool[4]), 1),
        (line(pool[2]) + "{broken\n", 1),
    ):
        path.write_text(whole + tail, encoding="utf-8")
        assert _finished_batches(path, batches) == finished
        assert path.read_text(encoding="utf-8") == whole
    path.write_text(whole + line(pool[3]) + line(pool[2]) + line(pool[4]) + line(pool[5]), encoding="utf-8")
    assert _finished_batches(path, batches) == 3
