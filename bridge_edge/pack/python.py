"""The target python: the artifact, a runner and what its runtime needs, and nothing of what trained it.

`ask.py` checks the sums and then imports `runner.zip`, the modules of this package that answer a question, so an app
says what `bridge-edge run` says. It is run here once, apart from this environment's settings, before it counts as made.
Not covered: an installer; wheels of the runtime for the device, which pip finds or builds there.
"""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path

from packaging.requirements import Requirement

from bridge_edge.errors import UserError
from bridge_edge.pack import Artifact, Packed, PackOptions
from bridge_edge.parcel import CheckError, write_sums
from bridge_edge.student import Student

NEEDS = {"gguf": "llama-cpp-python", "onnx": "onnxruntime-genai"}  # kind -> the one package that runs it
MODULES = [
    "__init__",
    "errors",
    "student",
    "waiting",
    "data.__init__",
    "data.card",
    "data.thinking",
    "runtimes.__init__",
]
MODULES += [f"runtimes.{name}" for name in ("base", "think", "gguf_header", "gguf_sound", "ggml_types")]
RUNTIME = {"gguf": ["gguf_runtime", "llama_native", "template"], "onnx": ["genai", "onnx_config"]}
QUESTION = "Is seven more than five?"  # for a student without examples; any text shows whether two runtimes agree
NEW, SECONDS = 64, 600  # of the trial: tokens at most, and time
ABSENT = ["torch", "transformers", "tokenizers", "gguf", "onnx", "pydantic", "click"]
APART = """import json, runpy, sys
places, absent = json.loads(sys.argv.pop(1))
sys.path += places
sys.modules.update(dict.fromkeys(absent))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")"""
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same modules make the same bytes


def pack(artifact: Artifact, folder: Path, options: PackOptions) -> Packed:
    """Fill `folder`; see `bridge_edge.pack`."""
    for name in artifact.parcel.names():
        place = folder / "model" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.parcel.folder / name, place)
    needs = pins(NEEDS[artifact.kind])
    home = resources.files("bridge_edge")
    (folder / "ask.py").write_bytes((home / "pack" / "ask.py").read_bytes())
    (folder / "runner.zip").write_bytes(zipped([*MODULES, *(f"runtimes.{m}" for m in RUNTIME[artifact.kind])]))
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in needs), encoding="utf-8")
    question = [*artifact.examples(), QUESTION][0]
    (folder / "README.md").write_text(readme(artifact, question), encoding="utf-8")
    write_sums(folder)
    try_out(artifact, folder, question)
    lines = ("checked: it answers as bridge-edge does; in that folder:", "  python -m pip install -r requirements.txt")
    return Packed({"needs": needs}, (*lines, f"  python ask.py {shlex.quote(question)}"))


def pins(package: str) -> list[str]:
    """The package and all that it needs, in the versions that are installed here and so were tried."""
    found: dict[str, str] = {}
    waiting = [package]
    while waiting:
        name = waiting.pop()
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise UserError(
                f"{name} is not installed, so the app could not be tried", f"pip install -c constraints.txt {package}"
            ) from None
        if name not in found:
            found[name] = f"{name}=={installed.version}"
            waiting += [r.name for r in map(Requirement, installed.requires or ()) if _wanted(r)]
    return [found.pop(package), *sorted(found.values())]


def _wanted(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def zipped(modules: Iterable[str]) -> bytes:
    """Modules of this package as a zip file that Python imports from."""
    home = resources.files("bridge_edge")
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        for module in modules:
            name = module.replace(".", "/") + ".py"
            entry = zipfile.ZipInfo(f"bridge_edge/{name}", LONG_AGO)
            packed.writestr(entry, (home / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return held.getvalue()


def command(folder: Path, *words: str) -> list[str]:
    """The app run with the installed packages, but without this one and what it trains with, as on a device."""
    places = [path for path in sys.path if path.endswith("-packages")]
    # -S: no .pth file is read, so an editable installation of this package is not found either.
    start = [sys.executable, "-I", "-S", "-B", "-c", APART, json.dumps([places, ABSENT]), str(folder / "ask.py")]
    return [*start, *words]


def apart(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *words), capture_output=True, text=True, timeout=SECONDS, check=False)


def try_out(artifact: Artifact, folder: Path, question: str) -> None:
    """Ask the app in a process of its own and compare with what the export answers here."""
    from bridge_edge.runtimes.load import load_runtime

    done = apart(folder, "--json", "--max-new-tokens", str(NEW), question)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CheckError(f"the app does not answer: {said}", "nothing was replaced; export the model again")
    with Student(load_runtime(artifact.path)) as student:
        wanted = student.answer(question, max_new_tokens=NEW).ids
    if tuple(json.loads(done.stdout)["ids"]) != wanted:
        raise CheckError("the app answers otherwise than the export", "nothing was replaced; export the model again")


def readme(artifact: Artifact, question: str) -> str:
    """README.md of the app."""
    asked = shlex.quote(question)
    return f"""# {artifact.name}: a student that answers offline

```sh
python -m pip install -r requirements.txt
python ask.py {asked}
python ask.py --think 64 {asked}
```

Nothing here opens a connection. `ask.py` compares every file with `SHA256SUMS` and loads nothing where one was changed;
`--key KEY.pub` checks a signature of the model too, where it has one. `ask.py --versions` shows what changed from one
version of this folder to the next; the version before lies beside it in a folder ending in `.previous`, and renaming
that brings it back. What the model is and what was measured of it: [model/README.md](model/README.md).
"""
