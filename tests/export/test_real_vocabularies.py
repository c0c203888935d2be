"""Real vocabularies, from the files beside llama.cpp's source: rebuilt as a tokenizer of the hub, then exported by us.

    BRIDGE_EDGE_LLAMA_CPP=FOLDER/vendor/llama.cpp python -m pytest tests/export/test_real_vocabularies.py

Our file must carry the vocabulary as llama.cpp's own converter wrote it, and both the hub's tokenizer and llama.cpp on
our file must give the ids that are recorded there (`.inp`, `.out`). Skipped where that folder is not named, of which
`test_outside_reference.py` says more. Not covered: vocabularies of
other kinds.
"""

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bridge_edge.export.gguf_tokenizer import QWEN2
from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.runtimes.llama_native import load_model, native, tokenize, vocabulary
from tests import tiny
from tests.export.test_gguf import split
from tests.export.test_outside_reference import SOURCE, fields

MODELS = SOURCE / "models"
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="BRIDGE_EDGE_LLAMA_CPP names no llama.cpp source")

# name -> how the hub's tokenizer splits
BYTE_LEVEL = {
    "qwen2": split(QWEN2),
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
}
COMPARED = ("model", "tokens", "token_type", "merges")


def byte_level(name: str, told: dict[str, Any]) -> Tokenizer:
    vocab = {token: i for i, token in enumerate(told["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in told["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = BYTE_LEVEL[name]
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def rebuilt(name: str, told: dict[str, Any]) -> PreTrainedTokenizerFast:
    tokenizer = byte_level(name, told)
    for token, kind in zip(told["tokens"], told["token_type"], strict=True):
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, special=kind == TokenType.CONTROL, normalized=False)])
    names = {"eos_token": "eos_token_id", "bos_token": "bos_token_id", "unk_token": "unknown_token_id"}
    special = {key: told["tokens"][told[i]] for key, i in names.items() if i in told}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_real_vocabulary_survives_the_export(name: str, tmp_path: Path) -> None:
    given = {
        k.removeprefix("tokenizer.ggml."): v for k, v in fields(GGUFReader(MODELS / f"ggml-vocab-{name}.gguf")).items()
    }
    tokenizer = rebuilt(name, given)
    folder = tiny.checkpoint(tmp_path / "m", "llama", 32, tokenizer, vocab_size=len(given["tokens"]))
    write_gguf(folder, tmp_path / "m.gguf", "F16", "m")
    made = {k.removeprefix("tokenizer.ggml."): v for k, v in fields(GGUFReader(tmp_path / "m.gguf")).items()}
    for key in COMPARED:
        assert made.get(key) == given.get(key), key
    place = MODELS / f"ggml-vocab-{name}.gguf"
    texts = place.with_name(f"{place.name}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    lines = place.with_name(f"{place.name}.out").read_text(encoding="utf-8").splitlines()
    model = load_model(tmp_path / "m.gguf", vocab_only=True)
    try:
        vocab = vocabulary(model)
        for text, line in zip(texts, lines, strict=True):
            wanted = [int(i) for i in line.split()]
            assert tokenize(vocab, text) == wanted, text
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == wanted, text
    finally:
        native.llama_model_free(model)
