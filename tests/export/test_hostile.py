"""Malformed checkpoints and files: a clear UserError each, no crash, nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError
from bridge_edge.export.api import export_student
from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.runtimes.gguf_runtime import GGUFRuntime
from tests import tiny

WEIGHTS = "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"
Change = Callable[[Path], None]


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        edit(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def file(name: str, data: bytes | None) -> Change:
    """A file with other contents, or without it."""

    def change(folder: Path) -> None:
        if data is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(data)

    return change


def cut(name: str, keep: int) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:keep])

    return change


def twice(folder: Path) -> None:
    save_file({UP: load_file(folder / WEIGHTS)[UP]}, folder / "stale.safetensors", metadata={"format": "pt"})


def tokenizer(edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))

    return change


def added(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True, **flags}


def template(text: str) -> Change:
    return file("chat_template.jinja", text.encode())


def beyond(folder: Path) -> None:
    """An added token whose id the embedding lacks."""
    tokenizer(lambda d: d["added_tokens"].append(added("<far>", 5000)))(folder)


def spoil(name: str, value: float) -> Change:
    return weights(lambda t: t[name].view(-1)[7:8].fill_(value))


TABLE: dict[str, tuple[Change, str]] = {
    "weights cut short": (cut(WEIGHTS, 5000), "cannot be read"),
    "weights cut in the header": (cut(WEIGHTS, 60), "cannot be read"),
    "weights empty": (cut(WEIGHTS, 0), "cannot be read"),
    "header length of exabytes": (file(WEIGHTS, b"\xff" * 8 + b"{}"), "cannot be read"),
    "header is no JSON": (file(WEIGHTS, (4).to_bytes(8, "little") + b"oops"), "cannot be read"),
    "weights are a pickle": (file(WEIGHTS, b"\x80\x04cos\nsystem\n."), "cannot be read"),
    "no weights": (file(WEIGHTS, None), "not a checkpoint"),
    "a missing matrix": (weights(lambda t: t.pop(UP)), "lacks the tensor 'model.layers.1.mlp.up_proj.weight'"),
    "a missing norm": (weights(lambda t: t.pop("model.norm.weight")), "lacks the tensor 'model.norm.weight'"),
    "a missing bias": (weights(lambda t: t.pop("model.layers.0.self_attn.q_proj.bias")), "lacks the tensor"),
    "a transposed matrix": (weights(lambda t: t.update({UP: t[UP].T.contiguous()})), "has the shape"),
    "a matrix cut": (weights(lambda t: t.update({UP: t[UP][:5].contiguous()})), "has the shape"),
    "a vector for a matrix": (weights(lambda t: t.update({UP: t[UP].reshape(-1).clone()})), "has the shape"),
    "a tensor of another model": (weights(lambda t: t.update({"visual.patch": torch.ones(4, 4)})), "has no place"),
    "a tensor in two files": (twice, "lies in two files"),
    "NaN in a matrix": (spoil(UP, float("nan")), "not finite"),
    "infinity in a norm": (spoil("model.norm.weight", float("inf")), "not finite"),
    "infinity in the embedding": (spoil("model.embed_tokens.weight", -float("inf")), "not finite"),
    "no config": (file("config.json", None), "not a checkpoint"),
    "config is no JSON": (file("config.json", b"{model"), "cannot read"),
    "config is a list": (file("config.json", b"[]"), "cannot read"),
    "config is not text": (file("config.json", b"\xff\xfe\x00"), "cannot read"),
    "unknown family": (config(model_type="mistral"), "unknown model_type for GGUF"),
    "a family with other settings": (config(model_type="mamba"), "cannot read"),
    "invented family": (config(model_type="nosuch"), "cannot read"),
    "code from the folder": (config(model_type="mine", auto_map={"AutoConfig": "evil.Config"}), "cannot read"),
    "no heads": (config(num_attention_heads=0), "config.json"),
    "negative width": (config(hidden_size=-64), "config.json"),
    "width as text": (config(hidden_size="64"), "config.json"),
    "more layers than weights": (config(num_hidden_layers=3, layer_types=["full_attention"] * 3), "lacks the tensor"),
    "a billion layers": (config(num_hidden_layers=10**9, layer_types=None), "asks for 1000000000 layers"),
    "layers as text": (config(num_hidden_layers="2"), "asks for '2' layers"),
    "thousands of layers": (config(num_hidden_layers=9000, layer_types=None), "asks for 9000 layers"),
    "another vocabulary": (config(vocab_size=400), "has the shape"),
    "another head count": (config(num_key_value_heads=4), "has the shape"),
    "a context beyond counting": (
        config(max_position_embeddings=10**18),
        "max_position_embeddings 1000000000000000000",
    ),
    "a negative context": (config(max_position_embeddings=-5), "max_position_embeddings -5"),
    "a norm of NaN": (config(rms_norm_eps=float("nan")), "holds NaN"),
    "a norm without end": (config(rms_norm_eps=float("inf")), "holds Infinity"),
    "a rotation by nothing": (config(rope_parameters={"rope_type": "default", "rope_theta": 0}), "not finite"),
    "the activation of another family": (config(hidden_act="gelu_pytorch_tanh"), "supported: silu"),
    "weights that are quantised already": (config(quantization_config={"quant_method": "gptq"}), "already .'gptq'"),
    "an end token below nothing": (config(eos_token_id=-7), "names the end token -7"),
    "an end token beyond the vocabulary": (config(eos_token_id=[2, 384]), "end token 384; the vocabulary has 384"),
    "an end token as text": (file("generation_config.json", b'{"eos_token_id": "x"}'), "names the end token 'x'"),
    "unknown rope": (config(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), "spiral|rope"),
    "unknown activation": (config(hidden_act="sine"), "sine"),
    "an added token beyond the embedding": (beyond, "ids up to 5000 but the model only"),
    "an added token that is there already": (
        tokenizer(lambda d: d["added_tokens"].append(added("a", 350))),
        "token 'a' stands there twice",
    ),
    "a token with a NUL": (tokenizer(lambda d: d["added_tokens"].append(added("a\0b", 350))), "contains a NUL"),
    "a tokenizer without merges": (tokenizer(lambda d: d["model"].pop("merges")), "has no model.merges"),
    "a name without end": (weights(lambda t: t.update({"x" * 5000: torch.ones(2)})), "a tensor name of 5000"),
    "no tokenizer": (file("tokenizer.json", None), "tokenizer"),
    "tokenizer cut short": (cut("tokenizer.json", 900), "tokenizer"),
    "tokenizer empty": (file("tokenizer.json", b"{}"), "tokenizer"),
    "tokenizer of another kind": (
        tokenizer(lambda d: d.update(model={"type": "WordLevel", "vocab": {"a": 0, "<u>": 1}, "unk_token": "<u>"})),
        "tokenizer model 'WordLevel'",
    ),
    "unknown split pattern": (
        tokenizer(lambda d: d.update(pre_tokenizer={"type": "Whitespace"})),
        "split pattern",
    ),
    "unknown normalizer": (tokenizer(lambda d: d.update(normalizer={"type": "Lowercase"})), "normalizer 'Lowercase'"),
    "no template": (file("chat_template.jinja", None), "no chat template"),
    "template with a fault": (template("{% for m in messages %}"), "template"),
    "template that raises": (template("{{ raise_exception('no') }}"), "template"),
    "template that reaches out": (template("{{ ''.__class__.__mro__ }}"), "template"),
    "template that divides by zero": (template("{{ 1 // 0 }}"), "template"),
    "card is no JSON": (file("bridge_edge.json", b"{"), "task card is damaged"),
    "card of another kind": (file("bridge_edge.json", b'{"recipe": "x", "answers": [1]}'), "wrong kind"),
    "card with a hostile prompt": (file("bridge_edge.json", b'{"recipe": "x", "prompt": "{a"}'), "task card"),
    "card that asks for everything": (
        file("bridge_edge.json", b'{"recipe": "x", "max_new_tokens": 1e99}'),
        "wrong kind",
    ),
    "generation config is no JSON": (file("generation_config.json", b"{"), "generation_config.json"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny.checkpoint(tmp_path_factory.mktemp("sound") / "m")
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("name", TABLE)
def test_a_malformed_checkpoint_is_refused(name: str, sound: dict[str, bytes], tmp_path: Path) -> None:
    change, match = TABLE[name]
    folder = tmp_path / "m"
    folder.mkdir()
    for part, data in sound.items():
        (folder / part).write_bytes(data)
    change(folder)
    with pytest.raises(UserError, match=match) as caught:
        export_student(folder, tmp_path / "out", "gguf", "Q8_0", tiny.PROMPTS, 1)
    assert caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_the_sound_checkpoint_of_the_table_exports(sound: dict[str, bytes], tmp_path: Path) -> None:
    """Without this every line above could fail for a reason of its own."""
    folder = tmp_path / "m"
    folder.mkdir()
    for part, data in sound.items():
        (folder / part).write_bytes(data)
    assert export_student(folder, tmp_path / "out", "gguf", "Q8_0", tiny.PROMPTS, 1).parity["passed"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tiny.checkpoint(tmp_path_factory.mktemp("exported") / "m")
    write_gguf(folder, folder / "m.gguf", "F16", "toy")
    return (folder / "m.gguf").read_bytes()


CARD = Card(recipe="toy", prompt="{text}", answers=("yes", "no"), max_new_tokens=8).dumps().encode()
HOSTILE: dict[str, tuple[bytes, bytes, str]] = {
    "card is no JSON": (CARD, b"{" * len(CARD), "task card is damaged"),
    "card of another kind": (CARD, b'"' + b"x" * (len(CARD) - 2) + b'"', "task card is damaged"),
    "end token that it lacks": (b"eos_token_ids" + b"\x08\0\0\0\x03\0\0\0\0\0\0\0[2]", b"[9]", "sound"),
    "end tokens are no list": (b"eos_token_ids" + b"\x08\0\0\0\x03\0\0\0\0\0\0\0[2]", b"nul", "end tokens 'nul'"),
    "end token is text": (b"eos_token_ids" + b"\x08\0\0\0\x03\0\0\0\0\0\0\0[2]", b'"a"', "end tokens"),
    "end token is negative": (b"eos_token_ids" + b"\x08\0\0\0\x03\0\0\0\0\0\0\0[2]", b"-1 ", "end tokens"),
    "another architecture": (b"\x05\0\0\0\0\0\0\0qwen2", b"zwen2", "cannot load"),
    "unknown vocabulary kind": (b"\x04\0\0\0\0\0\0\0gpt2", b"gpt9", "cannot load"),
    "a tensor renamed": (b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight", "cannot load"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_metadata_is_refused(name: str, exported: bytes, tmp_path: Path) -> None:
    old, new, match = HOSTILE[name]
    assert old in exported
    changed = exported.replace(old, old[: len(old) - len(new)] + new, 1)
    assert len(changed) == len(exported)
    (tmp_path / "m.gguf").write_bytes(changed)
    if match == "sound":  # [9] is an id of this vocabulary: the table's only line that must open
        GGUFRuntime(tmp_path / "m.gguf", 1).close()
        return
    with pytest.raises(UserError, match=match):
        GGUFRuntime(tmp_path / "m.gguf", 1)
