"""Packing: what is checked before, what stays of the last version, and the app that runs without what made it."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_edge import Student, pack
from bridge_edge.data.card import Card
from bridge_edge.errors import UserError
from bridge_edge.pack import Artifact, PackOptions, history, open_artifact, pack_to, python
from bridge_edge.pack.python import apart
from bridge_edge.parcel import CheckError, Parcel, sign, verify, write_sums
from tests import tiny
from tests.test_cli import call
from tests.test_parcel import keys

NO_KEY = PackOptions()


@pytest.fixture(scope="module")
def export(own_formats: Path) -> Path:
    """Two export folders as `bridge-edge export` leaves them, as far as packing goes."""
    (own_formats / "gguf").mkdir()
    (own_formats / "m.gguf").rename(own_formats / "gguf" / "toy.gguf")
    for name in ("gguf", "onnx"):
        write_sums(own_formats / name)
    return own_formats


def made(export: Path, kind: str, out: Path) -> dict[str, object]:
    return pack_to("python", open_artifact(str(export / kind), out), out, NO_KEY)


@pytest.fixture(scope="module", params=["gguf", "onnx"])
def app(request: pytest.FixtureRequest, export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed app of each format."""
    out = tmp_path_factory.mktemp("app") / request.param
    made(export, request.param, out)
    return out


def test_an_app_answers_as_the_export_does(app: Path, export: Path) -> None:
    with Student.load(export / app.name, 1) as student:
        for question in (tiny.PROMPTS[0], "Émile paid €5, e\u0301t <|im_end|>  7"):
            done = apart(app, "--json", "--threads", "1", "--think", "5", "--max-new-tokens", "12", question)
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            wanted = student.answer(question, think=5, max_new_tokens=12)
            assert (tuple(told["ids"]), told["prompt_tokens"]) == (wanted.ids, wanted.prompt_tokens)
            assert told["thought"] == wanted.thought
    streamed = apart(app, tiny.PROMPTS[0])
    assert streamed.stdout.strip()
    assert "tokens/s" in streamed.stderr


def test_a_question_in_a_command_reaches_the_app_as_it_is(tmp_path: Path) -> None:
    question = 'Isn\'t `$90,000` more than "$75,000"?\nSay \\ yes.'
    artifact = Artifact("gguf", tmp_path / "m.gguf", Parcel(tmp_path, {}, ()), Card("toy", examples=(question,)))
    assert artifact.examples() == [question]
    script = python.readme(artifact, question).partition("```sh\n")[2].partition("```")[0]
    assert shlex.split(script)[-4:] == ["ask.py", "--think", "64", question]


def test_an_app_names_what_it_needs_and_its_versions(app: Path) -> None:
    needs = (app / "requirements.txt").read_text().splitlines()
    assert needs[0].startswith({"gguf": "llama-cpp-python==", "onnx": "onnxruntime-genai=="}[app.name])
    assert all("==" in line for line in needs)
    assert not {"torch", "transformers"} & {line.partition("==")[0] for line in needs}
    assert apart(app, "--versions").stdout.startswith(history(app)[0]["version"] + ": new README.md")
    assert verify(app / "model", None).files
    assert "must be at least 1" in apart(app, "--think", "0", "x").stderr


@pytest.mark.parametrize("name", ["model", "runner.zip", "SHA256SUMS"])
def test_an_app_loads_nothing_where_a_file_was_changed(name: str, app: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(app, tmp_path / "copy"))
    file = next(p for p in sorted((copy / name).rglob("*")) if p.is_file()) if name == "model" else copy / name
    file.write_bytes(file.read_bytes().replace(b"e", b"3", 1))
    done = apart(copy, "a question")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing was loaded" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_app_loads_no_model_that_was_put_beside_its_own(app: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(app, tmp_path / "copy"))
    (copy / "model" / "a.gguf").write_bytes(b"GGUF")
    done = apart(copy, "a question")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not name model/a.gguf" in done.stderr
    (copy / "VERSIONS.json").unlink()
    assert "cannot be read" in apart(copy, "--versions").stdout


def test_an_app_checks_whose_model_it_is(export: Path, tmp_path: Path) -> None:
    (mine, public), (_, other) = keys(tmp_path, "mine"), keys(tmp_path, "other")
    source, out = Path(shutil.copytree(export / "gguf", tmp_path / "source")), tmp_path / "app"
    sign(source, mine)
    pack_to("python", open_artifact(str(source), tmp_path, public), out, PackOptions(public))
    for key, code in ((public, 0), (other, 1)):
        words = [sys.executable, str(out / "ask.py"), "--max-new-tokens", "2", "--key", str(key), "hm"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stderr
        assert ("does not hold" in done.stderr) == bool(code)
    with pytest.raises(CheckError, match="does not hold"):
        open_artifact(str(source), tmp_path, other)


def test_an_update_keeps_the_last_version_and_a_failed_one_changes_nothing(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(export / "gguf", tmp_path / "source"))
    out = tmp_path / "app"
    first = pack_to("python", open_artifact(str(source), tmp_path), out, NO_KEY)
    assert pack_to("python", open_artifact(str(source), tmp_path), out, NO_KEY)["changed"] == []
    (source / "README.md").write_text("# Better\n")
    write_sums(source)
    second = pack_to("python", open_artifact(str(source), tmp_path), out, NO_KEY)
    assert second["previous"] == first["version"] != second["version"]
    assert second["changed"] == ["new model/README.md", "changed model/SHA256SUMS"]
    assert [e["version"] for e in history(out)] == [second["version"], first["version"]]
    kept = out.with_name("app.previous")
    assert history(kept)[0]["version"] == first["version"]
    assert apart(kept, "--json", "--max-new-tokens", "2", "hm").returncode == 0

    (source / "README.md").write_text("# Worse\n")
    write_sums(source)
    monkeypatch.setattr(python, "MODULES", [m for m in python.MODULES if m != "errors"])
    with pytest.raises(CheckError, match="does not answer"):
        pack_to("python", open_artifact(str(source), tmp_path), out, NO_KEY)
    assert history(out)[0]["version"] == second["version"]
    assert history(kept)[0]["version"] == first["version"]


def test_an_end_between_two_renames_is_mended(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    for word, text in (("previous", "old"), ("partial", "new")):
        (tmp_path / f"app.{word}").mkdir()
        (tmp_path / f"app.{word}" / "f").write_text(text)
    pack.recover(folder)
    assert (folder / "f").read_text() == "old"
    pack.exchange(tmp_path / "app.partial", folder)
    assert (folder / "f").read_text() == "new"
    assert (tmp_path / "app.previous" / "f").read_text() == "old"
    assert not (tmp_path / "app.partial").exists()


def test_what_cannot_be_packed_is_said(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="no packed app"):
        made(export, "gguf", tmp_path / "mine")
    for words, says in (("--target pyton", "'python'"), ("--target python --serve", "no page"), ("", "--target web")):
        code, _, err = call(capsys, monkeypatch, "pack", str(export / "gguf"), *words.split())
        assert (code, says in err, err.count("\n")) == (2, True, 1)
    code, _, err = call(capsys, monkeypatch, "pack", str(export / "torch"), "--target", "python")
    assert (code, "holds no export" in err) == (2, True)
