"""The run directory: what the manifest does not name has not happened."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.errors import UserError
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run, all_runs, canonical, commit, digest_tree, latest, run_path, write_atomic
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import STAGES, needed_for
from tests.legal import LEGAL


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(LEGAL)


def put(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_a_changed_domain_is_another_run_and_makes_its_own_data_and_lessons(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = put(tmp_path / "recipes" / "legal", **{"__init__.py": "", "task.py": "TASK = 1"})
    spec = importlib.util.spec_from_file_location("legal", domain / "__init__.py")
    monkeypatch.setattr("bridge_edge.run.util.find_spec", lambda name: spec)

    def now(words: tuple[str, ...] = ()) -> dict[str, object]:
        made, outputs = load_recipe([*LEGAL, *words]), dict.fromkeys((s.name for s in STAGES), "x")
        there = {s.name: stage_key(s, made, outputs) for s in needed_for(None, made)}
        return {"folder": run_path(tmp_path, made), **there}

    paid = ("teacher.kind=replay", f"teacher.path={tmp_path}/answers.jsonl")
    before, bought = now(), now(paid)
    assert before == now()
    put(domain, **{"task.py": "TASK = 2"})
    assert {name for name, value in now().items() if value != before[name]} == {"folder", "data", "teach"}
    assert {name for name, value in now(paid).items() if value != bought[name]} == {"folder", "data"}


def test_a_recipe_has_one_directory(tmp_path: Path, recipe: Recipe) -> None:
    run = Run.create(tmp_path, recipe)
    run.manifest["stages"]["data"] = {"key": "k"}
    run.save()
    again = Run.create(tmp_path, load_recipe(LEGAL))
    assert again.path == run.path
    assert again.stage("data") == {"key": "k"}
    other = Run.create(tmp_path, load_recipe([*LEGAL, "student.lr=1e-4"]))
    assert other.path != run.path
    assert load_recipe([f"recipe={run.path / 'recipe.yaml'}"]) == recipe


def test_digests_see_names_contents_and_folders(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", x="1", y="2")
    first = digest_tree(folder)
    assert digest_tree(put(tmp_path / "b", y="2", x="1")) == first
    assert digest_tree(put(tmp_path / "c", x="12", y="")) != first
    assert digest_tree(put(tmp_path / "d", x="2", y="1")) != first
    put(folder / "sub", x="1")
    assert digest_tree(folder) != first
    assert digest_tree(tmp_path / "b" / "x") != digest_tree(tmp_path / "b" / "y")
    assert canonical({"b": [1, "ü"], "a": None}) == '{"a":null,"b":[1,"ü"]}'


def test_commit_names_only_what_is_in_place(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(tmp_path, recipe)
    put(run.folder("data"), old="1")
    partial = put(run.folder("data.partial"), new="2", **{"checkpoint.pt": "x"})
    commit(run, "data", partial, {"key": "k"})
    assert [p.name for p in run.folder("data").iterdir()] == ["new"]
    assert not partial.exists()
    record = Run(run.path).stage("data")
    assert record is not None
    assert record["output"] == digest_tree(run.folder("data"))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    partial = put(run.folder("select.partial"), new="3")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            commit(run, "select", partial, {"key": "k"})
    assert partial.exists()
    assert Run(run.path).stage("select") is None
    commit(run, "select", partial, {"key": "k"})
    assert Run(run.path).stage("select") is not None


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_manifest(
    broken: str, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path, recipe)
    before = (run.path / "manifest.json").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    run.manifest["stages"]["data"] = {"key": "k"}
    with pytest.raises(UserError, match=r"No space left on device; free some space"):
        run.save()
    assert (run.path / "manifest.json").read_bytes() == before
    assert not list(run.path.glob("*.tmp"))


def test_write_atomic_writes_all(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", "ü\n" * 1000)
    write_atomic(tmp_path / "f", "short")
    assert (tmp_path / "f").read_text() == "short"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"status": "finished"}', '{"stages": []}', "\xff\xfe"])
def test_a_damaged_manifest_is_said_and_harms_no_neighbour(text: str, tmp_path: Path, recipe: Recipe) -> None:
    good = Run.create(tmp_path, recipe)
    good.manifest["status"] = "finished"
    good.save()
    bad = tmp_path / "legal-bad"
    bad.mkdir()
    (bad / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="damaged; remove"):
        Run(bad)
    assert [r.path for r in all_runs(tmp_path)] == [good.path]
    assert latest(tmp_path).path == good.path


def test_the_latest_run_is_the_last_finished_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        latest(tmp_path / "nowhere")
    runs = [Run.create(tmp_path, load_recipe([*LEGAL, f"seed={i}"])) for i in range(3)]
    with pytest.raises(UserError, match="bridge-edge distill"):
        latest(tmp_path)
    for run, when in ((runs[0], 20.0), (runs[1], 10.0)):
        run.manifest.update(status="finished", finished=when)
        run.save()
    assert latest(tmp_path).path == runs[0].path


HOLD = """
import sys, pathlib
from bridge_edge.run import Run
with Run(pathlib.Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_a_run(tmp_path: Path, recipe: Recipe) -> None:
    run = Run.create(tmp_path, recipe)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is working"), run.lock():
            pass
        manifest = json.loads((run.path / "manifest.json").read_text())
        manifest["stages"]["data"] = {"key": "theirs"}
        (run.path / "manifest.json").write_text(json.dumps(manifest))
    finally:
        other.kill()
        other.communicate()
    with run.lock():  # a killed process holds nothing, and what it finished is seen
        assert run.stage("data") == {"key": "theirs"}
    with run.lock():
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--runs-dir"):
        Run.create(tmp_path / "file", recipe)
