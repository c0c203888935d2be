"""Benching over SSH and adb: what goes over, what comes back, and that nothing stays behind.

The shell of the far side is run in two ways: by a stand-in for ssh or adb that hands the command to this machine's
shell, and through a real sshd on loopback where one is installed. No phone is tested.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bridge_edge.benching import Request, bench_models
from bridge_edge.benchmarks import reached, report
from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.benchmarks.reached import Host, Phone, bench_there
from bridge_edge.benchmarks.schema import check
from bridge_edge.data.samples import Sample
from bridge_edge.errors import Failures, UserError, told
from bridge_edge.export.quantize import make_gguf
from tests import tiny

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
ITEMS = [Sample(prompt, "yes") for prompt in tiny.PROMPTS]
QUICK = BenchOptions(
    threads=1, repetitions=1, warmup=0, prefill=(8,), decode_tokens=4, memory=False, rest_s=0, retries=0
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.checkpoint(folder / "torch")
    (folder / "export").mkdir()
    make_gguf(folder / "torch", folder / "export" / "m.gguf", "F32", "toy")
    return folder / "export" / "m.gguf"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the far side puts its folder."""
    place = tmp_path / "there"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def stand_in(folder: Path, before: str = "") -> tuple[str, ...]:
    """An ssh that runs the command here; `before` is what goes wrong on the way."""
    script = folder / "ssh"
    script.write_text(f'while [ "$1" != -- ]; do shift; done\nshift 2\n{before}\neval "$*"\n')
    return ("sh", str(script))


def test_a_report_comes_home_and_nothing_stays(model: Path, there: Path, tmp_path: Path) -> None:
    host = Host("user@board", sys.executable, stand_in(tmp_path))
    found, same = bench_there(host, [model.parent, model], ITEMS, QUICK, 300)  # a folder, and the file itself
    check(found)
    assert found["artifact"]["path"] == same["artifact"]["path"] == str(model)
    assert found["protocol"]["compared_with"] == [str(model)]
    assert found["artifact"]["bytes"] == model.stat().st_size
    assert found["quality"]["n"] == len(ITEMS)
    assert found["environment"]["reached_by"] == "ssh"
    assert str(there) not in json.dumps(found)
    assert not list(there.iterdir())


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """An adb on the PATH that knows one device, whose shell is this machine's."""
    program = tmp_path / "bin" / "adb"
    program.parent.mkdir()
    known = 'test "$2" = 0123 || { echo "adb: device \'$2\' not found" >&2; exit 1; }'
    program.write_text(f'#!/bin/sh\ntest "$1 $3 $4" = "-s shell -T" || exit 9\n{known}\nshift 4; eval "$*"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return Phone("0123", sys.executable)


def test_over_adb_what_fails_does_not_take_the_others_along(
    model: Path, phone: Phone, there: Path, tmp_path: Path
) -> None:
    broken, failures = tmp_path / "broken.gguf", Failures()
    broken.write_bytes(b"GGUF" + bytes(100))
    (found,) = bench_there(phone, [broken, model], ITEMS[:1], QUICK, 300, failures)
    check(found)
    assert found["artifact"]["path"] == str(model)
    assert found["environment"]["reached_by"] == "adb"
    assert list(failures.found) == [str(broken)]
    assert str(told(failures.found[str(broken)])).startswith("0123 cannot measure it: ")
    assert not list(there.iterdir())


LLAMA_BENCH = """#!{python}
import json, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if given["-m"].endswith("bad.gguf"):
    sys.exit("error: failed to load model")
assert open(given["-m"], "rb").read(4) == b"GGUF" and given["-o"] == "jsonl"
print("a line of a library")
for threads in given["-t"].split(","):
    for prompt, new in ((int(given["-p"]), 0), (0, int(given["-n"]))):
        sizes = {{"n_threads": int(threads), "n_depth": int(given["-d"]), "n_prompt": prompt, "n_gen": new}}
        seen = {{"model_filename": given["-m"], "cpu_info": "toy", "samples_ns": [5e8] * int(given["-r"])}}
        print(json.dumps({{**seen, **sizes}}))
"""  # prints what llama-bench prints of a test, as far as it is read


def test_without_a_python_there_llama_bench_measures(model: Path, phone: Phone, there: Path, tmp_path: Path) -> None:
    program, bad, folder = tmp_path / "llama-bench", tmp_path / "bad.gguf", tmp_path / "onnx"
    program.write_text(LLAMA_BENCH.format(python=sys.executable))
    program.chmod(0o755)
    bad.write_bytes(b"GGUF")
    folder.mkdir()
    (folder / "genai_config.json").write_text("{}")
    failures, options = Failures(), BenchOptions(repetitions=3, sweep=(1, 2), prompt_tokens=(64,), depths=(16,))
    paths = [bad, model.parent, folder]
    one, two = bench_there(phone, paths, ITEMS, options, 300, failures, str(program))
    check(one)
    assert (one["protocol"]["threads"], two["protocol"]["threads"]) == (1, 2)
    assert one["artifact"]["path"] == str(model)
    assert one["protocol"]["compared_with"] == [str(model)]
    assert [(t["test"], t["tps"]["mean"], t["tps"]["n"]) for t in one["field"]] == [
        ("pp64@d16", 128.0, 3), ("tg128@d16", 256.0, 3),
    ]  # fmt: skip
    assert not one["publishable"]
    text = report.table([one, two])
    assert "pp64@d16, tokens/s" in text
    assert "load again" not in text  # llama-bench says nothing of it
    assert {Path(name).name: str(told(error)).split(";")[0] for name, error in failures.found.items()} == {
        "onnx": "llama-bench cannot run onnx", "bad.gguf": "0123 cannot measure it: llama-bench ended with 1",
    }  # fmt: skip
    assert not list(there.iterdir())
    with pytest.raises(UserError, match="llama-bench ended with 127"):
        bench_there(phone, [model], ITEMS, options, 300, None, "/no/such/llama-bench")


def test_the_verb_reaches_a_phone(model: Path, phone: Phone, there: Path, tmp_path: Path) -> None:
    program, items = tmp_path / "llama-bench", tmp_path / "items.jsonl"
    program.write_text(LLAMA_BENCH.format(python=sys.executable))
    program.chmod(0o755)
    items.write_text('{"text": "Is 7 odd?", "answer": "yes"}\n', encoding="utf-8")
    request = Request(models=(str(model),), files=(items,), threads="1", prompt_tokens="64", depth="16", keep=False)
    (found,), text = bench_models(replace(request, adb="0123", llama_bench=str(program)))
    assert found["environment"]["reached_by"] == "adb"
    assert "pp64@d16, tokens/s" in text
    with pytest.raises(UserError, match="cannot reach 4567"):
        bench_models(replace(request, adb="4567"))


def test_a_phone_that_is_not_there(model: Path, phone: Phone, there: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot reach 4567: adb: device '4567' not found; .adb -s 4567 shell true"):
        bench_there(Phone("4567"), [model], ITEMS, QUICK, 300)
    with pytest.raises(UserError, match="exit code 127"):  # the phone's own, not adb's
        bench_there(Phone("0123", "/no/such/python"), [model], ITEMS, QUICK, 300)
    with pytest.raises(UserError, match="platform-tools"):
        bench_there(Phone("0123", adb=(str(tmp_path / "none"),)), [model], ITEMS, QUICK, 300)
    with pytest.raises(UserError, match="--adb is"):
        Phone("a b")


def test_the_runner_needs_nothing_of_this_package_to_be_installed(tmp_path: Path) -> None:
    """In a Python that sees no installed packages it says what is missing, from the zip file alone."""
    (tmp_path / "runner.zip").write_bytes(reached.runner())
    (tmp_path / "job.json").write_text('{"options": {}, "samples": [], "artifacts": []}')
    command = [sys.executable, "-S", "-m", "bridge_edge.benchmarks.runner", "job.json"]
    env = {"PYTHONPATH": str(tmp_path / "runner.zip"), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["error"].startswith("its Python lacks ")
    assert "pip install" in answer["hint"]


def test_what_goes_wrong_there_is_one_clear_line_here(model: Path, there: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    dies = tmp_path / "dies"  # as a process does that the kernel ends for want of memory
    dies.write_text("#!/bin/sh\nkill -9 $$\n")
    dies.chmod(0o755)
    for python, before, path, said in (
        ("/no/such/python", "", model, "measuring on board failed, exit code 127"),
        (sys.executable, "echo Connection refused >&2; exit 255", model, "cannot reach board: Connection refused"),
        (str(dies), "", model, "measuring on board failed, exit code 137"),
        (sys.executable, "", broken, "board cannot measure: "),
    ):
        with pytest.raises(UserError, match=said):
            bench_there(Host("board", python, stand_in(tmp_path, before)), [path], ITEMS, QUICK, 300)
        assert not list(there.iterdir()), said
    for name in ("", "-oProxyCommand=touch x", "a b"):
        with pytest.raises(UserError, match="--host is"):
            Host(name)
    with pytest.raises(UserError, match="OpenSSH client"):
        bench_there(Host("board", ssh=(str(tmp_path / "none"),)), [model], ITEMS, QUICK, 300)


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, ...]]:
    """A real sshd on loopback with keys of its own; yields the client that may log in."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nSetEnv TMPDIR={folder / 'there'}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what sshd as root wants and its service would make
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.PIPE)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        known = ("-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "StrictHostKeyChecking=accept-new")
        yield (*reached.SSH, "-F", "none", "-p", str(port), "-i", str(folder / "user"), *known)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(not (Path(SSHD).is_file() and shutil.which("ssh")), reason="no sshd and ssh on this machine")
def test_through_a_real_sshd(model: Path, there: Path, tmp_path: Path) -> None:
    name = f"{getpass.getuser()}@127.0.0.1"
    with server(tmp_path) as ssh:
        (found,) = bench_there(Host(name, sys.executable, ssh), [model], ITEMS[:1], QUICK, 300)
        check(found)
        assert found["quality"]["n"] == 1
        assert not list(there.iterdir())
        stranger = tuple(str(tmp_path / "host") if word == str(tmp_path / "user") else word for word in ssh)
        with pytest.raises(UserError, match=r"cannot reach .*Permission denied"):
            bench_there(Host(name, sys.executable, stranger), [model], ITEMS[:1], QUICK, 300)
    with pytest.raises(UserError, match=r"cannot reach .*refused"):
        bench_there(Host(name, sys.executable, ssh), [model], ITEMS[:1], QUICK, 300)
