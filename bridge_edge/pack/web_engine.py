"""Fetch the part of a web app that runs the model, by npm from a lock file, and copy the few files that are needed.

What: `webapp/gguf` and `webapp/onnx` each hold a package.json and a lock file with the SHA-512 of every package, which
npm checks. `npm ci` runs in a temporary folder, without the packages' scripts; npm's own cache makes the second time
quick. From a CDN nothing is ever loaded: both engines would ask one for their wasm unless they are told where it lies,
which `engine.js` does. wllama has a second build for browsers without JSPI or memory of 64 bits, such as Safari (where
it was not tested); the service worker keeps the one of the two that its browser needs.
Why rewrite: transformers.js names onnxruntime-web by bare names, which a browser cannot resolve in a worker; both
become the build for the CPU that lies beside it, with half of the wasm of the one for WebGPU. In its lock file the
packages for Node (onnxruntime-node, sharp: 300 MB) are overridden by one that is in the tree anyway.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from bridge_edge.errors import UserError

LOCKS = Path(__file__).with_name("webapp")
MINUTES = 15
# kind -> the packages and what is copied of each, under which name
FILES = {
    "gguf": {
        "@wllama/wllama": {"esm/index.min.js": "wllama.js", "esm/wasm/wllama.wasm": "wllama.wasm"},
        "@wllama/wllama-compat": {"wasm/wllama.js": "compat.js", "wasm/wllama.wasm": "compat.wasm"},
    },
    "onnx": {
        "@huggingface/transformers": {"dist/transformers.web.min.js": "transformers.js"},
        "onnxruntime-web": {
            "dist/ort.wasm.bundle.min.mjs": "ort.js",
            "dist/ort-wasm-simd-threaded.wasm": "ort.wasm",
        },
    },
}
BARE = {'from"onnxruntime-common"': 'from"./ort.js"', 'from"onnxruntime-web/webgpu"': 'from"./ort.js"'}
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED")


def fetch_engine(kind: str, folder: Path) -> str:
    """Put the engine for `kind` and its licences into `folder`; the name and version of its first package."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise UserError(
            "the target web fetches its engine with npm, which is not on the PATH", "install Node.js 20 or newer"
        )
    with tempfile.TemporaryDirectory(prefix="bridge-edge-npm-") as work:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(LOCKS / kind / name, Path(work) / name)
        install(npm, Path(work))
        return copy_engine(kind, Path(work) / "node_modules", folder)


def install(npm: str, work: Path) -> None:
    """`npm ci` of the lock file in `work`; what npm says becomes one line and the way out."""
    words = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        done = subprocess.run(words, cwd=work, capture_output=True, text=True, timeout=60 * MINUTES, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"npm did not finish within {MINUTES} minutes", "try again on a faster network") from None
    if done.returncode == 0:
        return
    errors = [line.removeprefix("npm error").strip() for line in done.stderr.splitlines() if "npm error" in line]
    told = next((line for line in errors if line and not line.startswith("code ")), "no reason given")[:200]
    if any(code in done.stderr for code in UNREACHABLE):
        raise UserError(
            f"npm cannot reach its registry: {told}",
            "pack once with a network (npm keeps the packages), or name a mirror: npm config set registry URL",
        )
    raise UserError(f"npm ci failed: {told}", "mend what npm says, or try a newer Node.js")


def copy_engine(kind: str, modules: Path, folder: Path) -> str:
    """Copy what `FILES` names out of `modules`, without any bare import that is left."""
    folder.mkdir(parents=True, exist_ok=True)
    named, licences = [], []
    for package, files in FILES[kind].items():
        place = modules / package
        version = json.loads((place / "package.json").read_text(encoding="utf-8"))["version"]
        named.append(f"{package} {version}")
        for source, target in files.items():
            shutil.copyfile(place / source, folder / target)
        texts = [p.read_text(encoding="utf-8") for p in sorted(place.glob("LICEN[CS]E*"))]
        told = json.loads((place / "package.json").read_text(encoding="utf-8")).get("license", "not stated")
        licences.append("\n".join([f"{package} {version}: {told}", *texts]))
    (folder / "LICENSES.txt").write_text("\n\n".join(licences) + "\n", encoding="utf-8")
    if kind == "onnx":
        script = folder / "transformers.js"
        text = script.read_text(encoding="utf-8")
        for bare, local in BARE.items():
            if text.count(bare) != 1:
                raise UserError(f"{named[0]} does not import {bare[5:-1]!r} as expected", "use the shipped lock file")
            text = text.replace(bare, local)
        script.write_text(text, encoding="utf-8")
    return named[0]
