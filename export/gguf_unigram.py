"""Unigram tokenizers (SentencePiece's other kind: T5, XLM-R, ALBERT) as GGUF metadata.

llama.cpp has them under the name "t5": a score a token, the best path through the text, SentencePiece's own table of
characters to normalise. What it does beyond that is fixed, so a tokenizer that normalises or splits in another way is
refused here, by name; the probe corpus then tells whether the ids are really equal. Not covered: byte fallback, which
llama.cpp has not for this kind.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from gguf import GGUFWriter

from bridge_edge.errors import UserError

BLANK = "\u2581"  # how SentencePiece writes a blank


def _steps(part: dict[str, Any] | None, inner: str) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences within sequences too."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for step in part[inner]:
            yield from _steps(step, inner)
    else:
        yield part


def _refuse(what: str, value: object) -> UserError:
    return UserError(f"the tokenizer's {what} {str(value)[:120]} cannot be expressed in GGUF", "export to onnx")


def _merges_blanks(step: dict[str, Any]) -> bool:
    """Whether a Replace step turns several blanks into one."""
    return step["pattern"] in ({"Regex": " {2,}"}, {"Regex": " +"}) and step["content"] in (" ", BLANK)


def write_unigram(writer: GGUFWriter, data: dict[str, Any], count: int) -> None:
    """The tokenizer of tokenizer.json `data` for a table of `count` tokens, whose texts the caller writes."""
    if data["model"].get("byte_fallback"):
        raise _refuse("model", "Unigram with byte fallback")
    charsmap, merged = b"", False
    for step in _steps(data.get("normalizer"), "normalizers"):
        if step["type"] == "Precompiled" and not charsmap:
            charsmap = base64.b64decode(step["precompiled_charsmap"] or "")
        elif step["type"] == "Replace" and _merges_blanks(step):
            merged = True
        elif step["type"] != "Strip":  # llama.cpp drops blanks at the ends together with the doubled ones
            raise _refuse("normalizer", step)
    prefix = False
    for step in _steps(data.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "WhitespaceSplit":
            merged = True
        elif step["type"] == "Metaspace" and step["replacement"] == BLANK:
            prefix = step.get("prepend_scheme", "always") != "never"
        else:
            raise _refuse("pre-tokenizer", step)
    scores = [float(score) for _, score in data["model"]["vocab"]]
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores(scores[:count] + [0.0] * (count - len(scores)))
    writer.add_add_space_prefix(prefix)
    writer.add_remove_extra_whitespaces(merged)
    if charsmap:
        writer.add_precompiled_charsmap(charsmap)
