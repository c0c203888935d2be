"""Unigram tokenizers in GGUF: equal ids in llama.cpp, through a whole export; what cannot be said there is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bridge_edge.errors import UserError
from bridge_edge.export.api import export_student
from bridge_edge.export.gguf_tokenizer import PROBES, TokenMismatch, verify_tokens
from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.runtimes.gguf_runtime import GGUFRuntime
from tests import tiny

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
Steps = list[normalizers.Normalizer]
MERGE = normalizers.Replace(Regex(" {2,}"), " ")


def unigram(steps: Steps, scheme: str = "always") -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    special = ["<pad>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([*tiny.TEXTS, *PROBES[:2]], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", chat_template=TEMPLATE
    )


def test_a_student_with_unigram_exports_whole(tmp_path: Path) -> None:
    """With a probe corpus of many scripts, most of which are unknown here, on both sides."""
    folder = tiny.checkpoint(tmp_path / "m", "llama", tok=unigram([], "never"), eos_token_id=1)
    done = export_student(folder, tmp_path / "out", "gguf", "F16", tiny.PROMPTS, 1)
    assert done.parity["passed"]
    assert done.parity["through"] == "llama.cpp"
    shipped = GGUFRuntime(done.path, 1)
    assert shipped.header.metadata["tokenizer.ggml.model"] == "t5"
    assert shipped.decode(shipped.encode("The tenant pays")) == "The tenant pays"
    assert len(shipped.encode("The tenant pays")) < 12


@pytest.mark.parametrize("merged", [False, True])
def test_blanks_are_merged_only_where_the_tokenizer_does(merged: bool, tmp_path: Path) -> None:
    tokenizer = unigram([MERGE] if merged else [], "always")
    folder = tiny.checkpoint(tmp_path / "m", "llama", tok=tokenizer, eos_token_id=1)
    write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")
    shipped = GGUFRuntime(tmp_path / "m.gguf", 1)
    for text in ("The tenant  pays", "a", "The   deposit"):
        assert shipped.encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_scores_that_are_lost_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: with all scores equal another path is the best."""
    from bridge_edge.export import gguf_tokenizer

    whole = gguf_tokenizer.write_unigram

    def flat(writer: Any, data: dict[str, Any], count: int) -> None:
        data["model"]["vocab"] = [[token, -1.0] for token, _ in data["model"]["vocab"]]
        whole(writer, data, count)

    monkeypatch.setattr(gguf_tokenizer, "write_unigram", flat)
    tokenizer = unigram([], "never")
    folder = tiny.checkpoint(tmp_path / "m", "llama", tok=tokenizer, eos_token_id=1)
    write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")
    with pytest.raises(TokenMismatch):
        verify_tokens(tmp_path / "m.gguf", folder, tokenizer, tiny.TEXTS)


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda d: d["model"].update(byte_fallback=True), "byte fallback"),
        (lambda d: d.update(normalizer={"type": "Lowercase"}), "normalizer .*Lowercase"),
        (lambda d: d.update(pre_tokenizer={"type": "Whitespace"}), "pre-tokenizer .*Whitespace"),
        (lambda d: d["model"]["vocab"].extend([[f"w{i}", -9.0] for i in range(500)]), "ids up to"),
    ],
)
def test_what_cannot_be_said_is_refused(edit: Edit, match: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", "llama", tok=unigram([], "never"), eos_token_id=1)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=match):
        export_student(folder, tmp_path / "out", "gguf", "F16", tiny.PROMPTS, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
