"""The self-consistency check of pools without labels, and embeddings by another model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.select import consistency
from bridge_edge.select.consistency import Check, doubtful_items, majority, to_check, told
from bridge_edge.select.embed import sentence_vectors, stored
from bridge_edge.select.score import Scored
from bridge_edge.train.models import load_model, load_tokenizer
from tests import tiny

TEXTS = ["The tenant pays 1200 dollars a month.", "What is 3 times 250?", "The tenant pays 1200 dollars a month."]


def test_only_the_easiest_quarter_is_checked() -> None:
    hard = np.random.default_rng(0).random(100)
    easy = set(np.argsort(hard)[:25].tolist())
    some = to_check(hard, Check(10, 4, 8, seed=1))
    assert len(some) == 10
    assert set(some) <= easy
    assert some == to_check(hard, Check(10, 4, 8, seed=1)) != to_check(hard, Check(10, 4, 8, seed=2))
    assert set(to_check(hard, Check(1000, 4, 8))) == easy
    assert to_check(hard, Check(0, 4, 8)) == []
    assert to_check(hard[:1], Check(5, 4, 8)) == []


def test_a_majority_is_more_than_half_of_all_replies() -> None:
    assert majority(["Yes", "yes.", None, "No"], 3) == "yes"
    assert majority(["Yes", "Yes", None, None], 4) is None
    assert majority([None, None], 2) is None
    assert majority([], 0) is None


def test_an_item_is_doubtful_where_reasoning_disagrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight items, of which the first two are the easy ones; the replies of one of them contradict its answer."""
    folder = str(tiny.checkpoint(tmp_path / "m", "qwen2"))
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    said = {"q0": "It is so.\nAnswer: no", "q1": "Answer: yes"}
    pool = [Sample(f"q{i}") for i in range(8)]

    def replies(_: Any, prompts: Sequence[list[int]], samples: int, *__: Any, **___: Any) -> list[list[list[int]]]:
        texts = [next(reply for q, reply in said.items() if q in tokenizer.decode(p)) for p in prompts]
        return [[tokenizer(t, add_special_tokens=False)["input_ids"]] * samples for t in texts]

    monkeypatch.setattr(consistency, "draw", replies)
    scored = Scored(np.arange(8, dtype=np.float32), np.zeros((8, 2), dtype=np.float32), ["yes"] * 8)
    check = Check(5, 3, 16)
    found, report = doubtful_items(model, tokenizer, pool, ("yes", "no"), scored, check, lambda *_: None)
    assert found == [0]
    assert report == {"checked": 2, "doubtful": 1, "undecided": 0, "not_checked": 6}
    assert "6 are answered rightly could not be checked" in told(report, 8)
    said["q0"] = "I cannot say"
    found, report = doubtful_items(model, tokenizer, pool, ("yes", "no"), scored, check, lambda *_: None)
    assert (found, report["undecided"], report["not_checked"]) == ([], 1, 7)


def test_the_check_runs_on_a_real_model_with_and_without_options(tmp_path: Path) -> None:
    folder = str(tiny.checkpoint(tmp_path / "m", "qwen2"))
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    pool = [Sample(f"Is {i} even?") for i in range(9)]
    seen: list[float] = []
    for answers, direct in ((("yes", "no"), ["yes"] * 9), ((), None)):
        scored = Scored(np.arange(9, dtype=np.float32), np.zeros((9, 2), dtype=np.float32), direct)
        found, report = doubtful_items(
            model, tokenizer, pool, answers, scored, Check(9, 2, 6), lambda n, _: seen.append(n)
        )
        assert set(found) <= {0, 1}
        assert report["checked"] == 2
    assert sum(seen) == 4


def encoder(folder: Path) -> Path:
    """A randomly initialised sentence-transformers model with mean pooling."""
    base = tiny.checkpoint(folder / "base", "qwen2")
    part = Transformer(str(base))
    SentenceTransformer(modules=[part, Pooling(part.get_embedding_dimension())]).save(str(folder / "st"))
    return folder / "st"


def test_embeddings_of_another_model_are_its_own(tmp_path: Path) -> None:
    where = encoder(tmp_path)
    seen: list[float] = []
    vectors = sentence_vectors(str(where), TEXTS, "cpu", lambda n, _: seen.append(n), batch=2)
    slow = SentenceTransformer(str(where), device="cpu").encode(TEXTS)
    assert vectors == pytest.approx(slow / np.linalg.norm(slow, axis=1, keepdims=True), abs=1e-4)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-5)
    assert sum(seen) == 3


@pytest.mark.parametrize("name", ["{tmp}/none", "nobody/there-is-no-such-model", "{tmp}/empty"])
def test_an_embedding_model_that_is_not_at_hand_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    name = name.format(tmp=tmp_path)
    with pytest.raises(UserError, match=r"select\.embeddings") as caught:
        sentence_vectors(name, TEXTS, "cpu", lambda *_: None)
    assert name in caught.value.message
    assert "select.embeddings=ta" in caught.value.hint


def test_stored_embeddings_have_length_one_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_edge.select.embed.ROWS", 3)
    vectors = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = 0
    np.save(tmp_path / "e.npy", vectors.astype(np.float16))
    found = stored(tmp_path / "e.npy")
    assert found.dtype == np.float32
    assert np.linalg.norm(found[:7], axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    assert found == pytest.approx(vectors, abs=1e-3)
