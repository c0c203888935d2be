"""From the real command line to a delivered student, with pools small enough for a coffee break's fraction.

Every test but the last two starts processes of its own. The figures of such tiny runs mean nothing; what is checked is
that the pieces fit, that a killed run goes on to the same files, and that nothing is done or bought twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.budget import Ledger
from bridge_edge.distill import distill
from bridge_edge.listing import write_template
from bridge_edge.run import digest_tree
from tests import tiny

COMMAND = [sys.executable, "-m", "bridge_edge.cli"]
SMALL = (
    "recipe=legal data.pool=60 data.dev=6 data.test=8 budget.fraction=0.2 ta.epochs=1 student.epochs=1"
    " baseline.epochs=1 align.items=40 annotate.keep=all annotate.batch_rows=20 task.max_new_tokens=192"
).split()
QUESTION = "James is from Texas. Mary is from Ohio. James sues Mary for negligence for $90,000."


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}


def bridge(folder: Path, *args: str, code: int = 0) -> str:
    """Run the command line in `folder`; returns stdout."""
    done = subprocess.run([*COMMAND, *args], cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def last_json(out: str) -> dict[str, Any]:
    return dict(json.loads(out.strip().splitlines()[-1]))


def outputs(run: Path) -> dict[str, str]:
    """Digest of every stage, as the manifest says and as the files are."""
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    for name, record in stages.items():
        assert digest_tree(run / name) == record["output"], name
    return {name: record["output"] for name, record in stages.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def summary(place: Path) -> dict[str, Any]:
    """A whole run by the real command line."""
    return last_json(bridge(place, "distill", *SMALL, "--json"))


def test_a_run_delivers_a_student_and_tells_the_truth(place: Path, summary: dict[str, Any]) -> None:
    run = place / summary["run"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert len(outputs(run)) == 17, "thirteen, and four of the second round of asking"
    assert manifest["stages"]["baseline"]["taken_from"] == run.name, "the second reader is trained again"
    took = {name: record["seconds"] for name, record in manifest["stages"].items()}
    assert took["baseline"] == took["reader"] > 0
    assert summary["seconds"] == {**took, "baseline": 0.0}, "the second reader's time is told twice"
    teacher = summary["teacher"]
    assert teacher["queries"] == round(0.2 * teacher["pool"])
    assert 0 < teacher["usd"] <= teacher["usd_cap"]
    with Ledger(run / "ledger.sqlite") as ledger:
        assert ledger.totals().queries == teacher["queries"]
        assert float(ledger.totals().usd) == pytest.approx(teacher["usd"])
    for name in ("ta", "student", "baseline"):
        assert summary["test"][name]["n"] == 8
    for name in ("tutor", "apprentice", "baseline"):
        assert {p.name for p in (run / name).iterdir()} >= {"model.safetensors", "tokenizer.json", "bridge_edge.json"}
    assert not list(run.rglob("*.pt"))
    assert not list(run.glob("*.partial"))
    assert not [p for p in run.rglob("*") if p.is_symlink()]
    assert str(Path.home()) not in (run / "manifest.json").read_text()


def test_the_same_command_again_does_nothing(place: Path, summary: dict[str, Any]) -> None:
    run = place / summary["run"]
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    again = last_json(bridge(place, "distill", *SMALL, "--json"))
    assert again["worked"] == 0
    assert again["test"] == summary["test"]
    after = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    assert after == before


def test_a_student_is_exported_asked_and_scored(place: Path, summary: dict[str, Any]) -> None:
    made = last_json(bridge(place, "export", "--format", "gguf", "--json"))["exports"][0]
    files = list(Path(place / made["path"]).parent.rglob("*.gguf")) or list((place / made["path"]).rglob("*.gguf"))
    assert len(files) == 1
    rows = [f"{QUESTION}\tYes", f"{QUESTION.replace('Ohio', 'Texas')}\tNo", f"{QUESTION.replace('90', '60')}\tNo"]
    (place / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    scores = last_json(bridge(place, "eval", str(files[0]), "--data", "mine.tsv", "--json"))
    assert scores["n"] == 3
    assert 0 <= scores["accuracy"] <= 1
    reply = last_json(bridge(place, "run", QUESTION, "--max-new-tokens", "40", "--json"))
    assert reply["question"] == QUESTION
    assert 0 < reply["tokens"] <= 40
    assert reply["runtime"] == "gguf", "what ships answers"
    reply = last_json(bridge(place, "run", str(summary["run"]), QUESTION, "--max-new-tokens", "40", "--json"))
    assert reply["runtime"] == "torch", "a run that is named is its checkpoint"
    assert bridge(place, "run", str(files[0]), QUESTION, "--max-new-tokens", "20").strip()


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "distill", *SMALL, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )


def hear_interrupts() -> None:
    """A suite started in the background of a script inherits an ignored SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Until a file of that pattern is there (the process must still be running)."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_a_killed_run_goes_on_to_the_same_files(place: Path, summary: dict[str, Any], tmp_path: Path) -> None:
    whole = outputs(place / summary["run"])
    for pattern in ("runs/*/apprentice.partial", "runs/*/draft.partial/raw.jsonl"):
        process = start(tmp_path)
        wait_for(tmp_path, pattern, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = last_json(bridge(tmp_path, "distill", *SMALL, "--json"))
    assert 0 < done["worked"] < 12
    assert outputs(tmp_path / done["run"]) == whole
    assert done["teacher"] == summary["teacher"]


def test_ctrl_c_is_130_and_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for(tmp_path, "runs/*/warmup.partial", process)
    bridge(tmp_path, "distill", *SMALL, code=2)
    assert process.poll() is None, "the first process ended before the second one was told"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "run the same command to go on" in err
    assert "Traceback" not in err


def test_a_task_of_ones_own_runs_from_init_to_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_template("my-task")
    words = "ta.epochs=2 student.epochs=1 baseline.enabled=false align.items=20 annotate.keep=all".split()
    done = distill(["recipe=my-task.yaml", *words], Path("runs"))
    assert done["worked"] == 12
    assert done["teacher"]["queries"] == round(0.2 * done["teacher"]["pool"])
    assert done["teacher"]["usd"] == 0
    assert done["test"]["student"]["n"] == 30
    assert "baseline" not in done["test"]
    assert distill(["recipe=my-task.yaml", *words], Path("runs"))["worked"] == 0
    rows = Path("my-task.jsonl").read_text().splitlines()
    Path("my-task.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    again = distill(["recipe=my-task.yaml", *words], Path("runs"), target="data")  # another file is another input
    assert again["worked"] == 1
    assert again["teacher"]["pool"] < done["teacher"]["pool"]


ANIMALS = [
    f"{colour} {animal} {verb}"
    for colour in ("red", "blue")
    for animal in ("cat", "dog", "hen", "cow", "pig")
    for verb in ("sits", "runs", "eats", "naps", "sings", "hops")
]


def test_pretrained_models_with_adapters_run_at_scale_edge(tmp_path: Path) -> None:
    """Random checkpoints of two architectures in the place of hub models; they can learn so simple a rule."""
    tokenizer = tiny.tokenizer()
    ta = tiny.checkpoint(tmp_path / "ta", "qwen2", hidden=96, tok=tokenizer)
    student = tiny.checkpoint(tmp_path / "student", "llama", tok=tokenizer)
    answers = {text: "yes" if text.startswith("red") else "no" for text in ANIMALS}
    recorded = [{"prompt": t, "rationale": f"It is {t.split()[0]}.", "answer": a} for t, a in answers.items()]
    pool = [{"text": t, "answer": a} for t, a in answers.items()]
    for name, rows in (("pool", pool), ("answers", recorded)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(
        "task: {prompt: '{text}', answers: ['yes', 'no'], max_new_tokens: 24}\n"
        "data: {path: pool.jsonl, dev: 4, test: 8, pool: null}\n"
        "teacher: {kind: replay, path: answers.jsonl, price: {prompt: 0, completion: 0}}\n"
        f"budget: {{fraction: 0.5}}\nscale: edge\nta: {{model: ./ta}}\nstudent: {{model: {student}}}\n"
    )
    words = "ta.lr=1e-2 ta.epochs=15 ta.batch_tokens=256 ta.micro_tokens=256 annotate.keep=all".split()
    words += "student.lr=1e-2 student.epochs=4 student.batch_tokens=256 student.micro_tokens=256".split()
    done = distill([f"recipe={tmp_path / 'own.yaml'}", *words, "baseline.epochs=1"], tmp_path / "runs")
    assert done["scale"] == "edge"
    assert done["worked"] == 12
    assert done["test"]["ta"]["parse_failure_rate"] < 0.5  # it learnt the form, which chance never gives
    config = json.loads((Path(done["student"]) / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert json.loads((ta / "config.json").read_text())["model_type"] == "qwen2"
    assert not list(Path(done["run"]).rglob("adapter*"))
