"""The command line: bad input is one line and exit code 2, whatever the verb; results for scripts are one JSON line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge_edge import cli
from bridge_edge.recipe_io import load_recipe, recipe_names, scale_names
from bridge_edge.run import Run
from tests import tiny


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a few of a user's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "good.tsv").write_text("text\tlabel\nA deposit\tyes\nNone\tno\n")
    (tmp_path / "other.csv").write_text("message,label\nA deposit,yes\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "cut.jsonl").write_text('{"text": "a", "label"')
    (tmp_path / "latin.csv").write_bytes("text,label\ncaf\xe9,yes\n".encode("latin-1"))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "own.yaml").write_text(
        "task: {prompt: '{text}', answers: ['yes', 'no']}\ndata: {path: good.tsv}\n"
        "teacher: {kind: replay, path: answers.jsonl}\n"
    )
    (tmp_path / "answers.jsonl").write_text('{"id": "x", "answer": "yes"}\n')
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the entry point in this process."""
    monkeypatch.setattr(sys, "argv", ["bridge-edge", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


BAD: list[tuple[str, str]] = [
    ("distil", "did you mean 'distill'"),
    ("recipes shw", "did you mean 'show'"),
    ("distill", "add recipe=NAME"),
    ("distill legal", "key=value"),
    ("distill recipe=leagl", "did you mean 'legal'"),
    ("distill recipe=none.yaml", "no file"),
    ("distill recipe=list.yaml", "no mapping"),
    ("distill recipe=notes.txt", "unknown recipe"),
    ("distill recipe=legal scale=egde", "did you mean 'edge'"),
    ("distill recipe=legal teacher=opnai", "did you mean 'openai'"),
    ("distill recipe=legal budget.querys=3", "did you mean 'budget.queries'"),
    ("distill recipe=legal budget.queries=0", "buys nothing"),
    ("distill recipe=legal budget.queries=9999", "above the pool"),
    ("distill recipe=legal budget.fraction=2", "above the pool"),
    ("distill recipe=legal budget.queries=many", "budget.queries='many'"),
    ("distill recipe=legal student.lr=-1", "student.lr"),
    ("distill recipe=legal select.strategy=best", "'bridge'"),
    ("distill recipe=legal ta.model=embedded:tta", "did you mean 'embedded:ta'"),
    ("distill recipe=legal ta.model=./nowhere", "cannot load the tokenizer"),
    ("distill recipe=legal task.module=leagl", "no shipped domain"),
    ("distill recipe=legal --device tpu0", "--device tpu0"),
    ("distill recipe=legal --threads 0", "--threads"),
    ("distill recipe=legal --threads two", "--threads"),
    ("distill recipe=legal --runs-dir notes.txt", "runs-dir"),
    ("distill recipe=legal --frobnicate", "--frobnicate"),
    ("distill recipe=own.yaml", "2 distinct items"),
    ("distill recipe=own.yaml data.path=none.tsv", "does not exist"),
    ("distill recipe=own.yaml data.path=notes.txt", "unknown file type"),
    ("distill recipe=own.yaml data.path=other.csv", "no column 'text'"),
    ("distill recipe=own.yaml data.path=empty.jsonl", "empty.jsonl"),
    ("distill recipe=own.yaml data.path=cut.jsonl", "bad JSON"),
    ("distill recipe=own.yaml data.path=latin.csv", "not UTF-8"),
    ("export", "no finished run"),
    ("export nowhere", "nowhere"),
    ("export empty", "empty"),
    ("export --format ggfu", "ggfu"),
    ("export model --quant Q9", "Q9"),
    ("bench", "no finished run"),
    ("bench nowhere", "nowhere"),
    ("bench model", "no items"),
    ("eval", "--data"),
    ("eval good.tsv", "is data, not a model"),
    ("eval --data good.tsv", "no finished run"),
    ("eval model --data none.tsv", "does not exist"),
    ("eval model --data notes.txt", "unknown file type"),
    ("eval model --data other.csv", "no column 'text'"),
    ("eval model --data good.tsv --columns text", "NAME=COLUMN"),
    ("eval model --data good.tsv --columns text=question", "question"),
    ("eval model --data good.tsv --answers a,b", "none of the card's answers"),
    ("eval model --data good.tsv --limit 0", "--limit"),
    ("eval nowhere --data good.tsv", "nowhere"),
    ("eval notes.txt --data good.tsv", "notes.txt"),
    ("run what is it", "no finished run"),
    ("run empty question", "empty"),
    ("recipes show leagl", "did you mean 'legal'"),
    ("recipes show legal student.lrr=1", "did you mean 'student.lr'"),
    ("init ../evil", "no name for a task"),
    ("init own", "own.yaml exists already"),
]


@pytest.mark.parametrize(("line", "says"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line_and_code_2(
    line: str, says: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if " model" in line:
        tiny.checkpoint(place / "model", hidden=32)
    code, out, err = call(capsys, monkeypatch, *line.split())
    last = err.strip().splitlines()[-1]
    assert code == 2, err
    assert says in last
    assert last.startswith("bridge-edge: ")
    assert "Traceback" not in err
    assert out == ""
    assert err.count("bridge-edge: ") == 1


def test_a_missing_key_is_said_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words: tuple[str, ...] = (
        "recipe=legal",
        "teacher=openai",
        "teacher.model=m",
        "teacher.base_url=https://127.0.0.1:9/v1",
    )
    words = (*words, "teacher.price.prompt=1", "teacher.price.completion=2")
    code, _, err = call(capsys, monkeypatch, "distill", *words, "data.pool=20", "data.dev=2", "data.test=2")
    assert code == 2, err
    assert "OPENAI_API_KEY" in err
    assert "done in" not in err


def test_an_unknown_failure_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("bridge_edge.listing.recipe_rows", fail)
    code, _, err = call(capsys, monkeypatch, "recipes")
    assert (code, err.count("\n")) == (1, 1)
    assert "RuntimeError: first line; run it again with --debug" in err
    code, _, err = call(capsys, monkeypatch, "--debug", "recipes")
    assert "Traceback" in err


def test_a_full_disk_is_said_as_such(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bridge_edge.listing.recipe_rows", full)
    code, _, err = call(capsys, monkeypatch, "recipes")
    assert code == 2
    assert "the disk is full" in err


@pytest.mark.parametrize("error", [KeyboardInterrupt, EOFError])
def test_ctrl_c_is_code_130(
    error: type[BaseException], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr("bridge_edge.listing.recipe_rows", stop)
    code, _, err = call(capsys, monkeypatch, "recipes")
    assert code == 130
    assert "run the same command to go on" in err


def test_recipes_are_listed_and_shown(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "recipes", "--json")
    rows = json.loads(out.splitlines()[-1])["recipes"]
    assert code == 0
    assert {(r["recipe"], r["scale"]) for r in rows} == {(r, s) for r in recipe_names() for s in scale_names()}
    _, out, _ = call(capsys, monkeypatch, "recipes")
    assert all(name in out for name in recipe_names())
    _, out, _ = call(capsys, monkeypatch, "recipes", "show", "legal", "scale=edge", "student.lr=3e-4")
    (place / "shown.yaml").write_text(out)
    wanted = load_recipe(["recipe=legal", "scale=edge", "student.lr=3e-4"])
    assert load_recipe(["recipe=shown.yaml"]) == wanted
    _, out, _ = call(capsys, monkeypatch, "recipes", "show", "legal", "--json")
    assert json.loads(out.splitlines()[-1])["name"] == "legal"


@pytest.mark.parametrize(
    "line", ["--help", "-h", "--version", *(f"{v} --help" for v in ("distill", "export", "eval", "run"))]
)
def test_help_is_there(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = call(capsys, monkeypatch, *line.split())
    assert (code, err) == (0, "")
    assert "bridge-edge" in out


def test_init_writes_what_loads_and_never_overwrites(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "init", "my-task", "--json")
    assert (code, sorted(json.loads(out)["files"])) == (0, ["my-task.answers.jsonl", "my-task.jsonl", "my-task.yaml"])
    recipe = load_recipe(["recipe=my-task.yaml"])
    assert (recipe.name, recipe.teacher.kind, recipe.task.answers) == ("my-task", "replay", ("Yes", "No"))
    before = (place / "my-task.yaml").read_bytes()
    assert call(capsys, monkeypatch, "init", "my-task")[0] == 2
    assert (place / "my-task.yaml").read_bytes() == before


def test_an_unfinished_run_has_no_student(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(place / "runs", load_recipe(["recipe=legal"]))
    code, _, err = call(capsys, monkeypatch, "export", str(run.path))
    assert code == 2
    assert "no student yet" in err
    (run.path / "manifest.json").write_text("{")
    code, _, err = call(capsys, monkeypatch, "distill", "recipe=legal")
    assert code == 2
    assert "is damaged" in err


def test_help_of_the_real_command_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['bridge-edge', '--help']\n"
        "from bridge_edge import cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'transformers', 'numpy', 'rich'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    assert "distill" in done.stdout
