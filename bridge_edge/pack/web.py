"""The target web: a static folder that is an installable app, with the student in the browser and no network from then.

What: the page (`webapp/`), the engine for the artifact's kind (wllama for GGUF, transformers.js for ONNX;
`web_engine.py`), the model in parts that a phone can check one by one, and a service worker that names every file with
its SHA-256: it keeps a version only once all of it is there and right, so a broken update leaves the last good one.
Why static: the folder works from any web server. Threads need two headers of that server, which `--serve` sends and
`headers.txt` names; without them the engine runs on one. A page that is neither https nor loopback has no service
worker and cannot compute a digest, so it refuses to load.
Not covered: GGUF files above 2 GB, which the engine cannot hold, and WebGPU; a signature, which `--key` checks when the
app is packed and the page does not check again. Only the files are checked here;
`python -m bridge_edge.benchmarks.web` runs the app in Chromium.
"""

from __future__ import annotations

import json
import shlex
import shutil
from html import escape
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError
from bridge_edge.pack import Artifact, Packed, PackOptions
from bridge_edge.pack.web_engine import fetch_engine
from bridge_edge.pack.web_server import headers_text, serve
from bridge_edge.pack.web_student import student_facts
from bridge_edge.parcel import SUMS, write_sums
from bridge_edge.run import sha256_file

__all__ = ["pack", "serve"]

WEBAPP = Path(__file__).with_name("webapp")
PART = 64 << 20  # bytes: a page has to hold a whole part to check its digest; far below the 512 MB that hosts allow
MOST_GGUF = 2_000_000_000  # bytes that the engine can address
READ = 1 << 20
# What transformers.js opens of an ONNX folder, besides the graph.
ONNX_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
ENGINE = "vendor/"  # where the parts by others lie in the app


def pack(artifact: Artifact, folder: Path, options: PackOptions) -> Packed:
    """Fill `folder`; see `bridge_edge.pack`."""
    files = model_files(artifact)
    facts = student_facts(artifact)
    engine = fetch_engine(artifact.kind, folder / ENGINE)
    facts["files"] = [{"name": name, **split(path, folder / "model")} for name, path in files.items()]
    facts["engine"] = engine
    _write_json(folder / "student.json", facts)
    readme = artifact.parcel.folder / "README.md"
    if readme.is_file():
        shutil.copyfile(readme, folder / "model" / "README.md")
    copy_page(artifact.kind, facts["title"], folder)
    (folder / "headers.txt").write_text(headers_text(), encoding="utf-8")
    write_sums(folder)
    release(folder)
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    wasm = {name: size for name, size in sizes.items() if name.endswith(".wasm")}
    other = sum(sizes.values()) - sum(wasm.values())
    named = " or ".join(f"{size / 1e6:.2f} MB" for size in sorted(wasm.values()))
    lines = (
        f"{other / 1e6:.2f} MB, and {named} of wasm by {engine}, as the browser needs",
        f"see it: bridge-edge pack {shlex.quote(str(artifact.parcel.folder))} --target web --serve; "
        "or put the folder on any https host",
        "for threads the host must send the headers in headers.txt; without them it runs on one",
    )
    return Packed({"kind": artifact.kind, "engine": engine, "wasm": wasm, "other_bytes": other}, lines)


def model_files(artifact: Artifact) -> dict[str, Path]:
    """The files that the engine opens, by the names it asks for."""
    if artifact.kind == "gguf":
        size = artifact.path.stat().st_size
        if size > MOST_GGUF:
            raise UserError(
                f"{artifact.path} has {size / 1e9:.2f} GB; a browser holds {MOST_GGUF / 1e9:g} GB of a GGUF",
                "export it in a smaller type, e.g. bridge-edge export --quant Q4_K_M",
            )
        return {artifact.path.name: artifact.path}
    names = [*ONNX_FILES, *(n for n in sorted(artifact.parcel.files) if n.startswith("onnx/"))]
    missing = [n for n in names if n not in artifact.parcel.files]
    if missing:
        raise UserError(f"{artifact.path} lacks {missing[0]}, which a browser needs", "export the model again")
    return {name: artifact.path / name for name in names}


def split(path: Path, folder: Path, part: int = PART) -> dict[str, Any]:
    """Copy a file into `folder`, in parts where it is larger than `part`: their paths in the app, sizes and digests."""
    size = path.stat().st_size
    folder.mkdir(parents=True, exist_ok=True)
    flat = path.name
    parts: list[dict[str, Any]] = []
    with path.open("rb") as source:
        for start in range(0, max(size, 1), part):
            name = f"{flat}.{len(parts):03d}" if size > part else flat
            place = folder / name
            with place.open("xb") as target:
                left = min(part, size - start)
                while left:
                    piece = source.read(min(READ, left))
                    target.write(piece)
                    left -= len(piece)
            parts.append({"path": f"{folder.name}/{name}", "bytes": place.stat().st_size, "sha256": sha256_file(place)})
    return {"bytes": size, "parts": parts}


def copy_page(kind: str, title: str, folder: Path) -> None:
    """The page's own files, the engine's adapter as `engine.js`, and the manifest that makes it installable."""
    for path in sorted(WEBAPP.iterdir()):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    for path in sorted((WEBAPP / kind).glob("*.js")):
        shutil.copyfile(path, folder / path.name)
    page = (WEBAPP / "index.html").read_text(encoding="utf-8").replace("{title}", escape(title))
    (folder / "index.html").write_text(page, encoding="utf-8")
    icons = [
        {"src": f"icon-{size}.png", "sizes": f"{size}x{size}", "type": "image/png", "purpose": "any maskable"}
        for size in (192, 512)
    ]
    _write_json(
        folder / "app.webmanifest",
        {
            "id": "./",
            "name": title,
            "short_name": title[:12].strip(),
            "start_url": "./",
            "scope": "./",
            "display": "standalone",
            "background_color": "#ffffff",
            "theme_color": "#0b5394",
            "icons": icons,
        },
    )


def release(folder: Path) -> str:
    """Write `sw.js`, the service worker: the version, and every file with its digest. A browser takes a change of this
    file for an update. The version is that of the sums, so that it is the one which `pack` tells."""
    version = sha256_file(folder / SUMS)[:12]
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    files = [[name, digest, (folder / name).stat().st_size] for digest, name in (line.split("  ", 1) for line in lines)]
    body = json.dumps({"version": version, "files": files}, indent=0)
    (folder / "sw.js").write_text(f'const RELEASE = {body};\nimportScripts("offline.js");\n', encoding="utf-8")
    return version


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
