"""Against llama.cpp's own converter and vocabularies, which the source distribution of llama-cpp-python holds.

    pip download llama-cpp-python==0.3.36 --no-deps --no-binary llama-cpp-python && tar xzf llama_cpp_python-*.tar.gz
    BRIDGE_EDGE_LLAMA_CPP=FOLDER/vendor/llama.cpp python -m pytest tests/export/test_outside_reference.py

Skipped where that folder is not named. The converter knows tokenizers by a hash and so refuses ours; it is told the
pre-tokenizer's name and does all the rest itself. Not covered: Gemma, whose converter wants a SentencePiece model.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.runtimes.llama_native import load_model, native, tokenize, vocabulary
from tests import tiny

SOURCE = Path(os.environ.get("BRIDGE_EDGE_LLAMA_CPP", "")).absolute()
CONVERTER = SOURCE / "convert_hf_to_gguf.py"
pytestmark = pytest.mark.skipif(not CONVERTER.is_file(), reason="BRIDGE_EDGE_LLAMA_CPP names no llama.cpp source")

DRIVER = """
import runpy, sys, types
source, pre = sys.argv[1:3]
sys.path[:0] = [source, source + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
sentencepiece = types.ModuleType("sentencepiece")  # imported before the look for a tokenizer.model
sentencepiece.SentencePieceProcessor = None
sys.modules["sentencepiece"] = sentencepiece
sys.argv = ["convert", *sys.argv[3:]]
runpy.run_path(source + "/convert_hf_to_gguf.py", run_name="__main__")
"""
# Keys that may differ, and why: ours only, the converter's only, or of another value.
OURS = {
    "bridge_edge.card",  # the task card
    "bridge_edge.eos_token_ids",  # every end token
    "bridge_edge.normalizer",
    "tokenizer.ggml.add_bos_token",  # always written, so that no runtime guesses
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.unknown_token_id",  # as the tokenizer says; byte-level tokenizers never use it
    # Written out though the loader would find the same: sizes of heads, of their rotated part, of the vocabulary.
    *(f"{kind}.{k}" for kind in ("qwen2", "qwen3") for k in ("rope.dimension_count", "vocab_size")),
    "qwen2.attention.key_length",
    "qwen2.attention.value_length",
}
THEIRS = {
    "general.size_label",  # names for people
    "general.finetune",
    "general.basename",
    "general.version",
    "general.sampling.temp",
}
VALUES = {"general.name"}
KINDS = ("qwen2", "qwen3", "llama")


def fields(reader: GGUFReader) -> dict[str, object]:
    return {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_bit_equal_and_metadata_agrees(kind: str, quant: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind)
    write_gguf(folder, tmp_path / "ours.gguf", quant, "m")
    theirs = tmp_path / "theirs.gguf"
    words = [str(SOURCE), "qwen2", str(folder), "--outfile", str(theirs), "--outtype", quant.lower()]
    done = subprocess.run([sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, check=False)
    assert theirs.is_file(), done.stderr[-2000:]
    a, b = GGUFReader(tmp_path / "ours.gguf"), GGUFReader(theirs)
    ours, wanted = ({t.name: t for t in reader.tensors} for reader in (a, b))
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert ours[name].tensor_type == tensor.tensor_type, name
        assert ours[name].shape.tolist() == tensor.shape.tolist(), name
        assert np.array_equal(ours[name].data.view(np.uint8), tensor.data.view(np.uint8)), name
    mine, reference = fields(a), fields(b)
    assert mine.keys() - reference.keys() <= OURS
    assert reference.keys() - mine.keys() <= THEIRS
    differing = {k for k in mine.keys() & reference.keys() if mine[k] != reference[k]}
    assert differing <= VALUES, {k: (mine[k], reference[k]) for k in differing - VALUES}


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "gpt-2", "llama-spm", "deepseek-coder", "phi-3"])
def test_real_vocabularies_tokenize_as_recorded(name: str) -> None:
    path = SOURCE / "models" / f"ggml-vocab-{name}.gguf"
    texts = path.with_name(path.name + ".inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    lines = path.with_name(path.name + ".out").read_text(encoding="utf-8").splitlines()
    assert len(texts) == len(lines) > 40
    model = load_model(path, vocab_only=True)
    try:
        vocab = vocabulary(model)
        for text, line in zip(texts, lines, strict=True):
            assert tokenize(vocab, text) == [int(i) for i in line.split()], text
    finally:
        native.llama_model_free(model)
