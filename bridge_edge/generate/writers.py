"""From `annotate.engine` to the engine that writes the drafts. Each is imported only when it is asked for.

| engine | where the assistant runs | drawn drafts |
|---|---|---|
| native | this package's engine, CPU or GPU | the same for the same seed, whatever is decoded beside them |
| transformers | the library's continuous batching, CPU or GPU | the same for the same seed, batch size and device |
| llama-cpp | llama.cpp on the CPU, from a GGUF F16 made on the way | as native |
| vllm | vLLM in this process, where it is installed | as vLLM promises for a seed |
| openai | any OpenAI-compatible server, vLLM's included | as the server promises for a seed |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Wish, Writer
from bridge_edge.recipe_models import AnnotateSpec

Convert = Callable[[Path, Path], None]
"""Writes the model in a folder as GGUF F16; handed in, since only the command line knows the exporters."""


@dataclass(frozen=True)
class Setting:
    """Where the assistant lies and what the engine may use: `scratch` holds what a killed stage goes on from, `ledger`
    is the file in which calls to a server are recorded."""

    assistant: Path
    scratch: Path
    ledger: Path
    device: str = "cpu"
    precision: str = "auto"
    concurrency: int = 4
    convert: Convert | None = None


def make_writer(spec: AnnotateSpec, wish: Wish, setting: Setting) -> Writer:
    """The engine that the recipe names, with the assistant loaded."""
    check_engine(spec, setting.device, setting.assistant)
    folder = str(setting.assistant)
    if spec.engine == "transformers":
        from bridge_edge.generate.continuous import ContinuousWriter

        return ContinuousWriter(folder, wish, spec.batch_rows, setting.device, setting.precision)
    if spec.engine == "llama-cpp":
        return _llama(spec, wish, setting)
    if spec.engine == "vllm":
        from bridge_edge.generate.in_vllm import VLLMWriter

        return VLLMWriter(folder, wish)
    if spec.engine == "openai":
        from bridge_edge.generate.served import ServedWriter

        return ServedWriter(spec, wish, setting.ledger, setting.concurrency)
    from bridge_edge.generate.native import NativeWriter

    return NativeWriter(folder, wish, spec.batch_rows, setting.device, setting.precision)


def check_engine(spec: AnnotateSpec, device: str, assistant: Path | str = "RUN/apprentice") -> None:
    """Refuse an engine that cannot run here, before hours of work; whether a server answers is found out later."""
    if spec.engine == "llama-cpp" and device != "cpu":
        raise UserError(
            f"annotate.engine=llama-cpp runs on the CPU, not on --device {device}",
            "leave --device out, or use annotate.engine=native",
        )
    if spec.engine == "vllm" and find_spec("vllm") is None:
        raise UserError(
            "annotate.engine=vllm needs vLLM, which is not installed in this environment",
            f"serve the assistant where it is (vllm serve {assistant}) and use annotate.engine=openai "
            "annotate.base_url=http://HOST:8000/v1 annotate.model=NAME, or annotate.engine=native",
        )
    if spec.engine == "openai":
        from bridge_edge.generate.served import client_of

        client_of(spec, 0).close()  # the address, and a key that is not set


def _llama(spec: AnnotateSpec, wish: Wish, setting: Setting) -> Writer:
    from bridge_edge.generate.llama import LlamaWriter

    folder = str(setting.assistant)
    if setting.convert is None:
        raise UserError("annotate.engine=llama-cpp needs the exporter", "run it through `bridge-edge distill`")
    path = setting.scratch / "assistant.gguf"
    if not path.exists():
        setting.convert(setting.assistant, path)
    return LlamaWriter(path, folder, wish, spec.batch_rows)
