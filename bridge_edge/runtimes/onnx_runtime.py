"""A student as an ONNX folder, run by onnxruntime-genai on the CPU.

The tokenizer is the folder's own, through transformers. What the folder names must be plain files inside it:
`onnx_check` refuses anything else before native code opens it.
"""

from __future__ import annotations

from pathlib import Path

from bridge_edge.runtimes.genai import GenAI
from bridge_edge.runtimes.onnx_check import check_external
from bridge_edge.runtimes.onnx_config import read_config
from bridge_edge.runtimes.torch_runtime import HubText, load_tokenizer


class ONNXRuntime(HubText, GenAI):
    """See `bridge_edge.runtimes.base.Runtime`."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        config = read_config(path)
        check_external(path, config["model"]["decoder"]["filename"])
        self.tokenizer = load_tokenizer(path)
        GenAI.__init__(self, path, config, threads)
