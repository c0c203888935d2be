"""optimum-onnx in another environment: what it is told, what is said where it is missing, and that nothing is left.

The last part needs that environment (export/README.md says how it is made) and compares every family:

    BRIDGE_EDGE_OPTIMUM=FOLDER python -m pytest tests/export/test_optimum.py
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bridge_edge import doctor
from bridge_edge.errors import UserError
from bridge_edge.export import onnx_exporter, onnx_optimum, optimum_env
from bridge_edge.export.api import export_student
from bridge_edge.export.checkpoint import read_config
from bridge_edge.export.onnx_export import backend, make_onnx
from bridge_edge.export.onnx_graph import fallbacks
from bridge_edge.export.onnx_types import model_file
from bridge_edge.export.optimum_config import older
from bridge_edge.export.wish import Backend, Blocks, Wish
from bridge_edge.runtimes.load import load_runtime
from tests import tiny
from tests.export import test_onnx_exporter as families
from tests.test_cli import call

NEAR, FAR = 10_000.0, 700_000.0
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
ENVIRONMENT = os.environ.get("BRIDGE_EDGE_OPTIMUM")
there = pytest.mark.skipif(not ENVIRONMENT, reason="BRIDGE_EDGE_OPTIMUM names no environment with optimum-onnx")
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in for a Python is a shell script")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No environment is named, and none lies at the usual place, which is returned."""
    monkeypatch.delenv(optimum_env.VARIABLE, raising=False)
    monkeypatch.setenv("BRIDGE_EDGE_HOME", str(tmp_path / "my home"))
    return tmp_path / "my home" / "optimum"


def script(path: Path, body: str) -> Path:
    """A program in the place of a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def told(kind: str, **changes: Any) -> dict[str, Any]:
    return older(AutoConfig.for_model(kind, **changes).to_dict())


def test_the_base_of_rope_is_handed_on() -> None:
    config = told("llama", rope_theta=FAR)
    assert (config["rope_theta"], config["rope_scaling"]) == (FAR, None)
    assert "rope_parameters" not in config
    config = told("llama", rope_theta=FAR, rope_scaling=dict(LLAMA3))
    assert (config["rope_theta"], config["rope_scaling"]) == (FAR, LLAMA3)


def test_each_family_has_its_own_names() -> None:
    neox = told("gpt_neox", rotary_emb_base=FAR, rotary_pct=0.5)
    assert (neox["rotary_emb_base"], neox["rotary_pct"]) == (FAR, 0.5)
    phi = told("phi", rope_theta=FAR, partial_rotary_factor=0.5)
    assert (phi["rope_theta"], phi["partial_rotary_factor"]) == (FAR, 0.5)
    gemma = told("gemma3_text", rope_theta=FAR, rope_local_base_freq=3e4)
    assert (gemma["rope_theta"], gemma["rope_local_base_freq"], gemma["rope_scaling"]) == (FAR, 3e4, None)
    assert told("gpt2", n_embd=64)["n_embd"] == 64


def test_what_names_code_or_places_is_not_handed_on() -> None:
    config = AutoConfig.for_model("llama", dtype="float16").to_dict()
    made = older({**config, "_name_or_path": "/home/me", "auto_map": {"AutoConfig": "evil.Config"}})
    assert made["torch_dtype"] == "float16"
    assert not {"dtype", "auto_map", "_name_or_path"} & set(made)
    json.dumps(made)


def test_rope_without_older_words_is_refused() -> None:
    default = {"rope_type": "default", "rope_theta": NEAR}
    other: list[dict[str, Any]] = [
        {"full_attention": default, "sliding_attention": {**default, "rope_type": "linear", "factor": 2.0}},
        {"full_attention": default, "chunked_attention": default},
        {"first": default},
    ]
    for rope in other:
        with pytest.raises(UserError, match="no words for the RoPE of this toy model"):
            older({"model_type": "toy", "rope_parameters": rope})


def test_where_there_is_none_the_commands_are_said(nowhere: Path) -> None:
    with pytest.raises(UserError) as caught:
        optimum_env.find()
    place = shlex.quote(str(nowhere))
    assert f"python3 -m venv {place} && " in caught.value.hint
    assert f"install -r {shlex.quote(str(optimum_env.PINS))}" in caught.value.hint
    assert len(str(caught.value).splitlines()) == 1
    assert doctor.check_optimum().status == "ok"


def test_the_pins_are_those_of_one_environment() -> None:
    pins = dict(line.split("==") for line in optimum_env.PINS.read_text().splitlines() if "==" in line)
    assert {"torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime"} <= set(pins)
    assert [int(part) for part in pins["transformers"].split(".")[:2]] < [4, 58]


@posix
def test_the_option_goes_before_the_variable_and_that_before_the_usual_place(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = script(nowhere / "bin" / "python", "exit 0")
    named = script(tmp_path / "named" / "bin" / "python", "exit 0")
    assert optimum_env.find() == usual
    monkeypatch.setenv(optimum_env.VARIABLE, str(tmp_path / "named"))
    assert optimum_env.find() == named
    assert optimum_env.find(usual) == usual
    monkeypatch.setenv(optimum_env.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(UserError, match="which BRIDGE_EDGE_OPTIMUM names; make one with"):
        optimum_env.find()
    assert doctor.check_optimum().status == "warn"
    with pytest.raises(UserError, match="which --optimum-python names"):
        optimum_env.find(tmp_path)


@posix
def test_it_is_called_apart_and_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    python = script(tmp_path / "python", f'echo "$@" >{tmp_path}/words; env >{tmp_path}/env; echo \'{{"torch": "2"}}\'')
    assert optimum_env.call(python, "a", "b") == {"torch": "2"}
    assert (tmp_path / "words").read_text().split() == ["-I", str(optimum_env.RUNNER), "a", "b"]
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert (environment["HF_HUB_OFFLINE"], environment["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert "hf_secret" not in environment.values()
    assert not Path(environment["HF_HOME"]).exists()


@posix
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo noise >&2; echo it lacks onnx >&2; exit 3", "cannot export: it lacks onnx; make one with: python3 -m"),
        ("echo hello", "is not a Python that can export; make one with"),
        ("echo noise >&2; echo ValueError: no >&2; exit 1", "optimum-onnx failed: ValueError: no; leave --backend out"),
        ("kill -9 $$", "killed by signal 9, perhaps for want of memory"),
        ("exit 7", "optimum-onnx failed: it ended with code 7"),
    ],
)
def test_a_broken_environment_is_one_line(body: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        optimum_env.call(script(tmp_path / "python", body))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    if "ValueError" in body:
        assert "noise" in str(caught.value.__cause__)


def test_what_is_no_program_is_said(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("no program")
    with pytest.raises(UserError, match="cannot be run: Permission denied"):
        optimum_env.call(tmp_path / "python")


def test_this_environment_is_not_fit() -> None:
    """It has transformers 5: the script itself says so, in its own process."""
    with pytest.raises(UserError, match=r"cannot export: it (lacks optimum-onnx|has transformers 5)"):
        optimum_env.call(Path(sys.executable))


@posix
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.checkpoint(tmp_path / "m", "llama")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    half = f'mkdir -p "$5"; echo half >"$5"/{onnx_optimum.MADE}; echo no room >&2; exit 1'
    wish = Wish(backend=Backend("optimum", script(tmp_path / "python", half)))
    with pytest.raises(UserError, match="no room"):
        export_student(folder, tmp_path / "out", "onnx", "fp32", tiny.PROMPTS, 1, wish)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "python", "temporary"]
    assert not list((tmp_path / "temporary").iterdir())


def test_who_makes_the_graph() -> None:
    def of(name: str, asked: str) -> str:
        kinds = {"LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2", "BloomForCausalLM": "bloom"}
        return backend(AutoConfig.for_model(kinds[name], architectures=[name]), asked)

    assert [of("LlamaForCausalLM", name) for name in ("auto", "builder", "optimum")] == [
        "builder",
        "builder",
        "optimum",
    ]
    assert [of("GPT2LMHeadModel", name) for name in ("auto", "exporters")] == ["exporters", "exporters"]
    refused = {
        ("GPT2LMHeadModel", "builder"): "unknown architecture for builder 'GPT2LMHeadModel'",
        ("LlamaForCausalLM", "exporters"): "unknown architecture for exporters",
        ("BloomForCausalLM", "auto"): "unknown architecture for ONNX",
        ("LlamaForCausalLM", "olive"): "unknown ONNX backend 'olive'",
    }
    for (name, asked), said in refused.items():
        with pytest.raises(UserError, match=said):
            of(name, asked)


def test_a_graph_of_another_rope_is_refused(tmp_path: Path) -> None:
    """What would happen had the base of RoPE been lost: the same weights with another one."""
    sizes = families.EXPORTER["gpt_neox"]
    near, far = (
        families.checkpoint(tmp_path / name, "gpt_neox", rotary_emb_base=base, rotary_pct=1.0, **sizes)
        for name, base in (("near", NEAR), ("far", FAR))
    )
    onnx_exporter.build(far, tmp_path / "made", onnx_optimum.MADE, "fp32", Blocks())
    graph = tmp_path / onnx_optimum.MADE
    onnx.save(onnx.load(tmp_path / "made" / onnx_optimum.MADE), graph)
    onnx_optimum._check_same(graph, far, read_config(far))
    with pytest.raises(UserError, match="computes something else than the checkpoint"):
        onnx_optimum._check_same(graph, near, read_config(near))
    graph.write_bytes(b"no graph")
    with pytest.raises(UserError, match="cannot be run"):
        onnx_optimum._check_same(graph, far, read_config(far))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "onnx", "--backend", "optimum"), "make it with: python3 -m venv"),
        (("--format", "onnx", "--backend", "optimum", "--optimum-python", "gone"), "no Python at 'gone'"),
        (("--backend", "optimum"), "backends are for ONNX; add --format onnx"),
        (("--format", "onnx", "--optimum-python", "x"), "add --backend optimum"),
        (("--format", "onnx", "--backend", "olive"), "'olive' is not one of 'auto', 'builder'"),
        (("--format", "onnx", "--backend", "exporters"), "unknown architecture for exporters 'Qwen2ForCausalLM'"),
    ],
)
def test_bad_words_leave_nothing(
    words: tuple[str, ...],
    said: str,
    nowhere: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, out = tiny.checkpoint(tmp_path / "m"), tmp_path / "out"
    code, _, err = call(capsys, monkeypatch, "export", str(folder), "--out", str(out), *words)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert len(err.strip().splitlines()) <= 2
    assert not out.exists() or not any(out.iterdir())


# kind -> what differs from the defaults: RoPE has another base wherever there is one
ROPE: dict[str, dict[str, Any]] = {
    "codegen": {},
    "gemma3": {"rope_theta": FAR, "rope_local_base_freq": 3e4},
    "gpt2": {},
    "gpt_neox": {"rotary_emb_base": FAR, "rotary_pct": 0.5},
    "llama": {"rope_theta": FAR, "rope_scaling": LLAMA3},
    "opt": {},
    "phi": {"rope_theta": FAR, "num_key_value_heads": 4},  # optimum makes a cache of all heads for it
    **{kind: {"rope_theta": FAR} for kind in ("granite", "mistral", "olmo", "olmo2", "phi3", "qwen2", "qwen3")},
    **{kind: {"rope_theta": FAR} for kind in ("smollm3", "stablelm")},
}
BY = Backend("optimum", Path(ENVIRONMENT) if ENVIRONMENT else None)


def checkpoint(folder: Path, kind: str) -> Path:
    make = families.checkpoint if kind in families.EXPORTER or kind in families.BUILDER else tiny.checkpoint
    return make(folder, kind, **deepcopy(ROPE[kind]))  # transformers writes into what it is given


def test_every_family_is_compared() -> None:
    names = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["gemma3_text" if kind == "gemma3" else kind] for kind in ROPE]
    assert set(names) == set(onnx_optimum.FAMILIES)


@there
@pytest.mark.parametrize("kind", sorted(ROPE))
def test_the_graph_is_the_model(kind: str, tmp_path: Path) -> None:
    folder, out = checkpoint(tmp_path / "m", kind), tmp_path / "out"
    out.mkdir()
    make_onnx(folder, out, "fp32", Blocks(), BY)
    ours, wanted = load_runtime(out, 1), load_runtime(folder, 1)
    np.testing.assert_allclose(ours.logits(families.IDS), wanted.logits(families.IDS), atol=2e-4)
    for prompt in tiny.PROMPTS:
        ids = wanted.chat(prompt)
        assert ours.chat(prompt) == ids
        assert list(ours.stream(ids, 12)) == list(wanted.stream(ids, 12))


@there
@pytest.mark.parametrize(("kind", "bits"), [("llama", 4), ("gemma3", 8), ("gpt2", 4)])
def test_all_its_products_come_in_blocks(kind: str, bits: int, tmp_path: Path) -> None:
    folder, precision = checkpoint(tmp_path / "m", kind), f"int{bits}"
    wish = Wish(blocks=Blocks(size=16), backend=BY)
    made = export_student(folder, tmp_path / "out", "onnx", precision, tiny.PROMPTS, 1, wish)
    assert (made.backend, made.parity["passed"]) == ("optimum", True)
    assert "graph made by optimum-onnx" in (made.path / "README.md").read_text()
    graph = made.path / model_file(precision)
    assert not [name for name in fallbacks(graph, bits) if "MatMul" in name]
    kinds = [node.op_type for node in onnx.load(graph, load_external_data=False).graph.node]
    assert "MatMulNBits" in kinds
    assert "Gemm" not in kinds


@there
def test_an_untranslated_config_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 4 takes config.json as version 5 wrote it, and computes with the usual base."""
    folder = checkpoint(tmp_path / "m", "qwen2")
    monkeypatch.setattr(onnx_optimum, "older", lambda config: config)
    with pytest.raises(UserError, match="computes something else than the checkpoint"):
        export_student(folder, tmp_path / "out", "onnx", "int4", tiny.PROMPTS, 1, Wish(backend=BY))
    assert not (tmp_path / "out").exists()


@there
def test_weights_that_lack_are_said(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"optimum-onnx failed: ValueError: .* no tensor model.layers.2"):
        make_onnx(folder, tmp_path / "out", "fp32", Blocks(), BY)
    shutil.rmtree(folder)
