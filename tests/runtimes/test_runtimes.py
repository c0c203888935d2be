"""The three runtimes against each other, and what they refuse."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.template import render
from bridge_edge.runtimes.think import Thinking
from tests import tiny

GRAPH, DATA = "onnx/model.onnx", "onnx/model.onnx_data"


@pytest.fixture(scope="module")
def root(own_formats: Path) -> Path:
    return own_formats


@pytest.fixture(scope="module")
def reference(root: Path) -> Runtime:
    return load_runtime(root / "torch", 1)


@pytest.fixture(scope="module", params=["torch", "m.gguf", "onnx"])
def runtime(request: pytest.FixtureRequest, root: Path) -> Runtime:
    return load_runtime(root / request.param, 1)


def test_torch_matches_transformers_generate(root: Path, reference: Runtime) -> None:
    """Our greedy loop against the library's, unpadded, one prompt at a time."""
    model: Any = AutoModelForCausalLM.from_pretrained(root / "torch")
    tokenizer: Any = AutoTokenizer.from_pretrained(root / "torch")
    for prompt in tiny.PROMPTS:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        wanted = model.generate(**inputs, max_new_tokens=10, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert list(reference.stream(reference.chat(prompt), 10)) == [t for t in wanted.tolist() if t != 2]


def test_all_agree_with_torch(runtime: Runtime, reference: Runtime) -> None:
    for prompt in tiny.PROMPTS:
        ids = reference.chat(prompt)
        assert runtime.chat(prompt) == ids
        np.testing.assert_allclose(runtime.logits(ids), reference.logits(ids), atol=0.03)
        assert list(runtime.stream(ids, 10)) == list(reference.stream(ids, 10))


def test_a_bound_on_the_reasoning_is_the_same_in_all(runtime: Runtime, reference: Runtime) -> None:
    found = []
    for one in (runtime, reference):
        thinking = Thinking(one, 5)
        prompt = one.chat(tiny.PROMPTS[0])
        ids = list(thinking.stream(prompt))
        assert (thinking.tokens, thinking.closed) == (5, True)
        assert ids[:5] == list(one.stream(prompt, 5))
        assert one.decode(ids).startswith(one.decode(ids[:5]).rstrip("\n") + "\nAnswer:")
        found.append(ids)
    assert found[0] == found[1]


def test_batched_generation_equals_one_at_a_time(runtime: Runtime) -> None:
    prompts = [*tiny.PROMPTS, "a", "The tenant pays 1200 dollars a month; " * 3]
    alone = [runtime.decode(list(runtime.stream(runtime.chat(p), 9))) for p in prompts]
    assert runtime.generate(prompts, 9) == alone


def test_teacher_forcing_agrees_with_decoding(runtime: Runtime) -> None:
    """Logits of the whole text predict the tokens that step-by-step decoding chose."""
    ids = runtime.chat(tiny.PROMPTS[0])
    new = list(runtime.stream(ids, 12))
    rows = runtime.logits(ids + new)
    assert rows.shape == (len(ids) + len(new), runtime.vocab_size)
    assert rows.dtype == np.float32
    assert rows[len(ids) - 1 : -1].argmax(-1).tolist() == new


def test_longer_than_a_batch_of_logits(runtime: Runtime, reference: Runtime) -> None:
    ids = (reference.encode("The tenant pays 1200 dollars a month. ") * 20)[:200]
    np.testing.assert_allclose(runtime.logits(ids), reference.logits(ids), atol=0.05)


def test_text_round_trip_and_specials(runtime: Runtime) -> None:
    text = "Über 12 Euro; naïve 😀\n\tend"
    assert runtime.decode(runtime.encode(text)) == text
    ids = runtime.encode("<|im_start|>user\nhi<|im_end|>")
    assert ids[0] == 1
    assert ids[-1] == 2
    assert runtime.decode(ids) == "user\nhi"
    assert runtime.encode("") == []
    assert runtime.encode("e\u0301") == runtime.encode("é")  # the tokenizer composes first, so must all runtimes


def test_card_end_tokens_and_bound(runtime: Runtime) -> None:
    assert runtime.card is not None
    assert runtime.card.answers == ("yes", "no")
    assert runtime.eos_ids == {2}
    assert runtime.vocab_size == tiny.VOCAB
    ids = runtime.chat(tiny.PROMPTS[0])
    assert list(runtime.stream(ids, 0)) == []
    assert len(list(runtime.stream(ids * 2, 3))) <= 3


def test_context_limit(runtime: Runtime) -> None:
    with pytest.raises(UserError, match="context is 256"):
        runtime.logits([5] * 257)
    assert len(list(runtime.stream([5] * 250, 100))) <= 6
    for length in (256, 300):
        with pytest.raises(UserError, match="context is 256"):
            next(runtime.stream([5] * length, 4))


def test_generation_config_of_the_checkpoint_does_not_matter(root: Path, reference: Runtime, tmp_path: Path) -> None:
    shutil.copytree(root / "torch", tmp_path / "m")
    config = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "eos_token_id": [2, 0]}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(config))
    other = load_runtime(tmp_path / "m", 1)
    assert other.eos_ids == {0, 2}
    ids = reference.chat(tiny.PROMPTS[1])
    assert list(other.stream(ids, 6)) == list(reference.stream(ids, 6))


def test_native_log_is_silent(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runtime = load_runtime(root / "m.gguf", 1)
    list(runtime.stream(runtime.chat("hi"), 2))
    runtime.close()
    runtime.close()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    with pytest.raises(UserError, match="closed"):
        runtime.logits([1])


def test_unknown_paths(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model"):
        load_runtime(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no model"):
        load_runtime(tmp_path)
    (tmp_path / "notes.txt").write_text("hi")
    with pytest.raises(UserError, match=r"notes\.txt"):
        load_runtime(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="threads"):
        load_runtime(root / "torch", 0)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="adapter"):
        load_runtime(tmp_path)


def test_folder_with_one_gguf_opens(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "m.gguf", tmp_path / "a.gguf")
    assert load_runtime(tmp_path, 1).name == "gguf"
    shutil.copy(root / "m.gguf", tmp_path / "b.gguf")
    with pytest.raises(UserError, match="several"):
        load_runtime(tmp_path)


def test_pickled_weights_are_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "torch", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load"):
        load_runtime(tmp_path / "m")


@pytest.mark.parametrize("place", ["../model.onnx_data", "/etc/hostname", "missing.data"])
def test_external_data_elsewhere_is_refused(root: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(root / "onnx", tmp_path / "m")
    shutil.copy(root / "onnx" / DATA, tmp_path / "m" / "model.onnx_data")
    model = onnx.load(tmp_path / "m" / GRAPH, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    (tmp_path / "m" / GRAPH).write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="keeps weights at"):
        load_runtime(tmp_path / "m")


def test_external_data_behind_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "onnx", tmp_path / "m")
    (tmp_path / "m" / DATA).rename(tmp_path / "elsewhere")
    (tmp_path / "m" / DATA).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="keeps weights at"):
        load_runtime(tmp_path / "m")


def test_broken_genai_config(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "onnx", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "genai_config.json").read_text())
    config["model"]["decoder"]["filename"] = "../model.onnx"
    (tmp_path / "m" / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"\.\./model\.onnx"):
        load_runtime(tmp_path / "m")
    (tmp_path / "m" / "genai_config.json").write_text("{")
    with pytest.raises(UserError, match="not usable"):
        load_runtime(tmp_path / "m")


def test_template_is_sandboxed() -> None:
    assert render("{{ bos_token }}{{ messages[0]['content'] }}", "hi", {"bos_token": "<s>"}) == "<s>hi"
    for attack in ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}"):
        with pytest.raises(UserError, match="template"):
            render(attack, "hi", {})
    for fault in ("{{ 1 // 0 }}", "{{ 'a' + 1 }}", "{% for i in range(10**9) %}{% endfor %}", "{{ '%s%s'|format(1) }}"):
        with pytest.raises(UserError, match="template of the model fails"):
            render(fault, "hi", {})
    with pytest.raises(UserError, match="no system role"):
        render("{{ raise_exception('no system role') }}", "hi", {})
