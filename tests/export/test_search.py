"""Importance matrices, single types, the journal and the search, against figures worked out by hand."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, quants

from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.export import imatrix
from bridge_edge.export.api import export_student
from bridge_edge.export.front import Found, Point, following, isotonic, pooled, table
from bridge_edge.export.gguf_writer import permute, unpermute, write_gguf
from bridge_edge.export.journal import Journal, journal_path
from bridge_edge.export.llama_quantiser import native, requantise
from bridge_edge.export.parity import compare
from bridge_edge.export.quantize import Mix, parse_types
from bridge_edge.export.search import path_of
from bridge_edge.export.sensitivity import Cost, Proxy, Sensitivity, ladder
from bridge_edge.export.wish import Goal, Wish
from bridge_edge.runtimes.torch_runtime import TorchRuntime
from tests import tiny
from tests.rule_runtime import RuleRuntime

TEXTS = [Sample(text, "yes", "Because.") for text in tiny.TEXTS]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("student") / "m", "llama", 256, initializer_range=0.05)


@pytest.fixture(scope="module")
def whole(student: Path) -> Path:
    write_gguf(student, student / "whole.f32.gguf", "F32", "toy")
    return student / "whole.f32.gguf"


def test_importance_is_the_mean_square_of_the_inputs(tmp_path: Path) -> None:
    """Slowly: the first layer reads the normed embedding; a tied head reads the last hidden state."""
    folder = tiny.checkpoint(tmp_path / "m")
    runtime = TorchRuntime(folder, 1)
    read = imatrix.texts(runtime, TEXTS)
    found = imatrix.measure(runtime, folder, read)
    model = runtime.model.model
    first, last = [], []
    with torch.no_grad():
        for ids in read:
            first.append(model.layers[0].input_layernorm(model.embed_tokens(torch.tensor(ids))))
            last.append(model(input_ids=torch.tensor([ids])).last_hidden_state[0])
    assert found["blk.0.attn_q.weight"] == pytest.approx(torch.cat(first).square().mean(0).numpy(), rel=1e-4)
    assert found["token_embd.weight"] == pytest.approx(torch.cat(last).square().mean(0).numpy(), rel=1e-4)
    assert "output.weight" not in found
    assert len(found) == 2 * 7 + 1
    assert all(not module._forward_pre_hooks for module in runtime.model.modules())


def test_texts_are_whole_conversations_within_the_budget(student: Path) -> None:
    runtime = TorchRuntime(student, 1)
    full = imatrix.texts(runtime, TEXTS)
    assert runtime.decode(full[0]).endswith("Because.\nAnswer: yes")
    assert full[0][: len(runtime.chat(TEXTS[0].prompt))] == runtime.chat(TEXTS[0].prompt)
    assert sum(map(len, imatrix.texts(runtime, TEXTS, tokens=70))) == 70
    assert len(imatrix.texts(runtime, TEXTS, most=2)) == 2


def test_columns_that_never_fire_keep_a_floor() -> None:
    assert imatrix._settled(np.array([0.0, 2.0])) == pytest.approx([1e-6, 2.0])
    assert imatrix._settled(np.zeros(3)).tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="not finite"):
        imatrix._settled(np.array([math.nan]))


def test_a_matrix_moves_precision_to_its_columns(whole: Path, tmp_path: Path) -> None:
    """With all weight on half a block its error falls and the other half's rises: the native side read the array."""
    name = "blk.0.ffn_up.weight"
    importance = np.full(256, 1e-4, np.float32)
    importance[16:24] = 1.0
    exact = next(t.data for t in GGUFReader(whole).tensors if t.name == name)
    errors = []
    for given in ({}, {name: importance}):
        header = requantise(whole, tmp_path / "m.gguf", "Q4_K_M", 1, Mix(given, {"blk.*": "Q4_K"}))
        assert next(t.type for t in header.tensors if t.name == name) == "Q4_K"
        tensor = next(t for t in GGUFReader(tmp_path / "m.gguf").tensors if t.name == name)
        errors.append((quants.dequantize(tensor.data, tensor.tensor_type) - exact) ** 2)
    plain, weighed = errors
    assert weighed[:, 16:24].mean() < 0.75 * plain[:, 16:24].mean()
    assert weighed[:, 24:32].mean() > 1.25 * plain[:, 24:32].mean()


def test_a_matrix_of_another_model_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tensor 256 columns"):
        requantise(whole, tmp_path / "m.gguf", "Q4_0", 1, Mix({"blk.0.ffn_up.weight": np.ones(64, np.float32)}))
    with pytest.raises(UserError, match="needs an importance matrix"):
        requantise(whole, tmp_path / "m.gguf", "IQ3_XXS", 1, Mix())
    assert list(tmp_path.iterdir()) == []


def test_types_of_single_tensors(whole: Path, tmp_path: Path) -> None:
    types = parse_types(("blk.1.ffn_down.weight=q6_k", "token_embd.weight=Q2_K"))
    header = requantise(whole, tmp_path / "m.gguf", "Q8_0", 1, Mix({}, {**types, "blk.*.attn_*.weight": "F16"}))
    kinds = {t.name: t.type for t in header.tensors}
    assert kinds["blk.1.ffn_down.weight"] == "Q6_K"
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"
    assert kinds["token_embd.weight"] == "Q2_K"
    assert {kinds[f"blk.{i}.attn_{x}.weight"] for i in range(2) for x in "qkv"} == {"F16"}
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("word", "match"), [("blk.0.x", "PATTERN=TYPE"), ("=Q8_0", "PATTERN=TYPE"), ("a=Q9_Z", "unknown tensor type")]
)
def test_words_that_are_no_types(word: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        parse_types((word,))


@pytest.mark.parametrize("pattern", ["blk.9.ffn_up.weight", "blk.(", "[", "blk\\d", "ffn_up"])
def test_patterns_that_fit_no_tensor(pattern: str, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown tensor"):
        requantise(whole, tmp_path / "m.gguf", "Q8_0", 1, Mix({}, {pattern: "Q4_0"}))


def test_the_bindings_structure_agrees_with_the_library() -> None:
    """The library fills in its defaults; a field at another offset would not read as documented."""
    params = native.llama_model_quantize_default_params()
    assert (params.nthread, params.ftype) == (0, native.LLAMA_FTYPE_MOSTLY_Q8_0)
    assert params.output_tensor_type == params.token_embedding_type > 30  # GGML_TYPE_COUNT: not set
    flags = (params.allow_requantize, params.quantize_output_tensor, params.only_copy, params.pure, params.dry_run)
    assert flags == (False, True, False, False, False)
    assert not any((params.imatrix, params.kv_overrides, params.tt_overrides, params.prune_layers))
    assert params.max_buf_size == 8 << 30  # the last field


def test_unpermute_inverts_permute() -> None:
    for data in (np.arange(48).reshape(24, 2), np.arange(24)):
        assert np.array_equal(unpermute(permute(data, 3), 3), data)


def test_path_takes_the_cheapest_byte_first_and_skips_beaten_types() -> None:
    """Tensor a: 1 of KL for 10 bytes, then 9 for 10; b: 4 for 10. A type above the line between two others is out."""
    costs = {
        "a": {"big": Cost(30, 0.0), "mid": Cost(20, 1.0), "small": Cost(10, 10.0), "bad": Cost(25, 9.0)},
        "b": {"big": Cost(30, 0.0), "small": Cost(20, 4.0), "above": Cost(26, 3.9)},
    }
    assert path_of(costs) == [
        {"a": "big", "b": "big"},
        {"a": "mid", "b": "big"},
        {"a": "mid", "b": "small"},
        {"a": "small", "b": "small"},
    ]


def test_the_ladder_fits_the_rows() -> None:
    assert ladder(896, True) == ["IQ4_NL", "Q5_0", "Q8_0"]
    assert "IQ3_XXS" in ladder(256, True)
    assert "IQ3_XXS" not in ladder(256, False)


def point(name: str, size: int, accuracy: float, drop: float = 0.0, kl: float = 0.1) -> Point:
    return Point(name, size, 4.0, kl, accuracy, drop, (drop - 1, drop + 1))


def test_bisection_finds_the_last_that_passes() -> None:
    measured: dict[int, Point] = {}
    while (index := following(measured, list(measured.values()), Goal(max_drop=0.5), 33)) is not None:
        drop = 0.0 if index <= 19 else 2.0
        measured[index] = point(str(index), 100 - index, 0.8, drop, kl=index / 100)
    assert len(measured) <= 7
    found = Found(tuple(measured.values()), Goal(max_drop=0.5), True, 1.0)
    assert (found.chosen.name, found.met) == ("19", True)


def test_isotonic_by_hand() -> None:
    assert isotonic([1.0, 2.0, 4.0]) == [1.0, 2.0, 4.0]
    assert isotonic([3.0, 1.0, 2.0, 5.0, 4.0]) == [2.0, 2.0, 2.0, 4.5, 4.5]
    assert isotonic([]) == []


def test_neighbours_decide_where_one_file_is_lucky_or_unlucky() -> None:
    """Lost points in the order of divergence: a fine file unlucky by 1 and a coarse one lucky by 1 among others."""
    fine = [point(f"f{i}", 50 - i, 0.8, drop, kl=0.01 * i) for i, drop in enumerate((0.0, 1.0, 0.0, 0.0))]
    coarse = [point(f"c{i}", 30 - i, 0.8, drop, kl=0.1 + 0.01 * i) for i, drop in enumerate((3.0, 3.0, 0.0, 3.0))]
    found = Found((*fine, *coarse), Goal(max_drop=0.5), True, 1.0)
    assert found.chosen.name == "f3"
    assert pooled(found.points)["f1"] == pytest.approx(1 / 3)
    assert pooled(found.points)["c2"] == pytest.approx(2.0)
    strict = Found(tuple(coarse), Goal(max_drop=0.5), True, 1.0)
    assert (strict.met, strict.chosen.name) == (False, "c0")


def test_the_front_has_no_point_that_another_beats() -> None:
    points = (point("c", 30, 0.9), point("a", 10, 0.7), point("worse", 20, 0.6), point("b", 25, 0.8))
    found = Found(points, Goal(), True, 1.0)
    assert [p.name for p in found.front()] == ["a", "b", "c"]
    report = found.to_json()
    assert [(p["name"], p["front"]) for p in report["points"]][1] == ("worse", False)
    assert "c" in table(json.loads(json.dumps(report)))


def test_a_journal_survives_half_a_line_and_forgets_other_models(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "out.partial")
    assert path == tmp_path / "out.search.jsonl"
    Journal(path, "k").put("a", [1, 2])
    Journal(path, "k").put("b", 3)
    with path.open("a") as file:
        file.write('{"name": "c", "val')
    again = Journal(path, "k")
    assert (again.get("a"), again.get("b"), again.get("c")) == ([1, 2], 3, None)
    again.put("c", 4)
    assert Journal(path, "k").known == {"a": [1, 2], "b": 3, "c": 4}
    assert Journal(path, "other").known == {}


def test_sensitivity_swaps_and_restores(student: Path, whole: Path, tmp_path: Path) -> None:
    """On llama, whose q and k rows are interleaved in the file: in eight bits the divergence must all but vanish."""
    original = TorchRuntime(student, 1)
    texts = imatrix.texts(original, TEXTS)
    proxy = Proxy(original, texts)
    before = original.logits(texts[0])
    work = Sensitivity(student, original, whole, tmp_path, imatrix.measure(original, student, texts))
    names = ["blk.0.attn_q.weight", "blk.1.attn_k.weight"]
    found = {}
    for kind in ("Q8_0", "Q3_K"):
        reader = GGUFReader(work._uniform(kind, 1))
        coarse = {t.name: t for t in reader.tensors}
        found[kind] = work._swapped(names, coarse, lambda: proxy.kl(original))
    assert 0 < found["Q8_0"] < 0.05 * found["Q3_K"]
    assert np.array_equal(original.logits(texts[0]), before)
    assert proxy.kl(original) == pytest.approx(0.0, abs=1e-6)


def test_auto_from_end_to_end(student: Path, tmp_path: Path) -> None:
    """Any answer is as good as none to a random model, so the coarsest mixture passes, and is smaller than any type."""
    dev = [Sample(prompt, "yes") for prompt in tiny.PROMPTS]
    wish = Wish(tuple(TEXTS), goal=Goal(minutes=1e6, max_drop=100))
    done = export_student(student, tmp_path / "out", "gguf", "auto", dev, 1, wish)
    assert done.search is not None
    assert (done.search["met"], done.search["complete"]) == (True, True)
    points = {p["name"]: p for p in done.search["points"]}
    chosen = points[done.search["chosen"]]
    assert chosen["bytes"] == done.bytes == done.path.stat().st_size
    assert done.bytes < points["Q4_K_M"]["bytes"] < points["mix 0"]["bytes"]
    assert set(chosen["types"].values()) <= {"IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S"}
    assert done.parity["accuracy"]["n"] == 3
    assert done.importance == 2 * 7 + 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("prompts", "wish", "match"),
    [
        ((), Wish(), "dev items"),
        ([Sample("a?", None)], Wish(), "with answers"),
        ([Sample("a?", "yes")], Wish(types={"token_embd.weight": "Q8_0"}), "itself"),
    ],
)
def test_what_auto_cannot_do(prompts: list[Sample], wish: Wish, match: str, student: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match):
        export_student(student, tmp_path / "out", "gguf", "auto", prompts, 1, wish)
    assert not list(tmp_path.glob("out*"))


class Other(RuleRuntime):
    """Says "Answer: nay" where the rule says no."""

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        for token in super().stream(ids, max_new_tokens):
            yield ord("a") if token == ord("o") else token


def test_divergence_and_accuracy_by_hand(tmp_path: Path) -> None:
    """The second of two prompts parts at token 9 ("no" against "na"); its answer was right and is no longer."""
    items = [Sample("7?", "yes"), Sample("6?", "no")]
    result = compare(RuleRuntime(tmp_path), Other(tmp_path), items, 20)
    assert result.greedy_equal == 0.5
    (only,) = result.divergences
    assert (only.prompt, only.token, only.original, only.shipped) == (1, 9, ord("o"), ord("a"))
    assert result.accuracy is not None
    assert (result.accuracy["accuracy_a"], result.accuracy["accuracy_b"], result.accuracy["n"]) == (1.0, 0.5, 2)
    assert compare(RuleRuntime(tmp_path), Other(tmp_path), ["7?"], 20).accuracy is None


def test_a_certain_loss_of_accuracy_fails_and_an_uncertain_one_does_not() -> None:
    from bridge_edge.evaluate import paired
    from bridge_edge.export.parity import Parity

    def parity(lost: int, n: int) -> Parity:
        result = paired([True] * n, [False] * lost + [True] * (n - lost))
        return Parity(n, 9, 9, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, (), result)

    assert parity(1, 200).failures("Q8_0") == []
    (failure,) = parity(40, 200).failures("Q8_0")
    assert failure.startswith("accuracy 20.0 points lower, 95 % interval")
