"""The ONNX folder: complete, opened by three runtimes to the same tokens, and refused where it was tampered with."""

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from bridge_edge.errors import UserError
from bridge_edge.export import onnx_graph, onnx_kquant
from bridge_edge.export.api import Exported, export_student
from bridge_edge.export.onnx_export import make_onnx
from bridge_edge.export.onnx_graph import INLINE, check_graph, load_graph, move
from bridge_edge.export.onnx_types import PRECISIONS, builder_words, check_blocks, model_file, usual_algorithm
from bridge_edge.export.wish import Blocks, Wish
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.onnx_runtime import ONNXRuntime
from bridge_edge.runtimes.torch_runtime import TorchRuntime
from tests import tiny

NEW = 8
MODULES = Path(os.environ.get("BRIDGE_EDGE_NODE_MODULES", "node_modules")).absolute()
HAS_JS = (MODULES / "@huggingface" / "transformers" / "package.json").is_file() and shutil.which("node") is not None
needs_js = pytest.mark.skipif(
    not HAS_JS, reason="no node, or BRIDGE_EDGE_NODE_MODULES names no folder with @huggingface/transformers"
)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("student") / "m", "qwen2", 256, initializer_range=0.05)


@pytest.fixture(scope="module")
def made(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_student(student, tmp_path_factory.mktemp("made") / "out", "onnx", "int4", tiny.PROMPTS, 1)


def test_the_folder_is_complete(student: Path, tmp_path: Path) -> None:
    level, handlers = logging.getLogger().level, list(logging.getLogger().handlers)
    folder = export_student(student, tmp_path / "out", "onnx", "int4", tiny.PROMPTS, 1).path
    assert (logging.getLogger().level, logging.getLogger().handlers) == (level, handlers)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "README.md", "SHA256SUMS", "bridge_edge.json", "config.json", "genai_config.json", "generation_config.json",
        "onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "parity.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert not any(p.is_symlink() or (p.is_file() and p.stat().st_nlink > 1) for p in folder.rglob("*"))
    assert "chat_template" in json.loads((folder / "tokenizer_config.json").read_text())
    config = json.loads((folder / "genai_config.json").read_text())
    assert config["search"]["do_sample"] is False
    assert config["model"]["decoder"]["filename"] == "onnx/model_q4.onnx"
    browser = json.loads((folder / "config.json").read_text())["transformers.js_config"]
    assert browser == {"dtype": "q4", "use_external_data_format": {"model_q4.onnx": 1}}
    check_graph(folder / "onnx" / "model_q4.onnx")
    for tensor in onnx.load(folder / "onnx" / "model_q4.onnx", load_external_data=False).graph.initializer:
        small = tensor.data_location != onnx.TensorProto.EXTERNAL
        assert small == (len(onnx.numpy_helper.to_array(tensor, str(folder / "onnx")).tobytes()) < INLINE), tensor.name
    assert AutoTokenizer.from_pretrained(folder).chat_template == tiny.tokenizer().chat_template


def test_plain_onnxruntime_says_the_same(made: Exported, student: Path) -> None:
    """An own loop over the cache with nothing but onnxruntime, against onnxruntime-genai."""
    config = json.loads((made.path / "config.json").read_text())
    session = onnxruntime.InferenceSession(str(made.path / "onnx" / "model_q4.onnx"))
    dim = config["hidden_size"] // config["num_attention_heads"]
    empty = np.zeros((1, config["num_key_value_heads"], 0, dim), np.float32)
    outputs = [o.name for o in session.get_outputs()]
    runtime = load_runtime(made.path, 1)
    for prompt in tiny.PROMPTS:
        ids = runtime.chat(prompt)
        cache = {i.name: empty for i in session.get_inputs() if i.name.startswith("past_key_values.")}
        fed, seen, found = ids, 0, []
        for _ in range(NEW):
            seen += len(fed)
            mask = np.ones((1, seen), np.int64)
            got = dict(
                zip(outputs, session.run(None, {"input_ids": [fed], "attention_mask": mask, **cache}), strict=True)
            )
            cache = {name: got[name.replace("past_key_values", "present")] for name in cache}
            fed = [int(got["logits"][0, -1].argmax())]
            if fed[0] in config["eos_token_id"]:
                break
            found += fed
        assert found == list(runtime.stream(ids, NEW))


def in_javascript(folder: Path) -> list[dict[str, list[int]]]:
    """Token ids of prompts and greedy completions, by transformers.js in Node."""
    script = Path(__file__).with_name("greedy.cjs")
    command = ["node", str(script), str(MODULES), str(folder), json.dumps(tiny.PROMPTS), str(NEW)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, list[int]]] = json.loads(done.stdout.splitlines()[-1])["found"]
    return found


@needs_js
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "gemma3"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_transformers_js_says_the_same(kind: str, precision: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind)
    (tmp_path / "out").mkdir()
    make_onnx(folder, tmp_path / "out", precision)
    runtime = load_runtime(tmp_path / "out", 1)
    for prompt, got in zip(tiny.PROMPTS, in_javascript(tmp_path / "out"), strict=True):
        assert got["prompt"] == runtime.chat(prompt)
        ours = list(runtime.stream(got["prompt"], NEW))
        assert [i for i in got["completion"] if i not in runtime.eos_ids] == ours


@needs_js
def test_transformers_js_reads_data_in_parts(
    student: Path, made: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "MOST_PART", 200_000)
    (tmp_path / "out").mkdir()
    make_onnx(student, tmp_path / "out", "int4")
    parts = sorted(p.name for p in (tmp_path / "out" / "onnx").glob("*_data*"))
    assert parts[:2] == ["model_q4.onnx_data", "model_q4.onnx_data_1"]
    assert in_javascript(tmp_path / "out") == in_javascript(made.path)


def test_parts_hold_what_one_file_holds(made: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "MOST_PART", 200_000)
    source = made.path / "onnx" / "model_q4.onnx"
    parts = move(source, tmp_path / "x.onnx", {})
    assert len(parts) > 1
    assert all(p.stat().st_size <= 200_000 for p in parts)
    for a, b in zip(onnx.load(source).graph.initializer, onnx.load(tmp_path / "x.onnx").graph.initializer, strict=True):
        assert np.array_equal(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b)), a.name


@pytest.mark.parametrize("algorithm", ["default", "rtn", "k_quant"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_an_eight_bit_table_is_shared_where_the_model_ties_it(kind: str, algorithm: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind, 256, initializer_range=0.05)
    done = export_student(
        folder, tmp_path / "out", "onnx", "int8", tiny.PROMPTS, 1, Wish(blocks=Blocks(algorithm=algorithm))
    )
    tied = kind == "qwen2"
    assert bool(done.fallbacks) != tied
    graph = load_graph(done.path / model_file("int8")).graph
    assert ("GatherBlockQuantized" in {node.op_type for node in graph.node}) == tied
    assert done.parity["mean_kl"] < 2e-3
    if tied:
        assert done.bits_per_weight < 10


def test_k_quant_in_parts_is_the_same_file(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantiser is handed few rows, and never more weights than a part has."""
    from onnxruntime.quantization.neural_compressor import weight_only

    whole, seen = weight_only.quant_tensor_k_quant_cpu, []

    def watched(data: np.ndarray, num_bits: int, group_size: int) -> onnx_kquant.Quantised:
        seen.append(data.size)
        result: onnx_kquant.Quantised = whole(data, num_bits, group_size)
        return result

    monkeypatch.setattr(weight_only, "quant_tensor_k_quant_cuda", watched)
    found = []
    for part in (1 << 30, 5_000):
        seen.clear()
        monkeypatch.setattr(onnx_kquant, "PART", part)
        (tmp_path / str(part)).mkdir()
        file = make_onnx(student, tmp_path / str(part), "int4")
        found.append((file.read_bytes(), Path(f"{file}_data").read_bytes(), max(seen)))
    assert found[0][:2] == found[1][:2]
    assert found[0][2] == 512 * 256 > 5_000 >= found[1][2]
    assert weight_only.quant_tensor_k_quant_cuda is watched


@pytest.mark.parametrize(("size", "level"), [(16, 1), (128, 4)])
def test_blocks_and_levels_reach_the_graph(student: Path, tmp_path: Path, size: int, level: int) -> None:
    wish = Wish(blocks=Blocks(size, level, "rtn"))
    done = export_student(student, tmp_path / "out", "onnx", "int4", tiny.PROMPTS, 1, wish)
    graph = onnx.load(done.path / model_file("int4"), load_external_data=False).graph
    nodes = [{a.name: a.i for a in n.attribute} for n in graph.node if n.op_type == "MatMulNBits"]
    assert nodes
    assert all(n["block_size"] == size and n["accuracy_level"] == level for n in nodes)


def test_the_usual_algorithm_goes_by_type_and_size() -> None:
    found = [usual_algorithm(kind, size) for kind in ("int4", "int8") for size in (1_000_000, 494_000_000)]
    assert found == ["k_quant", "default", "default", "default"]
    assert "algo_config=k_quant" in builder_words("int4", Blocks(), 1_000_000)
    assert "algo_config=k_quant" in builder_words("int4", Blocks(algorithm="k_quant"), 494_000_000)


def test_mixed_layers_keep_eight_bits(student: Path, tmp_path: Path) -> None:
    wish = Wish(blocks=Blocks(algorithm="k_quant_last"))
    done = export_student(student, tmp_path / "out", "onnx", "int4", tiny.PROMPTS, 1, wish)
    assert any("/lm_head/" in line and "8 bits" in line for line in done.fallbacks)


@pytest.mark.parametrize(
    ("precision", "blocks", "match"),
    [
        ("fp32", Blocks(size=32), "fp32 has no blocks"),
        ("int4", Blocks(size=48), "unknown block size '48'"),
        ("int4", Blocks(accuracy=5), "unknown accuracy level '5'"),
        ("int4", Blocks(algorithm="awq"), "unknown algorithm for int4 'awq'"),
        ("int8", Blocks(algorithm="k_quant_mixed"), "unknown algorithm for int8"),
    ],
)
def test_unknown_blocks(precision: str, blocks: Blocks, match: str) -> None:
    with pytest.raises(UserError, match=match):
        check_blocks(precision, blocks)


Edit = Callable[[Path], object]
GRAPH, DATA = "onnx/model_q4.onnx", "onnx/model_q4.onnx_data"


def graph(edit: Callable[[onnx.ModelProto], object]) -> Edit:
    def change(folder: Path) -> None:
        model = onnx.load(folder / GRAPH, load_external_data=False)
        edit(model)
        (folder / GRAPH).write_bytes(model.SerializeToString())

    return change


def entry(key: str, value: str) -> Edit:
    """Another value of the first external tensor's entry."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.external_data)
        next(e for e in tensor.external_data if e.key == key).value = value

    return graph(edit)


def genai(edit: Callable[[dict[str, Any]], object]) -> Edit:
    def change(folder: Path) -> None:
        config = json.loads((folder / "genai_config.json").read_text())
        edit(config)
        (folder / "genai_config.json").write_text(json.dumps(config))

    return change


def outside_tensor(name: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "/etc/hostname"), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(name: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Constant", [], [name], value=outside_tensor(name))


def branch(model: onnx.ModelProto) -> None:
    """A constant from outside in a graph within the graph."""
    inner = onnx.helper.make_graph([constant("far")], "g", [], [onnx.helper.make_empty_tensor_value_info("far")])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(onnx.helper.make_function("own", "F", [], ["far"], [constant("far")], []))


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("EPContext", [], ["y"], ep_cache_context="../x.bin"))


def three_bits(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "MatMulNBits")
    next(a for a in node.attribute if a.name == "bits").i = 3


def hard_link(folder: Path) -> None:
    os.link(folder / DATA, folder.parent / "held.bin")


def soft_link(folder: Path) -> None:
    (folder / "onnx").rename(folder.parent / "real")
    (folder / "onnx").symlink_to(folder.parent / "real")


def cut(name: str, keep: int) -> Edit:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def decoder(**changes: Any) -> Edit:
    return genai(lambda c: c["model"]["decoder"].update(changes))


HOSTILE: dict[str, tuple[Edit, str]] = {
    "data at an absolute place": (entry("location", "/etc/hostname"), "keeps weights at '/etc/hostname'"),
    "data above the folder": (entry("location", "../config.json"), "keeps weights at"),
    "data in another folder": (entry("location", "sub/data"), "keeps weights at"),
    "data in a folder": (entry("location", "."), "keeps weights at|unclearly"),
    "data behind a NUL": (entry("location", "a\0b"), "keeps weights at"),
    "data nowhere": (entry("location", ""), "unclearly"),
    "data beyond the file": (entry("offset", str(1 << 40)), "reads 10995"),
    "a negative offset": (entry("offset", "-64"), "unclearly"),
    "an offset that is no number": (entry("offset", "0x10"), "unclearly"),
    "a length of exabytes": (entry("length", str(1 << 62)), "reads 46116"),
    "data cut short": (cut(DATA, 5000), "copy it again"),
    "data behind a hard link": (hard_link, "keeps weights at|which is not there"),
    "a folder behind a link": (soft_link, "which is not there"),
    "a constant from outside": (graph(lambda m: m.graph.node.append(constant("far"))), "keeps weights at '/etc"),
    "a constant from outside, in a branch": (graph(branch), "keeps weights at '/etc"),
    "a constant from outside, in a function": (graph(function), "keeps weights at '/etc"),
    "an operator that opens files": (graph(foreign), "EPContext"),
    "an operator that nobody knows": (
        graph(lambda m: m.graph.node.append(onnx.helper.make_node("Evil", [], ["z"], domain="evil"))),
        "cannot load",
    ),
    "a graph cut short": (cut(GRAPH, 500), "not an ONNX model|cannot load"),
    "an empty graph": (cut(GRAPH, 0), "not an ONNX model"),
    "a missing input": (graph(lambda m: m.graph.input.pop(0)), "cannot load"),
    "a weight of another shape": (
        graph(lambda m: next(t for t in m.graph.initializer if t.external_data).dims.append(2)),
        "cannot load",
    ),
    "settings that are no JSON": (cut("genai_config.json", 20), "not usable"),
    "settings that are a list": (lambda f: (f / "genai_config.json").write_text("[]"), "not usable"),
    "settings nested too deeply": (lambda f: (f / "genai_config.json").write_text("[" * 99_999), "not usable"),
    "a library of operators": (decoder(session_options={"custom_ops_library": "/tmp/x.so"}), "native code"),
    "a file written by the profiler": (decoder(session_options={"enable_profiling": "/tmp/x"}), "'enable_profiling'"),
    "settings told twice": (
        lambda f: (f / "genai_config.json").write_text(
            (f / "genai_config.json").read_text().replace('"decoder": {', '"decoder": {}, "decoder": {', 1)
        ),
        "'decoder' stands there twice",
    ),
    "weights of three bits": (graph(three_bits), "cannot load"),
    "another provider": (
        decoder(session_options={"provider_options": [{"openvino": {"cache_dir": "/etc"}}]}),
        "other devices than the CPU: openvino",
    ),
    "a graph above the folder": (decoder(filename="../model.onnx"), "which is not there"),
    "a graph at an absolute place": (decoder(filename="/etc/hostname"), "which is not there"),
    "a second graph elsewhere": (genai(lambda c: c["model"].update(vision={"filename": "../x"})), "not in the folder"),
    "no end token": (genai(lambda c: c["model"].pop("eos_token_id")), "lacks model.eos_token_id"),
    "end tokens as text": (genai(lambda c: c["model"].update(eos_token_id="2")), "no count"),
    "a context as text": (genai(lambda c: c["model"].update(context_length="256")), "no count"),
    "a vocabulary beyond counting": (genai(lambda c: c["model"].update(vocab_size=1 << 40)), "no count"),
    "an unknown kind of model": (genai(lambda c: c["model"].update(type="nosuch")), "cannot load"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused(name: str, made: Exported, tmp_path: Path) -> None:
    edit, match = HOSTILE[name]
    folder = tmp_path / "m"
    shutil.copytree(made.path, folder)
    edit(folder)
    with pytest.raises(UserError, match=match) as caught:
        ONNXRuntime(folder, 1)
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 1


def test_the_sound_folder_opens(made: Exported, tmp_path: Path) -> None:
    """Without this every line above could fail for a reason of its own."""
    shutil.copytree(made.path, tmp_path / "m")
    graph(lambda model: None)(tmp_path / "m")
    genai(lambda config: None)(tmp_path / "m")
    assert ONNXRuntime(tmp_path / "m", 1).logits([5, 6]).shape == (2, tiny.VOCAB)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"mlp\.up_proj\.weight' holds values that are not finite"):
        export_student(folder, tmp_path / "out", "onnx", "int4", tiny.PROMPTS, 1)
    assert not (tmp_path / "out").exists()


def test_the_model_is_the_checkpoint(made: Exported, student: Path) -> None:
    """The comparison of the export, once more by hand: logits correlate, as four bits allow."""
    ids = TorchRuntime(student, 1).chat(tiny.PROMPTS[0])
    a, b = (runtime.logits(ids).ravel() for runtime in (TorchRuntime(student, 1), ONNXRuntime(made.path, 1)))
    assert np.corrcoef(a, b)[0, 1] > 0.9
