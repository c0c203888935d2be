"""A GGUF file's weights in torch: how an export is checked where llama.cpp is not installed.

Every tensor is decoded from the file and put into the checkpoint's own model, so a tensor that is lost, cut, misplaced
or too coarse shows as it does in llama.cpp. Not covered: the file's tokenizer and chat template (the checkpoint's
are used), and what llama.cpp itself computes; `THROUGH` says so in the report.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, quants

from bridge_edge.errors import UserError
from bridge_edge.export.gguf_writer import load_config, restore, target_names
from bridge_edge.runtimes.torch_runtime import TorchRuntime

THROUGH = "torch, with the weights of the file; llama.cpp is not installed, so its tokenizer was not checked"


class ReadBack(TorchRuntime):
    """The checkpoint `folder` with the weights of the GGUF file `path`."""

    name = "gguf"

    def __init__(self, folder: Path, path: Path, threads: int | None = None) -> None:
        super().__init__(folder, threads)
        self.path = path
        config, arch = load_config(folder)
        names = target_names(config)
        stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        with torch.no_grad():
            for source, parameter in self.model.named_parameters():
                tensor = stored.get(names(source) or "")
                if tensor is None:
                    raise UserError(f"{path} lacks the tensor of {source!r}", "report this: the export is broken")
                data = restore(source, quants.dequantize(tensor.data, tensor.tensor_type), config, arch)
                parameter.copy_(torch.from_numpy(np.array(data, dtype=np.float32)).reshape(parameter.shape))
