"""LoRA adapters beside their base: the same sum as peft's, exported whole; what is not merged here is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bridge_edge.errors import UserError
from bridge_edge.export.adapter import CONFIG, WEIGHTS, is_adapter, merge
from bridge_edge.shipping import ExportOptions, export_to
from tests import tiny


def adapter(place: Path, root: bool = False) -> Path:
    """A random adapter of every linear layer, beside its base."""
    base = tiny.checkpoint(place / "base", "llama")
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", use_rslora=root, task_type="CAUSAL_LM")
    whole: Any = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(whole, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros at first
            parameter.data = 0.2 * torch.randn_like(parameter)
    model.save_pretrained(str(place / "adapter"))
    return place / "adapter"


@pytest.mark.parametrize("root", [False, True])
def test_the_sum_is_pefts(root: bool, tmp_path: Path) -> None:
    folder = adapter(tmp_path, root)
    assert is_adapter(folder)
    assert not is_adapter(tmp_path / "base")
    found = load_file(merge(folder, tmp_path / "out") / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")
    original: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    wanted = PeftModel.from_pretrained(original, folder).merge_and_unload().state_dict()
    changed = 0
    for name, weight in found.items():
        assert torch.allclose(weight, wanted[name], atol=1e-5), name
        changed += not torch.equal(weight, base[name])
    assert changed == 2 * 7


def test_an_adapter_exports_as_a_checkpoint_does(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (made,) = export_to(folder, ["gguf"], ExportOptions(quant="F16", items=20), None, 1)
    assert made["parity"]["passed"]
    assert Path(made["path"]).parent == tmp_path / "export" / "gguf-f16"
    again = export_to(folder, ["gguf"], ExportOptions(quant="F16", items=20), None, 1)
    assert again[0]["path"] == made["path"]


Change = Callable[[Path], object]


def setting(**values: object) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **values}))

    return change


def factors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        edit(tensors)
        save_file(tensors, folder / WEIGHTS)

    return change


UP = "base_model.model.model.layers.1.mlp.up_proj.lora_"

FAR = UP.replace(".1.", ".7.")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (setting(peft_type="IA3"), "has peft_type 'IA3'"),
        (setting(use_dora=True), "has use_dora True"),
        (setting(bias="all"), "has bias 'all'"),
        (setting(modules_to_save=["lm_head"]), "has modules_to_save"),
        (setting(lora_alpha="much"), "is not usable"),
        (setting(lora_alpha=float("nan")), "lora_alpha is nan"),
        (setting(base_model_name_or_path="someone/model"), "base model 'someone/model' is no folder here"),
        (setting(base_model_name_or_path=None), "base_model_name_or_path None"),
        (lambda f: (f / CONFIG).write_text("["), "is not usable"),
        (lambda f: (f / WEIGHTS).unlink(), "cannot read"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n."), "cannot read"),
        (factors(lambda t: t.pop(f"{UP}A.weight")), "do not fit the base model"),
        (factors(lambda t: t.update({f"{UP}A.weight": torch.ones(3, 64)})), "do not fit each other"),
        (factors(lambda t: t.update({f"{UP}B.weight": torch.ones(9, 4)})), "do not fit the base model"),
        (factors(lambda t: t.update({f"{UP}B.weight": torch.ones(128)})), "do not fit the base model"),
        (
            factors(lambda t: t.update({f"{UP}A.weight": torch.ones(0, 64), f"{UP}B.weight": torch.ones(128, 0)})),
            "do not fit each other",
        ),
        (
            factors(lambda t: t.update({f"{FAR}A.weight": torch.ones(4, 64)})),
            "lacks 'model.layers.7",
        ),
        (factors(lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(4, 4)})), "no factor"),
    ],
)
def test_what_is_not_merged_is_refused(change: Change, match: str, sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in (CONFIG, WEIGHTS):
        (folder / file).write_bytes((sound / file).read_bytes())
    change(folder)
    with pytest.raises(UserError, match=match):
        export_to(folder, ["gguf"], ExportOptions(quant="F16"), None, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
