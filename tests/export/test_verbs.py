"""The verbs export, verify and push on a run, through the real entry point: `--quant auto`, ONNX options, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.export import parity
from bridge_edge.export.bounds import Bound
from bridge_edge.export.questions import general
from bridge_edge.recipe_io import dump, load_recipe
from bridge_edge.run import digest_tree
from tests import tiny
from tests.test_cli import call

DEV = [Sample(prompt, "yes") for prompt in tiny.PROMPTS]
TAUGHT = [Sample(text, "yes", "Because it says so.") for text in tiny.TEXTS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run as far as export looks into it, with a random student."""
    run = tmp_path_factory.mktemp("runs") / "toy-0123456789ab"
    tiny.checkpoint(run / "tutor", "qwen2", 256, initializer_range=0.05)
    (run / "data").mkdir()
    (run / "annotate").mkdir()
    write_jsonl(run / "data" / "dev.jsonl", DEV)
    write_jsonl(run / "annotate" / "annotations.jsonl", TAUGHT)
    (run / "recipe.yaml").write_text(dump(load_recipe(["recipe=legal"])))
    manifest = {"schema": 1, "recipe": "toy", "status": "finished", "created": 0, "stages": {}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / finished.name))


def test_quant_auto_on_the_newest_run(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model is right by chance alone, so every mixture may lose all: the coarsest one that was tried wins.
    Its parity is beside the point here and allowed anything."""
    monkeypatch.setitem(parity.BOUNDS, "auto", Bound(100.0, 0.0, 0.0, 100.0))
    runs = str(run.parent)
    words = ("export", "--quant", "auto", "--max-drop", "100", "--threads", "1", "--runs-dir", runs, "--json")
    code, out, err = call(capsys, monkeypatch, *words)
    assert code == 0, err
    (made,) = json.loads(out.splitlines()[-1])["exports"]
    points: dict[str, Any] = {p["name"]: p for p in made["search"]["points"]}
    assert made["search"]["met"] is True
    assert made["importance"] == 15
    assert points[made["search"]["chosen"]]["bytes"] == made["bytes"] == Path(made["path"]).stat().st_size
    assert made["bytes"] < points["Q4_K_M"]["bytes"]
    folder = Path(made["path"]).parent
    assert folder == run / "export" / "gguf-auto"
    code, _, err = call(capsys, monkeypatch, "export", "--quant", "auto", "--max-drop", "100", "--runs-dir", runs)
    assert code == 0
    assert "is up to date" in err
    assert call(capsys, monkeypatch, "verify", "--runs-dir", runs)[0] == 0
    code, out, err = call(capsys, monkeypatch, "push", "--repo", "me/toy", "--runs-dir", runs)
    assert code == 0
    assert "toy-auto.gguf" in out
    assert "export.json" not in out


def test_onnx_with_options(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--format", "onnx", "--quant", "int4", "--block-size", "64", "--algorithm", "rtn", "--json")
    code, out, err = call(capsys, monkeypatch, "export", str(run), *words)
    assert code == 0, err
    (made,) = json.loads(out.splitlines()[-1])["exports"]
    assert Path(made["path"]) == run / "export" / "onnx-int4"
    card = (run / "export" / "onnx-int4" / "README.md").read_text()
    assert "transformers.js" in card
    assert str(run) not in card


def test_run_answers_by_the_export_of_the_present_student(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["tutor"] = {"output": digest_tree(run / "tutor")}
    (run / "manifest.json").write_text(json.dumps(manifest))
    runs = ("--runs-dir", str(run.parent))

    def asked() -> str:
        code, out, err = call(capsys, monkeypatch, "run", "Is it?", "--max-new-tokens", "2", "--json", *runs)
        assert code == 0, err
        return str(json.loads(out.splitlines()[-1])["runtime"])

    assert asked() == "torch"
    words = ("export", "--quant", "F16", "--threads", "1", *runs)
    assert call(capsys, monkeypatch, *words)[0] == 0
    assert asked() == "gguf"
    record = run / "export" / "gguf-f16" / "export.json"
    kept = json.loads(record.read_text())
    assert kept.pop("student") == digest_tree(run / "tutor")
    record.write_text(json.dumps(kept))  # as it was before records said whose export it is
    assert asked() == "torch"
    assert call(capsys, monkeypatch, *words)[0] == 0
    assert asked() == "gguf"


def test_a_bare_checkpoint_is_checked_on_general_prompts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(run / "tutor", tmp_path / "bare"))
    code, out, err = call(capsys, monkeypatch, "export", str(folder), "--items", "30", "--threads", "1", "--json")
    assert code == 0, err
    (made,) = json.loads(out.splitlines()[-1])["exports"]
    assert made["parity"]["prompts"] == 30
    assert made["parity"]["accuracy"] is None
    code, _, err = call(capsys, monkeypatch, "export", str(folder), "--quant", "auto")
    assert code == 2
    assert "quant auto needs dev items with answers" in err


def test_general_prompts_are_two_hundred_and_differ() -> None:
    asked = general(200)
    assert len(set(asked)) == 200
    assert asked[:30] == general(30)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--block-size", "64"), "are for ONNX"),
        (("--format", "executorch"), "no tokenizer and no chat template"),
        (("--format", "exe"), "'exe' is not one of"),
        (("--format", "onnx", "--quant", "int4", "--block-size", "48"), "unknown block size '48'"),
        (("--format", "onnx", "--quant", "fp16", "--algorithm", "rtn"), "fp16 has no blocks"),
        (("--format", "onnx", "--quant", "auto"), "unknown ONNX precision 'auto'"),
    ],
)
def test_bad_options_leave_nothing(
    words: tuple[str, ...], match: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = call(capsys, monkeypatch, "export", str(run), *words)
    assert code == 2
    assert match in err
    assert len(err.strip().splitlines()) <= 2
    assert not (run / "export").exists() or not any((run / "export").iterdir())
