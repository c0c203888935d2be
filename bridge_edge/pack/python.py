"""The target python: a folder with the artifact and what its runtime needs, and nothing of what trained it."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

from bridge_edge.pack import Artifact, Packed, PackOptions
from bridge_edge.parcel import write_sums

NEEDS = {"gguf": "llama-cpp-python", "onnx": "onnxruntime-genai"}  # kind -> the one package that runs it


def pack(artifact: Artifact, folder: Path, options: PackOptions) -> Packed:
    """Fill `folder`; see `bridge_edge.pack`."""
    for name in artifact.parcel.names():
        place = folder / "model" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.parcel.folder / name, place)
    package = NEEDS[artifact.kind]
    (folder / "requirements.txt").write_text(f"{package}=={metadata.version(package)}\n", encoding="utf-8")
    write_sums(folder)
    return Packed({}, ("there: python -m pip install -r requirements.txt",))
