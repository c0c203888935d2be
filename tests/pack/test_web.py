"""The target web without Node and a browser: what lies in the folder, and what is refused before npm is asked."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from bridge_edge.benchmarks.web import Case, gaps_of
from bridge_edge.data.card import Card, parse
from bridge_edge.data.thinking import ROOM, asked, thought
from bridge_edge.errors import UserError
from bridge_edge.pack import Artifact, PackOptions, open_artifact, pack_to, web, web_engine
from bridge_edge.pack.web_server import POLICY, open_server
from bridge_edge.pack.web_student import framing, measured, student_facts, student_words
from bridge_edge.parcel import write_sums
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.student import Student, ask_prompt
from tests import tiny


@pytest.fixture(scope="module", params=["gguf", "onnx"])
def artifact(request: pytest.FixtureRequest, own_formats: Path) -> Artifact:
    """A tiny student as an export: a card with budgets, sums, figures of its parity."""
    if request.param == "onnx":
        folder = own_formats / "onnx"
        Card("toy", "{text} Yes or no?", ("Yes", "No"), 32, ("Is 2 < 3?",), {"think": [16, 8]}).save(folder)
    else:
        folder = own_formats / "gguf"
        folder.mkdir()
        (own_formats / "m.gguf").rename(folder / "m.gguf")
    write_sums(folder)
    return open_artifact(str(folder), own_formats)


@pytest.fixture
def without_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of two files, so that packing needs no Node."""

    def fetch(kind: str, folder: Path) -> str:
        folder.mkdir(parents=True)
        (folder / "wllama.js").write_text("export {}")
        (folder / "wllama.wasm").write_bytes(bytes(1000))
        return "engine 1.0"

    monkeypatch.setattr(web, "fetch_engine", fetch)


def test_the_page_frames_a_question_as_the_runtime_does(artifact: Artifact) -> None:
    found = framing(artifact)
    runtime = load_runtime(artifact.path, 1)
    for prompt in tiny.PROMPTS:
        assert runtime.encode(prompt.join(found["frame"])) == runtime.chat(prompt)
    assert found["ends"] == sorted(runtime.eos_ids)
    runtime.close()


@pytest.mark.parametrize("artifact", ["onnx"], indirect=True)
def test_what_the_page_knows_comes_from_the_card(artifact: Artifact) -> None:
    facts = student_facts(artifact)
    assert facts["question"] == ["", " Yes or no?"]
    assert facts["examples"] == ["Is 2 < 3?"]
    assert facts["budgets"] == [8, 16]
    assert facts["room"] == ROOM
    assert "Q\n" + facts["signal"].replace("{budget}", "16") == asked("Q", 16)


def test_accuracy_comes_with_an_interval(tmp_path: Path) -> None:
    assert measured(tmp_path) == []
    parity = {"parity": {"accuracy": {"accuracy_b": 0.9, "n": 100}}}
    (tmp_path / "parity.json").write_text(json.dumps(parity))
    assert measured(tmp_path) == ["Of this file: 90.0% on 100 dev items, 95 % interval 82.6% to 94.5%"]


@pytest.mark.usefixtures("without_npm")
def test_every_file_of_the_app_is_named_with_its_digest(artifact: Artifact, tmp_path: Path) -> None:
    told = pack_to("web", artifact, tmp_path / "app", PackOptions())
    script = (tmp_path / "app" / "sw.js").read_text()
    release = json.loads(script[script.index("{") : script.rindex("}") + 1])
    assert release["version"] == told["version"]
    files = {name: digest for name, digest, _ in release["files"]}
    for name, digest in files.items():
        assert hashlib.sha256((tmp_path / "app" / name).read_bytes()).hexdigest() == digest
    present = {p.relative_to(tmp_path / "app").as_posix() for p in (tmp_path / "app").rglob("*") if p.is_file()}
    assert present - set(files) == {"SHA256SUMS", "VERSIONS.json", "sw.js"}
    assert told["wasm"] == {"vendor/wllama.wasm": 1000}
    assert f"bridge-edge pack {artifact.parcel.folder} --target web --serve" in "\n".join(told["lines"])
    manifest = json.loads((tmp_path / "app" / "app.webmanifest").read_text())
    assert {icon["src"] for icon in manifest["icons"]} <= set(files)
    assert "{title}" not in (tmp_path / "app" / "index.html").read_text()


@pytest.mark.usefixtures("without_npm")
def test_an_unchanged_student_keeps_its_version(artifact: Artifact, tmp_path: Path) -> None:
    first = pack_to("web", artifact, tmp_path / "app", PackOptions())
    again = pack_to("web", artifact, tmp_path / "app", PackOptions())
    assert again["version"] == first["version"]
    assert again["changed"] == []


@pytest.mark.parametrize(("size", "parts"), [(0, [0]), (64, [64]), (65, [64, 1]), (200, [64, 64, 64, 8])])
def test_parts_put_together_are_the_file(size: int, parts: list[int], tmp_path: Path) -> None:
    whole = bytes(i % 251 for i in range(size))
    (tmp_path / "m.gguf").write_bytes(whole)
    found = web.split(tmp_path / "m.gguf", tmp_path / "model", part=64)
    assert [p["bytes"] for p in found["parts"]] == parts
    assert b"".join((tmp_path / p["path"]).read_bytes() for p in found["parts"]) == whole
    assert found["bytes"] == size


@pytest.mark.parametrize("artifact", ["gguf"], indirect=True)
def test_a_model_that_no_browser_holds_is_refused(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_GGUF", 10)
    with pytest.raises(UserError, match="smaller type"):
        web.model_files(artifact)


def test_the_page_and_the_server_allow_the_same() -> None:
    assert f'content="{POLICY}"' in (web.WEBAPP / "index.html").read_text()
    assert "unsafe-inline" not in POLICY
    assert "'unsafe-eval'" not in POLICY


@pytest.mark.parametrize("kind", ["gguf", "onnx"])
def test_every_package_is_locked_by_its_digest(kind: str) -> None:
    lock = json.loads((web.WEBAPP / kind / "package-lock.json").read_text())["packages"]
    wanted = json.loads((web.WEBAPP / kind / "package.json").read_text())["dependencies"]
    assert lock[""]["dependencies"] == wanted
    packages = {name: entry for name, entry in lock.items() if name}
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert {f"node_modules/{name}" for name in web_engine.FILES[kind]} <= set(packages)


def modules(folder: Path, imports: str) -> Path:
    """What npm would install for ONNX, in a few bytes."""
    for package, files in web_engine.FILES["onnx"].items():
        for name in files:
            (folder / package / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / package / name).write_text(imports)
        (folder / package / "package.json").write_text('{"version": "9.9.9", "license": "MIT"}')
    return folder


def test_bare_imports_become_files(tmp_path: Path) -> None:
    place = modules(tmp_path / "m", 'import a from"onnxruntime-common";import b from"onnxruntime-web/webgpu";')
    assert web_engine.copy_engine("onnx", place, tmp_path / "v") == "@huggingface/transformers 9.9.9"
    assert (tmp_path / "v" / "transformers.js").read_text() == 'import a from"./ort.js";import b from"./ort.js";'
    assert "onnxruntime-web 9.9.9: MIT" in (tmp_path / "v" / "LICENSES.txt").read_text()


def test_an_engine_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lock file"):
        web_engine.copy_engine("onnx", modules(tmp_path / "m", ""), tmp_path / "v")


def test_without_npm_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"install Node\.js"):
        web_engine.fetch_engine("gguf", tmp_path / "v")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("npm error code ENOTFOUND\nnpm error request to https://registry failed", "cannot reach its registry"),
        ("npm error code EINTEGRITY\nnpm error sha512 differs", "npm ci failed: sha512 differs"),
    ],
)
def test_what_npm_says_becomes_one_line(said: str, expected: str, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\nprintf '%s' '{said}' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(UserError, match=expected):
        web_engine.install(str(npm), tmp_path)


@pytest.fixture
def port(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "sub").mkdir()
    server = open_server(tmp_path, 0, isolated=getattr(request, "param", True))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def get(port: int, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse()


@pytest.mark.parametrize(("port", "policy"), [(True, "require-corp"), (False, None)], indirect=["port"])
def test_the_server_sends_what_threads_need(port: int, policy: str | None) -> None:
    answer = get(port, "/")
    assert answer.read() == b"page"
    assert answer.getheader("Cross-Origin-Embedder-Policy") == policy
    assert "default-src 'none'" in str(answer.getheader("Content-Security-Policy"))


@pytest.mark.parametrize("path", ["/sub/", "/../secret", "/%2e%2e/etc/passwd", "/nothing"])
def test_the_server_gives_nothing_else(port: int, path: str) -> None:
    assert get(port, path).status == 404


def test_a_browser_that_goes_away_in_a_file_is_no_matter(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large").write_bytes(bytes(64 << 20))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /large HTTP/1.0\r\n\r\n")
        assert connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
    assert get(port, "/").read() == b"page"
    time.sleep(0.5)
    assert capfd.readouterr().err == ""


def test_a_taken_port_is_said(port: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--port"):
        open_server(tmp_path, port)


TEXTS = (
    "",
    "It is so.\nAnswer: Yes",
    "Answer: no.",
    "a\nAnswer: maybe",
    "a\nAnswer:",
    "Answer: Yes\nAnswer: 1,250\nmore",
    'x\nAnswer:  "$1,250.00" ',
    "a line\nAns",
    "a line\n",
    "no marker, $5,00 and 1,2345",
)
QUESTIONS = ("Is 2 < 3?", " Is 2 < 3? Yes or no? ", "Is it {so}, $& or $1?", "Yes or no?")
ASK = """
const { promptOf, parse, thought } = await import(process.argv[1]);
const { students, texts, questions } = JSON.parse(process.argv[2]);
const ends = (text) => [...text].map((_, i) => i + 1);
console.log(JSON.stringify(students.map((student) => ({
  prompts: questions.flatMap((q) => [promptOf(student, q, null), promptOf(student, q, 16)]),
  parsed: texts.map((text) => parse(student, text)),
  thought: texts.map((text) => thought(student, text, ends(text))),
}))));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not here")
def test_the_page_reads_and_asks_as_python_does() -> None:
    cards = [
        Card("toy", "{text} Yes or no?", ("Yes", "No", "$1,250.00"), extra={"think": [16]}),
        Card("free", "Q: {text}\nGive a number."),
    ]
    students = [student_words(card) | {"frame": ["<", ">"], "form": "NFC"} for card in cards]
    told = json.dumps({"students": students, "texts": TEXTS, "questions": QUESTIONS})
    command = ["node", "--input-type=module", "-e", ASK, (web.WEBAPP / "student.js").as_uri(), told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for card, found in zip(cards, json.loads(done.stdout), strict=True):
        wanted = [f"<{ask_prompt(card, q, think)}>" for q in QUESTIONS for think in (None, 16)]
        assert found["prompts"] == wanted
        assert found["parsed"] == [asdict(parse(text, card.answers)) for text in TEXTS]
        counts = [thought(lambda ids: "".join(map(chr, ids)), [ord(c) for c in text]) for text in TEXTS]
        assert found["thought"] == [{"tokens": n, "answering": there} for n, there in counts]


def test_how_far_apart_the_likeliest_tokens_lie_where_another_reply_parts(tmp_path: Path) -> None:
    with Student.load(tiny.checkpoint(tmp_path / "student"), 1) as student:
        question = tiny.PROMPTS[0]
        wanted = student.answer(question, max_new_tokens=6)
        case = Case(question, None, wanted, gaps_of(student, question, None, wanted))
        prompt = student.runtime.chat(ask_prompt(student.card, question))
        logits = student.runtime.logits([*prompt, *wanted.ids])[len(prompt) - 1 :]
        assert len(case.gaps) == len(wanted.ids)
        for place, (own, gap) in enumerate(zip(wanted.ids, case.gaps, strict=True)):
            row = sorted(enumerate(logits[place]), key=lambda pair: pair[1])
            assert row[-1][0] == own
            assert gap == pytest.approx(row[-1][1] - row[-2][1])
            assert case.gap([*wanted.ids[:place], own + 1]) == gap
        assert case.gap(wanted.ids) is None
        assert case.gap([*wanted.ids, 1]) is None
