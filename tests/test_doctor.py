from __future__ import annotations

import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_edge import doctor, host

INTEL = """processor\t: 0
model name\t: Toy Xeon @ 2.0GHz
flags\t\t: fpu sse avx avx2 fma f16c avx512f avx512_bf16 avx512_vnni
processor\t: 1
model name\t: Other
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n\nModel\t\t: Raspberry Pi 5\n"


def requirement(text: str) -> doctor.Check:
    found = doctor.check_requirement(text)
    assert found is not None
    return found


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_processors(tmp_path: Path) -> None:
    intel, arm = written(tmp_path / "intel", INTEL), written(tmp_path / "arm", ARM)
    assert host.cpu_model(intel) == "Toy Xeon @ 2.0GHz"
    assert host.cpu_features(intel) == ["avx", "avx2", "fma", "f16c", "avx512", "avx512_bf16", "vnni"]
    assert host.cpu_model(arm) == "Raspberry Pi 5"
    assert host.cpu_features(arm) == ["neon", "dotprod", "i8mm"]


def test_cgroup_limits_of_both_versions(tmp_path: Path) -> None:
    two, one, none = tmp_path / "v2", tmp_path / "v1", tmp_path / "none"
    written(two / "cpu.max", "50000 100000\n")
    written(two / "memory.max", "1048576\n")
    written(two / "memory.current", "48576\n")
    written(two / "cpu.stat", "nr_periods 9\nnr_throttled 4\n")
    written(one / "cpu/cpu.cfs_quota_us", "-1\n")
    written(one / "cpu/cpu.cfs_period_us", "100000\n")
    written(one / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    written(one / "cpu/cpu.stat", "nr_throttled 2\n")
    assert (host.cpu_quota(two), host.usable_cores(two)) == (0.5, 1)
    assert (host.memory_limit(two), host.memory_available(two)) == (1048576, 1_000_000)
    assert (host.cpu_quota(one), host.memory_limit(one)) == (None, None)
    assert (host.cpu_throttled(two), host.cpu_throttled(one), host.cpu_throttled(none)) == (4, 2, None)
    assert host.usable_cores(none) == host.affinity()
    written(two / "cpu.max", "max 100000\n")
    written(two / "memory.max", "max\n")
    assert (host.cpu_quota(two), host.memory_limit(two)) == (None, None)
    written(one / "cpu/cpu.cfs_quota_us", "150000\n")
    assert host.cpu_quota(one) == 1.5


def test_python_version() -> None:
    assert doctor.check_python((3, 11, 0)).status == "ok"
    assert doctor.check_python((3, 10, 9)).status == "fail"


def test_requirements() -> None:
    assert requirement("numpy>=2").status == "ok"
    old = requirement("numpy>=900")
    assert (old.status, old.fix) == ("fail", "pip install 'numpy>=900'")
    other = requirement("pytest>=900")  # not what the embedded scale runs on
    assert other.status == "warn"
    missing = requirement("no-such-package-here>=1")
    assert (missing.status, missing.value) == ("warn", "missing (needs >=1)")
    assert doctor.check_requirement('pytest>=1; extra == "dev"') is None
    assert doctor.check_packages("no-such-distribution")[0].status == "warn"


def test_a_probe_that_dies_hangs_or_lies_is_survived() -> None:
    assert doctor.probe("print('noise'); print('{\"a\": 1}')") == {"a": 1}
    assert "signal 4" in doctor.probe("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert doctor.probe("raise ImportError('no lib')") == "ImportError: no lib"
    assert doctor.probe("print('hello')") == "no usable output (exit code 0)"
    assert "no answer" in doctor.probe("import time; time.sleep(30)", seconds=0.3)
    (llama,) = doctor.check_llama("raise ImportError('no lib')")
    assert (llama.status, llama.value) == ("fail", "ImportError: no lib")
    assert doctor.check_gpu("raise ImportError('no torch')").status == "fail"


def test_llama_and_gpu_values() -> None:
    info = {"version": "9.9", "info": "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | ", "mmap": True, "gpu": False}
    (found,) = doctor.check_llama(f"print({json.dumps(json.dumps(info))})")
    assert found.value == "9.9, mmap yes, GPU offload no; SSE3 AVX2"
    (found,) = doctor.check_llama(
        f"print({json.dumps(json.dumps({**info, 'info': 'CPU : AVX2 = 1 | AMX_INT8 = 1 | '}))})"
    )
    assert (found.status, found.value.partition("; ")[2]) == (
        "ok",
        "AVX2 AMX_INT8 (AMX is left unused: many builds crash in it)",
    )
    gpus = {"gpus": [{"name": "Toy 1", "gib": 11.9}], "mps": False}
    assert doctor.check_gpu(f"print({json.dumps(json.dumps(gpus))})").value == "Toy 1 (12 GiB)"


def test_memory_and_disk(tmp_path: Path) -> None:
    gib = 1 << 30
    assert [doctor.check_memory(n * gib, None).status for n in (0, 1, 4)] == ["fail", "warn", "ok"]
    assert "limit 2.0 GiB" in doctor.check_memory(gib, 2 * gib).value
    assert "GiB free" in doctor.check_disk(tmp_path).value


def test_tools() -> None:
    assert doctor.check_tool("python", ("no-such-command-here", "python3")).status == "ok"
    assert doctor.check_tool("x", ("no-such-command-here",)).status == "warn"


def test_embedded_models(tmp_path: Path) -> None:
    path = tmp_path / "student" / "model.safetensors"
    assert doctor.check_model(path).status == "fail"
    head = json.dumps({"__metadata__": {}, "w": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    written(path, "").write_bytes(struct.pack("<Q", len(head)) + head + b"12345678")
    whole = doctor.check_model(path)
    assert (whole.name, whole.status) == ("embedded student", "ok")
    assert whole.value.startswith("1 tensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert "not a whole" in doctor.check_model(path).value
    for bad in (b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", struct.pack("<Q", 2) + b"[]"):
        path.write_bytes(bad)
        assert doctor.check_model(path).status == "fail"


class Hub(http.server.BaseHTTPRequestHandler):
    code = 200

    def do_HEAD(self) -> None:
        self.send_response(self.code)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Silence."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:canary-pass@127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_hub(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    bare = hub.replace("user:canary-pass@", "")
    for code, status in ((200, "ok"), (401, "ok"), (503, "warn")):
        monkeypatch.setattr(Hub, "code", code)
        found = doctor.check_hub({"HF_ENDPOINT": bare})
        assert (found.status, f"status {code}" in found.value) == (status, True)
    assert "canary-pass" not in str(doctor.check_hub({"HF_ENDPOINT": hub}))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        assert name in doctor.check_hub({"HF_ENDPOINT": bare, name: "1"}).value
    assert doctor.check_hub({"HF_ENDPOINT": "not an address"}).status == "warn"


def test_a_hub_that_never_answers_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        found = doctor.check_hub({"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}, seconds=0.3)
        assert time.monotonic() - start < 2.5
    assert found.status == "warn"


def test_keys_are_never_shown() -> None:
    name = "TOY_KEY"
    assert doctor.check_key(name, {name: "canary-1234"}) == doctor.Check(name, "ok", "set")
    assert doctor.check_key(name, {name: " "}).status == "warn"


def test_the_whole_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "canary-1234")
    checks = doctor.diagnose(probe_hub=False, keys=("TOY_KEY",))
    names = [check.name for check in checks]
    for name in ("python", "torch", "llama.cpp", "gpu", "cpu", "cores", "memory", "disk", "cmake", "embedded student"):
        assert name in names
    assert "hub" not in names
    assert all(check.fix for check in checks if check.status != "ok")
    data, text = doctor.to_json(checks), doctor.table(checks)
    assert data["ok"] == (not any(check.status == "fail" for check in checks))
    assert "canary-1234" not in json.dumps(data) + text
    assert "TOY_KEY" in text
