"""Open a student whatever its format: `load_runtime(path)`.

A Hugging Face folder goes to torch, a .gguf file to llama.cpp, an ONNX folder to onnxruntime-genai. Each backend is
imported only when it is needed. Not covered: hub names (download first) and adapters, which export merges.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime

FORMATS = "a folder with config.json and safetensors, a .gguf file, or a folder with genai_config.json"


def kind_of(path: Path) -> tuple[str, Path]:
    """The format ("torch", "gguf" or "onnx") of `path`, and the path to open."""
    if not path.exists():
        raise UserError(f"there is no model at {path}", f"give {FORMATS}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"{path} is not a model that can be opened", f"give {FORMATS}")
        return "gguf", path
    if (path / "genai_config.json").exists():
        return "onnx", path
    if (path / "config.json").exists():
        return "torch", path
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return "gguf", files[0]
    if files:
        raise UserError(f"{path} holds several GGUF files", f"choose one: {', '.join(f.name for f in files)}")
    if (path / "adapter_config.json").exists():
        raise UserError(f"{path} holds an adapter, not a model", "bridge-edge export merges it with its base")
    raise UserError(f"{path} holds no model", f"give {FORMATS}")


def load_runtime(path: Path, threads: int | None = None) -> Runtime:
    """The student at `path`, ready to generate; raises UserError for unknown or corrupt files."""
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}", "give a positive number")
    kind, found = kind_of(Path(path))
    return runtime_class(kind)(found, threads)


def runtime_class(kind: str) -> Callable[[Path, int | None], Runtime]:
    """The runtime of a format; asking for it imports its backend."""
    if kind == "gguf":
        from bridge_edge.runtimes.gguf_runtime import GGUFRuntime

        return GGUFRuntime
    if kind == "onnx":
        from bridge_edge.runtimes.onnx_runtime import ONNXRuntime

        return ONNXRuntime
    from bridge_edge.runtimes.torch_runtime import TorchRuntime

    return TorchRuntime
