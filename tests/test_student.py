"""The library call: the same reply from every format, bounds that hold, changed files refused."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import bridge_edge
from bridge_edge import Student, cli
from bridge_edge.data.card import Card
from bridge_edge.errors import UserError
from bridge_edge.parcel import CheckError, write_sums
from bridge_edge.runtimes import gguf_runtime
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.student import Writing
from tests import tiny
from tests.rule_runtime import RuleRuntime


@pytest.mark.parametrize("name", ["torch", "m.gguf", "onnx"])
def test_every_format_answers_as_its_runtime_decodes(name: str, formats: Path) -> None:
    runtime = load_runtime(formats / name, 1)
    with Student.load(formats / name, 1) as student:
        for question in tiny.PROMPTS:
            reply = student.answer(question, max_new_tokens=12)
            ids = list(runtime.stream(runtime.chat(question), 12))
            assert (reply.text, reply.tokens) == (runtime.decode(ids), len(ids))
            assert reply.complete == (len(ids) < 12)
            assert reply.prompt_tokens == len(runtime.chat(question))
            thoughtful = student.answer(question, think=5)
            assert thoughtful.thought is not None
            assert thoughtful.thought <= 5
            assert (thoughtful.answer is not None) <= ("Answer:" in thoughtful.text)


def test_a_reply_is_taken_apart_and_framed_by_the_card(tmp_path: Path) -> None:
    card = Card("toy", "Q: {text} Yes or no?", ("yes", "no"), 20)
    runtime = RuleRuntime(tmp_path, card)
    reply = Student(runtime).answer("Is it 7?")
    assert (reply.answer, reply.rationale, reply.complete) == ("yes", "", True)
    assert runtime.seen == [runtime.chat("Q: Is it 7? Yes or no?")]
    assert 0 < reply.ttft_s <= reply.seconds
    cut = Student(runtime).answer("Is it 7?", max_new_tokens=4)
    assert (cut.text, cut.answer, cut.tokens, cut.complete) == ("Answ", None, 4, False)


@pytest.mark.parametrize("bound", [0, -3, "64", 2.5, True])
def test_a_bound_is_a_whole_number(bound: Any, tmp_path: Path) -> None:
    student = Student(RuleRuntime(tmp_path))
    for name in ("think", "max_new_tokens"):
        with pytest.raises(UserError, match=f"{name} is {bound!r}; give a whole number"):
            student.answer("Is it 7?", **{name: bound})
    assert student.answer("Is it 7?").answer == "yes"


def test_a_closed_student_and_broken_text_are_refused(formats: Path) -> None:
    with Student.load(formats / "m.gguf", 1) as student, pytest.raises(UserError, match="no text"):
        student.answer("half: \ud83d")
    with pytest.raises(UserError, match="closed"):
        student.answer(tiny.PROMPTS[0])


def test_a_character_waits_for_all_its_bytes(tmp_path: Path) -> None:
    class Euro(RuleRuntime):
        def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
            yield from "1 €!".encode()

    writing = Writing(Euro(tmp_path), [1])
    assert list(writing) == ["1", " ", "€", "!"]
    assert writing.text == "1 €!"


def test_llama_cpp_is_asked_once_for_the_bytes_of_a_token(formats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    pieces: dict[int, bytes] = {}
    original = gguf_runtime.piece

    def piece(vocab: Any, token: int) -> bytes:
        asked.append(token)
        pieces[token] = original(vocab, token)
        return pieces[token]

    monkeypatch.setattr(gguf_runtime, "piece", piece)
    with Student(gguf_runtime.GGUFRuntime(formats / "m.gguf", 1)) as student:
        first, again = student.answer(tiny.PROMPTS[0]), student.answer(tiny.PROMPTS[0])
        assert len(asked) > 1
        assert sorted(asked) == sorted(set(first.ids))
        raw = b"".join(pieces[i] for i in first.ids)
        assert first.text == again.text == raw.decode("utf-8", "replace")


def test_changed_files_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "student")
    write_sums(folder)
    Student.load(folder, 1).close()
    with pytest.raises(UserError, match=r"none\.pub|model_signing"):  # the second without the extra sign
        Student.load(folder, 1, key=tmp_path / "none.pub")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(CheckError, match="SHA-256"):
        Student.load(folder, 1)


@pytest.mark.parametrize("name", ["other.gguf", "onnx/other.onnx"])
def test_a_model_that_the_sums_do_not_name_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A student\n")
    write_sums(tmp_path)
    added = tmp_path / name
    added.parent.mkdir(exist_ok=True)
    added.write_bytes(b"x")
    for model in (added if added.parent == tmp_path else tmp_path, tmp_path):
        with pytest.raises(CheckError, match="is not named by"):
            Student.load(model, 1)


def test_the_run_verb_refuses_changed_files_too(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "student")
    write_sums(folder)
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b"\n")
    with pytest.raises(CheckError, match=r"config\.json"):
        cli.cli.main(["run", str(folder), "Is it?"], standalone_mode=False)


def test_only_what_is_needed_is_imported(formats: Path) -> None:
    code = f"""import sys, bridge_edge
print(sorted(m for m in sys.modules if m.startswith("bridge_edge")))
bridge_edge.Student.load({str(formats / "m.gguf")!r}).answer("a", max_new_tokens=1)
print({{"torch", "transformers", "gguf", "onnx"}} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['bridge_edge']", "set()"]
    with pytest.raises(AttributeError, match="Studnet"):
        _ = bridge_edge.Studnet
