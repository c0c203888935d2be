"""Loading and saving: adapters are merged into what was trained, and a saved folder opens anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bridge_edge.data.card import Card
from bridge_edge.embedded.tokenizer import train_tokenizer
from bridge_edge.errors import UserError
from bridge_edge.recipe_models import LoraSpec, ModelSpec
from bridge_edge.train.batches import Encoded
from bridge_edge.train.loop import Plan, train
from bridge_edge.train.models import load_model, load_tokenizer, locate, parameters, prepare, same_tokenizer, save_model
from tests import tiny

KINDS = ("qwen2", "qwen3", "llama", "gemma3")
IDS = torch.tensor([[5, 17, 99, 200, 31, 8]])


def trained(folder: str, lora: LoraSpec | None) -> Any:
    """A model after two steps, so that the adapters are no longer zero."""
    torch.manual_seed(0)
    model = prepare(folder, ModelSpec(model=folder, lora=lora))
    codes = np.array([0, 0, 1, 1, 2, 2], dtype=np.int8)
    rows = [Encoded(IDS[0].numpy().astype(np.int32) + i, codes) for i in range(8)]
    train(model, rows, Plan(1e-2, 2, 64, 64, "adamw", precision="fp32"), 0, lambda *_: None)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("lora", [None, LoraSpec(r=4, alpha=16, dropout=0.1)], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_says_what_the_trained_one_said(kind: str, lora: LoraSpec | None, tmp_path: Path) -> None:
    folder = str(tiny.checkpoint(tmp_path / "base", kind))
    before = logits(load_model(folder))
    model = trained(folder, lora)
    wanted = logits(model)
    assert not torch.allclose(wanted, before, atol=1e-2)
    card = Card("toy", answers=("yes", "no"))
    save_model(model, load_tokenizer(folder), tmp_path / "saved", card)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    torch.testing.assert_close(logits(plain), wanted, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(logits(load_model(str(tmp_path / "saved"))), wanted, atol=2e-3, rtol=1e-3)
    assert Card.load(tmp_path / "saved") == card
    assert same_tokenizer(load_tokenizer(str(tmp_path / "saved")), load_tokenizer(folder)) == ""
    assert not list((tmp_path / "saved").glob("adapter*"))
    assert not list((tmp_path / "saved").glob("*.bin"))
    text = (tmp_path / "saved" / "config.json").read_text() + (tmp_path / "saved" / "tokenizer_config.json").read_text()
    assert str(tmp_path) not in text  # equal work gives equal files wherever it was done
    assert "bridge_edge" not in text


def test_named_targets_train_only_those(tmp_path: Path) -> None:
    folder = str(tiny.checkpoint(tmp_path / "base", "qwen2"))
    model = prepare(folder, ModelSpec(model=folder, lora=LoraSpec(r=2, targets=("q_proj", "v_proj"))))
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all("lora" in n and ("q_proj" in n or "v_proj" in n) for n in names)


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "base", "llama")
    assert parameters(folder) == sum(p.numel() for p in load_model(str(folder)).parameters())


def test_embedded_models_are_found_and_share_a_tokenizer() -> None:
    assert Path(locate("embedded:ta")).is_dir()
    assert locate("owner/name") == "owner/name"
    with pytest.raises(UserError, match="did you mean 'embedded:student'"):
        locate("embedded:studnet")
    assert same_tokenizer(load_tokenizer("embedded:ta"), load_tokenizer("embedded:student")) == ""


def test_different_tokenizers_are_told_apart() -> None:
    one, two = tiny.tokenizer(), train_tokenizer(tiny.TEXTS, 320)
    assert "tokens" in same_tokenizer(one, two)
    other = train_tokenizer(["wholly other words make wholly other merges", *tiny.TEXTS[:1]], 330)
    assert same_tokenizer(one, other)
    assert same_tokenizer(one, tiny.tokenizer()) == ""


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "base", "qwen2")
    for load in (load_model, load_tokenizer):
        with pytest.raises(UserError) as caught:
            load(str(tmp_path / "nowhere"))
        assert "\n" not in str(caught.value)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(UserError, match="cannot load the model"):
        load_model(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load the model"):
        load_model(str(folder))


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "base", "qwen2")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(str(folder))


def test_code_in_a_model_folder_is_never_run(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "base", "qwen2")
    flag = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(flag)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError):
        load_model(str(folder))
    assert not flag.exists()
