"""Against llama.cpp's own converter and vocabularies, which the source distribution of llama-cpp-python holds.

    pip download llama-cpp-python==0.3.36 --no-deps --no-binary llama-cpp-python && tar xzf llama_cpp_python-*.tar.gz
    BRIDGE_EDGE_LLAMA_CPP=FOLDER/vendor/llama.cpp python -m pytest tests/export/test_outside_reference.py

Skipped where that folder is not named. The converter knows tokenizers by a hash and so refuses ours; it is told the
pre-tokenizer's name and does all the rest itself. For Gemma and ERNIE it wants a SentencePiece model, which is written
here with the vocabulary of tokenizer.json and read by the package sentencepiece (skipped where that is missing).
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.runtimes.llama_native import load_model, native, tokenize, vocabulary
from tests import tiny
from tests.export.test_gguf import byte_fallback

SOURCE = Path(os.environ.get("BRIDGE_EDGE_LLAMA_CPP", "")).absolute()
CONVERTER = SOURCE / "convert_hf_to_gguf.py"
pytestmark = pytest.mark.skipif(not CONVERTER.is_file(), reason="BRIDGE_EDGE_LLAMA_CPP names no llama.cpp source")

DRIVER = """
import runpy, sys, types
source, pre = sys.argv[1:3]
sys.path[:0] = [source, source + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
if pre:  # otherwise there is a tokenizer.model
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
    *(
        f"{kind}.{k}"
        for kind in ("qwen2", "qwen3", "gemma3", "ernie4_5")
        for k in ("rope.dimension_count", "vocab_size")
    ),
    "gemma3.rope.freq_base_swa",
    "tokenizer.ggml.add_space_prefix",  # for ERNIE the converter writes it only where tokenizer_config.json names it
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


def fields(reader: GGUFReader) -> dict[str, Any]:
    return {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def convert(folder: Path, pre: str, quant: str) -> GGUFReader:
    """llama.cpp's own conversion of a checkpoint."""
    theirs = folder.with_name("theirs.gguf")
    words = [str(SOURCE), pre, str(folder), "--outfile", str(theirs), "--outtype", quant.lower()]
    done = subprocess.run([sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, check=False)
    assert theirs.is_file(), done.stderr[-2000:]
    return GGUFReader(theirs)


def same_tensors(a: GGUFReader, b: GGUFReader) -> None:
    ours, wanted = ({t.name: t for t in reader.tensors} for reader in (a, b))
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert ours[name].tensor_type == tensor.tensor_type, name
        assert ours[name].shape.tolist() == tensor.shape.tolist(), name
        assert np.array_equal(ours[name].data.view(np.uint8), tensor.data.view(np.uint8)), name


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_bit_equal_and_metadata_agrees(kind: str, quant: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind)
    write_gguf(folder, tmp_path / "ours.gguf", quant, "m")
    a, b = GGUFReader(tmp_path / "ours.gguf"), convert(folder, "qwen2", quant)
    same_tensors(a, b)
    mine, reference = fields(a), fields(b)
    assert mine.keys() - reference.keys() <= OURS
    assert reference.keys() - mine.keys() <= THEIRS
    differing = {k for k in mine.keys() & reference.keys() if mine[k] != reference[k]}
    assert differing <= VALUES, {k: (mine[k], reference[k]) for k in differing - VALUES}


def sentencepiece_model(folder: Path, reader: GGUFReader) -> None:
    """tokenizer.model with the vocabulary of tokenizer.json, in the order of its merges."""
    pytest.importorskip("sentencepiece", reason="these converters read tokenizer.model with sentencepiece")
    form: Any = importlib.import_module("transformers.utils.sentencepiece_model_pb2_new")
    kinds = {1: "NORMAL", 2: "UNKNOWN", 3: "CONTROL", 4: "USER_DEFINED", 6: "BYTE"}
    model = form.ModelProto()
    model.trainer_spec.model_type = form.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    mine = fields(reader)
    rows = zip(*(mine[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type")), strict=True)
    for text, score, kind in rows:
        if kind in kinds:  # rows beyond the tokenizer are padding of the embedding
            model.pieces.add(piece=text, score=score, type=getattr(form.ModelProto.SentencePiece, kinds[kind]))
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("kind", ["gemma3", "ernie"])
def test_families_with_sentencepiece_are_converted_alike(kind: str, quant: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind, tok=byte_fallback(), eos_token_id=1)
    write_gguf(folder, tmp_path / "ours.gguf", quant, "m")
    a = GGUFReader(tmp_path / "ours.gguf")
    sentencepiece_model(folder, a)
    b = convert(folder, "", quant)
    same_tensors(a, b)
    mine, reference = fields(a), fields(b)
    used = [kind != 5 for kind in mine["tokenizer.ggml.token_type"]]
    for side in (mine, reference):  # nobody reads the scores of padding, which the two number differently
        scores = side["tokenizer.ggml.scores"]
        side["tokenizer.ggml.scores"] = [s for s, u in zip(scores, used, strict=True) if u]
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
