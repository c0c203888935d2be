"""Uploading: a dry run sends nothing, secrets and damage are refused, and a hub on loopback gets exactly the files."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.errors import UserError
from bridge_edge.parcel import CheckError, write_sums
from bridge_edge.push import CHUNK, push, push_text
from tests.test_cli import call
from tests.test_parcel import parcel

TOKEN = "hf_" + "canary" * 6


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as an upload of small files asks for."""

    server: Any

    def do_POST(self) -> None:
        text = self.body().decode()
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        if self.server.refuse is not None:
            return self.answer(403, {"error": self.server.refuse})
        if self.path == "/api/repos/create":
            self.server.created = json.loads(text)
            return self.answer(200, {"url": f"{self.server.url}/me/toy", "id": "me/toy", "name": "me/toy"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(text)["files"]
            ]
            return self.answer(200, {"files": files})
        lines = [json.loads(line) for line in text.splitlines()]
        self.server.summary = lines[0]["value"]["summary"]
        for line in lines[1:]:
            self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(200, {"commitUrl": f"{self.server.url}/me/toy/commit/{'0' * 40}", "commitOid": "0" * 40})

    def body(self) -> bytes:
        """Of the length that is named, or in chunks, each behind its length."""
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        found = b""
        while length := int(self.rfile.readline(), 16):
            found += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self, code: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Silence."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.seen, server.files, server.refuse, server.created = [], {}, None, None
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this hub is on loopback
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return parcel(tmp_path / "gguf-q8_0")


def test_a_dry_run_lists_and_sends_nothing(folder: Path, hub: Any) -> None:
    told = push(folder, "me/toy", yes=False, endpoint=hub.url)
    assert hub.seen == []
    assert told["sent"] is False
    assert [f["name"] for f in told["files"]] == [
        "README.md", "onnx/model.onnx", "parity.json", "toy-Q8_0.gguf", "SHA256SUMS",
    ]  # fmt: skip
    text = push_text(told)
    assert "Nothing was sent" in text
    assert "16,384 B" in text
    assert "(private)" in text


def test_the_hub_gets_exactly_the_files(folder: Path, hub: Any) -> None:
    (folder / "notes.txt").write_text("not part of it")
    told = push(folder, "me/toy", yes=True, endpoint=hub.url)
    assert told["sent"] is True
    assert told["url"] == f"{hub.url}/me/toy"
    assert told["left_out"] == ["notes.txt"]
    assert hub.created.get("private") is True or hub.created.get("visibility") == "private"
    assert hub.summary == "Upload gguf-q8_0"
    assert hub.files == {f["name"]: (folder / f["name"]).read_bytes() for f in told["files"]}
    assert {token for _, token in hub.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in push_text(told)


@pytest.mark.parametrize(
    ("reason", "said"), [("no rights to write there", "no rights to write there"), (" ", ".*403 Forbidden")]
)
def test_a_refusal_is_one_line_without_the_token(reason: str, said: str, folder: Path, hub: Any) -> None:
    hub.refuse = reason
    with pytest.raises(UserError, match=rf"the hub refused \(403\): {said}") as caught:
        push(folder, "me/toy", yes=True, endpoint=hub.url)
    assert "HF_TOKEN" in caught.value.hint
    assert TOKEN not in str(caught.value)
    assert hub.files == {}


def test_a_hub_that_is_not_there(folder: Path, hub: Any) -> None:
    hub.server_close()
    with pytest.raises(UserError, match="the upload failed"):
        push(folder, "me/toy", yes=True, endpoint="http://127.0.0.1:9")


def test_offline_mode_is_named(folder: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        push(folder, "me/toy", yes=True, endpoint=hub.url)
    assert hub.seen == []


SECRETS = {
    "a private key": b"-----BEGIN EC PRIVATE KEY-----",
    "a Hugging Face token": TOKEN.encode(),
    "an OpenAI key": b"key: sk-proj-" + b"Ab0_" * 12,
    "an AWS key": b"AKIA" + b"Z7" * 8,
    "a GitHub token": b"ghp_" + b"a1B2" * 9,
    "a password in an address": b"https://me:canary-pass@example.org/x",
    "the value of OPENAI_API_KEY": b"my-own-gateway-canary",
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("at", [0, CHUNK - 9])
def test_contents_that_are_secrets_are_refused(
    kind: str, at: int, folder: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "my-own-gateway-canary")
    monkeypatch.setenv("HF_TOKEN", "")
    (folder / "toy-Q8_0.gguf").write_bytes(b"\n" * at + SECRETS[kind] + b"\n more")
    (folder / "export.json").unlink()
    write_sums(folder)
    with pytest.raises(CheckError, match=rf"'toy-Q8_0\.gguf' contains {kind}") as caught:
        push(folder, "me/toy", yes=True, endpoint=hub.url)
    assert "canary" not in str(caught.value)
    assert hub.seen == []


@pytest.mark.parametrize("name", [".env", "signing.pem", "ledger.sqlite", "id_rsa", ".git/config", "sub/.env.local"])
def test_names_of_secrets_are_refused(name: str, folder: Path, hub: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("anything")
    (folder / "export.json").unlink()
    write_sums(folder)
    with pytest.raises(CheckError, match="name of a secret"):
        push(folder, "me/toy", yes=True, endpoint=hub.url)
    assert hub.seen == []


def test_the_runs_own_key_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parcel(tmp_path / "run" / "export" / "a")
    (tmp_path / "run" / "manifest.json").write_text("{}")
    (tmp_path / "run" / "recipe.yaml").write_text("teacher:\n  kind: openai\n  api_key_env: MY_GATEWAY\n")
    push(folder, "me/toy", yes=False)
    monkeypatch.setenv("MY_GATEWAY", "a student of mine")
    (folder / "README.md").write_text("# a student of mine\n")
    (folder / "export.json").unlink()
    write_sums(folder)
    with pytest.raises(CheckError, match="the value of MY_GATEWAY"):
        push(folder, "me/toy", yes=False)


@pytest.mark.parametrize("repo", ["a/b/c", "../x", "with space", "", "me/.."])
def test_repository_names(folder: Path, repo: str) -> None:
    with pytest.raises(UserError, match="no repository name"):
        push(folder, repo, yes=False)


def test_the_verbs(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call(capsys, monkeypatch, "push", str(folder), "--repo", "me/toy", "--json")
    assert (code, json.loads(out)["sent"]) == (0, False)
    assert call(capsys, monkeypatch, "verify", str(folder))[1].strip().endswith("4 files, the sums hold")
    (folder / "README.md").write_text("changed")
    for words in (("push", str(folder), "--repo", "me/toy"), ("verify", str(folder))):
        code, _, err = call(capsys, monkeypatch, *words)
        assert code == 1
        assert "SHA-256 differs" in err
        assert len(err.splitlines()) == 1
