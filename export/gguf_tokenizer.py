"""Write a Hugging Face tokenizer into GGUF metadata, and prove that llama.cpp tokenizes as the original does.

llama.cpp re-implements each pre-tokenizer under a name. The name is found from the split pattern in tokenizer.json,
never guessed from the architecture, and every export is then checked on a probe corpus: a wrong name or a lost
special token changes token ids and silently ruins a good model. Three families are covered: byte-level BPE, BPE with
byte fallback over "▁" (Gemma, Llama 2), and Unigram (`gguf_unigram.py`). Not covered: WordPiece.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from bridge_edge.errors import UserError
from bridge_edge.export.gguf_unigram import write_unigram
from bridge_edge.runtimes.gguf_header import EOS_KEY, FORMS, NORMALIZER_KEY, Form

_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2, LLAMA3 = _HEAD + r"\p{N}" + _TAIL, _HEAD + r"\p{N}{1,3}" + _TAIL

# (steps before the byte-level alphabet, ignore_merges) -> llama.cpp's name. "gpt2" is the byte level's own pattern.
PRE_TYPES: dict[tuple[tuple[str, ...], bool], str] = {
    ((QWEN2,), False): "qwen2",
    ((LLAMA3,), True): "llama-bpe",
    ((LLAMA3,), False): "dbrx",
    (("gpt2",), False): "gpt-2",
    (("digits", "gpt2"), False): "smollm",
}

PROBES = (
    "Hello, world! It's 9:45; they'll pay $1,234,567.89 by 2026-11-21.",
    "def f(x):\n\tif x >= 10:\n\t\treturn x ** 2  # square\n    else:\n        return {'a': [1, 2]}\n",
    "  two leading spaces,   three inside, trailing   \n\n\n  \t mixed\r\nline ends \u00a0nbsp",
    "Grüße aus Köln, déjà vu, señor, Žluťoučký kůň, Ελληνικά, Русский текст, İstanbul",
    "中文句子\uff0c没有空格。日本語のテキスト 한국어 문장 ไทย हिन्दी العربية עברית",
    "emoji 😀🎉👩‍👩‍👧 flags 🇩🇪 ½ ² ① ٣٤ Ⅷ math ∑∫√ arrows → ⇒",
    "I'M he'S WE'LL can't 'tis 'twas rock'n'roll O'Neil",
    "1 12 123 1234 12345 3.14159 0x1F 1e-5 -7 +8 50% #1",
    "CamelCase snake_case kebab-case https://example.org/a?b=c&d=%20 a@b.co",
    "",
    " ",
    "\n",
    "a",
)


class TokenMismatch(UserError):
    """The exported vocabulary tokenizes a text otherwise than the original."""


def spec(folder: Path) -> dict[str, Any]:
    """tokenizer.json as data."""
    path = folder / "tokenizer.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path} is missing or unreadable", "save the tokenizer with save_pretrained") from None
    kind = data.get("model", {}).get("type")
    if kind not in ("BPE", "Unigram"):
        raise UserError(
            f"tokenizer model {kind!r} cannot be exported to GGUF", "supported: BPE, Unigram; or export to onnx"
        )
    lacking = [key for key in (("vocab", "merges") if kind == "BPE" else ("vocab",)) if key not in data["model"]]
    if lacking:
        raise UserError(f"{path} has no model.{lacking[0]}", "save the tokenizer with save_pretrained")
    return dict(data)


def _steps(pre: dict[str, Any] | None) -> list[str]:
    """The pre-tokenizer as a list of comparable steps."""
    if pre is None:
        return []
    kind = pre["type"]
    if kind == "Sequence":
        return [step for part in pre["pretokenizers"] for step in _steps(part)]
    if kind == "ByteLevel":
        if pre.get("add_prefix_space"):
            return ["prefix space"]
        return ["gpt2"] if pre.get("use_regex", True) else []
    if kind == "Split" and pre.get("behavior") == "Isolated" and not pre.get("invert"):
        return [pre["pattern"].get("Regex", "")]
    if kind == "Digits":
        return ["digits" if pre.get("individual_digits") else "digit groups"]
    return [kind]


def pre_type(data: dict[str, Any]) -> str:
    """llama.cpp's name for a byte-level tokenizer's splitting; a UserError where it has none that is known here."""
    steps = tuple(_steps(data.get("pre_tokenizer")))
    name = PRE_TYPES.get((steps, bool(data["model"].get("ignore_merges"))))
    if name is None:
        known = ", ".join(sorted(PRE_TYPES.values()))
        raise UserError(
            f"the tokenizer's split pattern {' + '.join(steps)[:160]!r} has no known equivalent in llama.cpp",
            f"known: {known}; export to onnx, which keeps the tokenizer as it is",
        )
    return name


def _normal_form(data: dict[str, Any]) -> Form | None:
    """The Unicode normal form a byte-level tokenizer applies first, if any."""
    normalizer = data.get("normalizer")
    if normalizer and normalizer["type"] == "Sequence" and not normalizer["normalizers"]:
        normalizer = None
    if normalizer is None:
        return None
    for form in FORMS:
        if form == normalizer["type"]:
            return form
    raise UserError(f"the tokenizer's normalizer {normalizer['type']!r} cannot be expressed in GGUF", "export to onnx")


def _is_byte_fallback(data: dict[str, Any]) -> bool:
    return bool(data["model"].get("byte_fallback"))


def token_table(data: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Tokens by id with llama.cpp's types; ids of the embedding matrix beyond the tokenizer become unused fillers."""
    listed = data["model"]["vocab"]
    unigram = isinstance(listed, list)
    vocab = dict(enumerate(token for token, _ in listed)) if unigram else {int(i): t for t, i in listed.items()}
    kinds = dict.fromkeys(vocab, int(TokenType.NORMAL))
    if _is_byte_fallback(data):
        kinds.update({i: int(TokenType.BYTE) for i, t in vocab.items() if re.fullmatch(r"<0x[0-9A-F]{2}>", t)})
    for added in data.get("added_tokens", []):
        vocab[added["id"]] = added["content"]
        kinds[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    unknown_id = data["model"].get("unk_id") if unigram else listed.get(data["model"].get("unk_token"))
    if unknown_id is not None:
        kinds[unknown_id] = int(TokenType.UNKNOWN)
    if max(vocab) >= rows:
        raise UserError(
            f"the tokenizer has ids up to {max(vocab)} but the model only {rows} embeddings",
            "resize the model's embeddings to the tokenizer",
        )
    taken: set[str] = set()
    for text in vocab.values():
        if text in taken or "\0" in text:
            why = "contains a NUL" if "\0" in text else "stands there twice"
            raise UserError(f"the token {text[:40]!r} {why}, which llama.cpp cannot load", "export to onnx")
        taken.add(text)
    for i in range(rows):
        if i not in vocab:
            filler = f"[PAD{i}]"
            vocab[i] = filler if filler not in taken else f"[PAD{i}_]"
            kinds[i] = int(TokenType.UNUSED)
    return [vocab[i] for i in range(rows)], [kinds[i] for i in range(rows)]


def _merges(data: dict[str, Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]


def _scores(data: dict[str, Any], tokens: list[str]) -> list[float]:
    """SentencePiece scores that make llama.cpp merge in the order of the merge list."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(data["model"]["merges"]):
        pair = merge.split(" ", 1) if isinstance(merge, str) else merge
        rank.setdefault("".join(pair), i)
    return [-float(rank.get(token, len(rank))) for token in tokens]


def strip_generation(template: str) -> str:
    """A chat template without {% generation %} marks, which only training needs and llama.cpp cannot parse."""
    return re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", template)


def adds_bos(tokenizer: Any) -> bool:
    """Whether the original tokenizer really puts a BOS before text, by trying."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and bool(ids) and ids[0] == tokenizer.bos_token_id


def write_tokenizer(writer: GGUFWriter, folder: Path, tokenizer: Any, rows: int, eos_ids: Sequence[int]) -> None:
    """All tokenizer metadata of `folder` for a model with `rows` embeddings."""
    data = spec(folder)
    tokens, kinds = token_table(data, rows)
    if data["model"]["type"] == "Unigram":
        write_unigram(writer, data, rows)
    elif _is_byte_fallback(data):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(data, tokens))
        prefix = "Prepend" in json.dumps(data.get("normalizer")) or _has_metaspace(data)
        writer.add_add_space_prefix(prefix)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_type(data))
        writer.add_token_merges(_merges(data))
        form = _normal_form(data)
        if form:
            writer.add_string(NORMALIZER_KEY, form)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for name in ("bos", "eos", "unk", "pad", "sep", "mask"):
        token = getattr(tokenizer, f"{name}_token_id", None)
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    others = [i for i in sorted(eos_ids) if i != tokenizer.eos_token_id]
    if others:
        writer.add_eot_token_id(others[0])
    writer.add_string(EOS_KEY, json.dumps(sorted(eos_ids)))
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(strip_generation(tokenizer.chat_template))


def _has_metaspace(data: dict[str, Any]) -> bool:
    pre = data.get("pre_tokenizer") or {}
    return pre.get("type") == "Metaspace" and pre.get("prepend_scheme") in ("always", "first")


def probes(tokenizer: Any, extra: Sequence[str] = ()) -> list[str]:
    """The texts to compare: the fixed corpus, every added token in context, and `extra` (the user's prompts)."""
    specials = sorted({*map(str, tokenizer.all_special_tokens), *tokenizer.get_added_vocab()})
    framed = [f"{token}user\nHi{token}\n" for token in specials] + ["".join(specials)]
    return [*PROBES, *framed, *extra]


def verify_tokens(path: Path, folder: Path, tokenizer: Any, extra: Sequence[str] = ()) -> int:
    """Compare token ids of llama.cpp and the original on all probes; how many texts agreed, or TokenMismatch."""
    from bridge_edge.runtimes.llama_native import load_model, native, tokenize, vocabulary

    data = spec(folder)
    form = None if _is_byte_fallback(data) or data["model"]["type"] == "Unigram" else _normal_form(data)
    model = load_model(path, vocab_only=True)
    try:
        vocab = vocabulary(model)
        texts = probes(tokenizer, extra)
        for text in texts:
            if form:  # llama.cpp leaves normalisation to its caller
                text = unicodedata.normalize(form, text)
            wanted, got = list(tokenizer(text, add_special_tokens=False)["input_ids"]), tokenize(vocab, text)
            if wanted != got:
                at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), 0)
                raise TokenMismatch(
                    f"llama.cpp tokenizes {text!r} as {got[at : at + 4]}... where the original has "
                    f"{wanted[at : at + 4]}... (token {at})",
                    "this tokenizer cannot be exported to GGUF yet; export to onnx",
                )
    finally:
        native.llama_model_free(model)
    return len(texts)
