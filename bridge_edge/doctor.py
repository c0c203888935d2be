"""`doctor`: is this machine ready, and if not, which command mends it?

Each probe gives one Check. `fail` means the default `embedded` scale cannot run; anything needed only by other
scales, or only for speed, is at most `warn`. Compiled packages are probed in a child process, because a library
built for another processor does not raise, it kills. No probe waits long, and no secret's value is ever read into a
message. Not covered: GPU memory needs of a recipe, the correctness of drivers, vLLM and Ray.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from bridge_edge import host
from bridge_edge.errors import UserError
from bridge_edge.plain import grid

Status = Literal["ok", "warn", "fail"]
GIB = 1 << 30
PROBE_SECONDS = 120.0  # importing torch on a busy small machine takes tens of seconds
# What the embedded scale runs on; the other requirements serve other scales or formats.
NEEDED = {
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "click", "pydantic", "omegaconf", "rich", "jinja2",
    "psutil", "gguf", "llama-cpp-python",
}  # fmt: skip
MODELS = Path(__file__).parent / "embedded" / "models"
TRUE = {"1", "on", "yes", "true"}


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it stands, what was found, and the command that mends it ("" if ok)."""

    name: str
    status: Status
    value: str
    fix: str = ""


def diagnose(probe_hub: bool = True, keys: Sequence[str] = ("OPENAI_API_KEY",)) -> list[Check]:
    """Every check of this machine; `keys` are names of environment variables that should hold API keys."""
    probes: list[Callable[[], list[Check]]] = [
        lambda: [check_python()],
        check_packages,
        check_llama,
        lambda: [check_gpu()],
        check_cpu,
        lambda: [check_optimum()],
        lambda: [check_memory(host.memory_available(), host.memory_limit()), check_disk(Path.cwd())],
        lambda: [check_tool("compiler", ("cc", "gcc", "clang", "cl")), check_tool("cmake", ("cmake",))],
        lambda: [check_model(MODELS / name / "model.safetensors") for name in ("ta", "student")],
        lambda: [check_hub(os.environ)] if probe_hub else [],
        lambda: [check_key(name, os.environ) for name in keys],
    ]
    return [check for probe in probes for check in probe()]


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Check:
    value = f"{'.'.join(map(str, version))} ({platform.system()} {platform.machine()})"
    if tuple(version) >= (3, 11):
        return Check("python", "ok", value)
    return Check("python", "fail", value, "install Python 3.11 or newer and make a new virtual environment")


def check_packages(distribution: str = "bridge-edge") -> list[Check]:
    """Installed versions against the requirements in the installed metadata."""
    try:
        own, requires = importlib.metadata.version(distribution), importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return [Check(distribution, "warn", "runs from a source tree, not installed", "pip install -e .")]
    return [Check(distribution, "ok", own), *(c for text in requires if (c := check_requirement(text)))]


def check_requirement(text: str) -> Check | None:
    """A Check for one requirement such as "torch>=2.9"; None where its marker does not apply here."""
    # Imported here: packaging comes with the dependencies, and doctor must also run where those are missing.
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return Check(text, "warn", "not checked: the package 'packaging' is missing", "pip install packaging")
    wanted = Requirement(text)
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
        return None
    bad: Status = "fail" if wanted.name in NEEDED else "warn"
    fix = f"pip install '{wanted.name}{wanted.specifier}'"
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(wanted.name, bad, f"missing (needs {wanted.specifier})", fix)
    if not wanted.specifier.contains(version, prereleases=True):
        return Check(wanted.name, bad, f"{version} (needs {wanted.specifier})", fix)
    return Check(wanted.name, "ok", version)


def probe(code: str, seconds: float = PROBE_SECONDS) -> dict[str, Any] | str:
    """The JSON object that `code` prints last when run by a fresh Python, or one line that says why there is none."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:.0f} s"
    if done.returncode < 0:
        return f"killed by signal {-done.returncode} (built for another processor?)"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    try:
        return dict(json.loads(lines[-1])) if done.returncode == 0 else lines[-1]
    except (IndexError, ValueError):
        return f"no usable output (exit code {done.returncode})"


LLAMA_PROBE = """
import json, llama_cpp
info = llama_cpp.llama_print_system_info().decode()
print(json.dumps({"version": llama_cpp.__version__, "info": info, "mmap": bool(llama_cpp.llama_supports_mmap()),
                  "gpu": bool(llama_cpp.llama_supports_gpu_offload())}))
"""
TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"gpus": [{"name": g.name, "gib": g.total_memory / 2**30} for g in gpus],
                  "mps": torch.backends.mps.is_available()}))
"""


def check_llama(code: str = LLAMA_PROBE) -> list[Check]:
    """llama.cpp's version, what its build can do, and whether it was built for less than this processor has."""
    found = probe(code)
    if isinstance(found, str):
        fix = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
        return [Check("llama.cpp", "fail", found, fix)]
    used = [part.partition("=")[0].strip() for part in found["info"].split("|") if part.strip().endswith("1")]
    used = [name.rpartition(":")[2].strip() for name in used]
    mmap, gpu = ("yes" if found[k] else "no" for k in ("mmap", "gpu"))
    value = f"{found['version']}, mmap {mmap}, GPU offload {gpu}; {' '.join(used)}"
    slow = "avx2" in host.cpu_features() and "AVX2" not in used
    fix = "reinstall without a cached wheel: pip install --force-reinstall --no-cache-dir llama-cpp-python"
    value += " (AMX is left unused: many builds crash in it)" * ("AMX_INT8" in used)
    return [Check("llama.cpp", "warn" if slow else "ok", value + (" (built without AVX2)" if slow else ""), fix * slow)]


def check_gpu(code: str = TORCH_PROBE) -> Check:
    found = probe(code)
    if isinstance(found, str):
        return Check("torch imports", "fail", found, "pip install --force-reinstall torch")
    if found["gpus"]:
        return Check("gpu", "ok", ", ".join(f"{g['name']} ({g['gib']:.0f} GiB)" for g in found["gpus"]))
    return Check("gpu", "ok", "Apple MPS" if found["mps"] else "none (the embedded scale needs none)")


def check_optimum() -> Check:
    """The environment of `export --backend optimum`: nothing is amiss where none was made."""
    try:
        from bridge_edge.export import optimum_env
    except ImportError as error:
        return Check("optimum-onnx", "warn", f"not checked: {error.name!r} is missing", "pip install -e .")
    path, by = optimum_env.named()
    if not by and not path.exists():
        return Check("optimum-onnx", "ok", "none (only for export --backend optimum, which says how to make it)")
    try:
        python = optimum_env.find()
        found = optimum_env.call(python)
    except UserError as error:
        return Check("optimum-onnx", "warn", error.message, error.hint)
    return Check("optimum-onnx", "ok", f"{found['optimum-onnx']}, transformers {found['transformers']}, in {python}")


def check_cpu() -> list[Check]:
    """Processor, its instruction sets, usable cores, and how busy they are now."""
    features, quota, cores = host.cpu_features(), host.cpu_quota(), host.usable_cores()
    weak = not {"avx2", "neon"} & set(features)
    limit = "no quota" if quota is None else f"quota {quota:g} cores"
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):
        load = 0.0
    threads = os.environ.get("OMP_NUM_THREADS", "")
    many = threads.isdigit() and int(threads) > cores
    fix = f"export OMP_NUM_THREADS={cores}" if many else ""
    note = f", OMP_NUM_THREADS={threads}" if threads else ""
    return [
        Check("cpu", "ok", host.cpu_model()),
        Check(
            "cpu features",
            "warn" if weak else "ok",
            " ".join(features) or "none known",
            "use a processor with AVX2 or NEON: without it inference is several times slower" * weak,
        ),
        Check("cores", "warn" if many else "ok", f"{cores} usable of {os.cpu_count()}, {limit}{note}", fix),
        Check(
            "load",
            "warn" if load > 0.5 * cores else "ok",
            f"{load:.2f} over the last minute",
            "wait until other work has ended; timings would not be publishable" * (load > 0.5 * cores),
        ),
    ]


def check_memory(available: int, limit: int | None) -> Check:
    value = f"{available / GIB:.1f} GiB available" + (f", limit {limit / GIB:.1f} GiB" if limit else "")
    status: Status = "fail" if available < 1 * GIB else "warn" if available < 2 * GIB else "ok"
    return Check(
        "memory", status, value, "" if status == "ok" else "close other programs or raise the container's limit"
    )


def check_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{folder} is not writable", "change to a folder you may write to")
    status: Status = "fail" if free < GIB / 2 else "warn" if free < 5 * GIB else "ok"
    fix = (
        "" if status == "ok" else "free some space, or change to a folder on a larger disk (pretrained models take GiB)"
    )
    return Check("disk", status, f"{free / GIB:.1f} GiB free here", fix)


def check_tool(name: str, commands: Sequence[str]) -> Check:
    """A build tool; wanted only where llama-cpp-python must be built from source."""
    found = next((path for command in commands if (path := shutil.which(command))), None)
    if found:
        return Check(name, "ok", found)
    fix = f"install {' or '.join(commands[:2])} with the system's package manager (llama-cpp-python builds with it)"
    return Check(name, "warn", "not found", fix)


def check_model(path: Path) -> Check:
    """An embedded base model: present, and a whole safetensors file (not a Git LFS pointer or a cut download)."""
    name = f"embedded {path.parent.name}"
    fix = "pip install --force-reinstall --no-deps bridge-edge (made by python -m bridge_edge.embedded.pretrain)"
    if not path.is_file():
        return Check(name, "fail", f"missing: {path}", fix)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        head = file.read(length) if 0 < length <= size - 8 else b""
    try:
        tensors = {k: v for k, v in json.loads(head).items() if k != "__metadata__"}
        whole = 8 + length + max(v["data_offsets"][1] for v in tensors.values()) == size
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        return Check(name, "fail", f"not a whole safetensors file: {path} ({size} bytes)", fix)
    return Check(name, "ok", f"{len(tensors)} tensors, {size / 2**20:.1f} MiB")


def check_hub(environment: Mapping[str, str], seconds: float = 3.0) -> Check:
    """Can pretrained models be fetched? Never a failure: the embedded scale needs no network."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environment.get(name, "").lower() in TRUE:
            return Check("hub", "ok", f"not tried: {name} is set")
    url = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    where = urlsplit(url).hostname or "the address in HF_ENDPOINT"  # the rest of an address may hold a password
    answer: list[str] = []

    def head() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                answer.append(f"status {reply.status}")
        except urllib.error.HTTPError as error:
            answer.append(f"status {error.code}")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            answer.append(f"unreachable ({type(reason).__name__})")

    # In a thread: name resolution has no timeout of its own and may hang for a minute.
    thread = threading.Thread(target=head, daemon=True)
    thread.start()
    thread.join(seconds)
    value = answer[0] if answer else f"no answer within {seconds:g} s"
    if value.startswith("status") and int(value.split()[1]) < 500:
        return Check("hub", "ok", f"{where} answers ({value})")
    fix = (
        "only for scale=edge and server: set HTTPS_PROXY or HF_ENDPOINT, or copy the models and export HF_HUB_OFFLINE=1"
    )
    return Check("hub", "warn", f"{where}: {value}", fix)


def check_key(name: str, environment: Mapping[str, str]) -> Check:
    if environment.get(name, "").strip():
        return Check(name, "ok", "set")
    return Check(name, "warn", "not set", f"only for an API teacher: export {name}=...")


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """`ok` is true where nothing stops the embedded scale."""
    return {"schema": 1, "ok": all(c.status != "fail" for c in checks), "checks": [asdict(c) for c in checks]}


def table(checks: Sequence[Check]) -> str:
    """One row a check, then the command for each one that is not ok."""
    lines = [grid(("check", "status", "value"), [(c.name, c.status, c.value) for c in checks])]
    lines += [f"{c.name}: {c.fix}" for c in checks if c.fix]
    return "\n".join(lines)
