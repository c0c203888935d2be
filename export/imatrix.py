"""Importance matrices: which input columns of each matrix matter on the student's own task.

A quantiser that knows how large a column's activations are spends its precision there. The usual matrix comes from
encyclopedia text; here it is the mean of the squared inputs of every linear layer over the run's own rationales, read
teacher-forced by torch. One matrix a tensor, under llama.cpp's names. With a tied head the embedding's matrix is that
of the head's inputs. Not covered: the lookup of an untied embedding, which multiplies nothing; experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bridge_edge.data.card import completion
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.export.gguf_writer import load_config, target_names
from bridge_edge.runtimes.torch_runtime import TorchRuntime

Importance = dict[str, np.ndarray]  # llama.cpp's tensor name -> (columns,) float32
TEXTS, TOKENS = 128, 20_000  # more changes little: the means settle after some thousand tokens
FLOOR = 1e-6  # of a tensor's mean: a column that never fired must not make a quantiser divide by zero


def texts(runtime: TorchRuntime, samples: Sequence[Sample], most: int = TEXTS, tokens: int = TOKENS) -> list[list[int]]:
    """Token ids of the first samples as the student meets them: the framed prompt, then rationale and answer."""
    found: list[list[int]] = []
    left = tokens
    for sample in samples[:most]:
        written = completion(sample.rationale, sample.answer) if sample.answer else sample.rationale or ""
        ids = (runtime.chat(sample.prompt) + runtime.encode(written))[: min(left, runtime.context_length)]
        if ids:
            found.append(ids)
            left -= len(ids)
    return found


def collect(folder: Path, samples: Sequence[Sample], threads: int | None = None) -> Importance:
    """Mean squared inputs of every linear layer of the checkpoint over `samples`."""
    runtime = TorchRuntime(folder, threads)
    try:
        read = texts(runtime, samples)
        if not read:
            raise UserError("there is no text to calibrate on", "give --calibration a file with at least one row")
        return measure(runtime, folder, read)
    finally:
        runtime.close()


def measure(runtime: TorchRuntime, folder: Path, read: Sequence[list[int]]) -> Importance:
    """`collect` on token ids, with the model at hand."""
    config, _ = load_config(folder)
    names = target_names(config)
    sums: dict[str, torch.Tensor] = {}
    rows: dict[str, int] = {}

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()  # (B * T, C)
            sums[name] = sums.get(name, torch.zeros(x.shape[1], dtype=torch.float64)) + x.square().sum(0)  # (C,)
            rows[name] = rows.get(name, 0) + len(x)

        return hook

    handles = []
    for module_name, module in runtime.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            source = f"{module_name}.weight"
            if source == "lm_head.weight" and config.tie_word_embeddings:
                source = "model.embed_tokens.weight"
            target = names(source)
            if target:
                handles.append(module.register_forward_pre_hook(watch(target)))
    try:
        for ids in read:
            runtime.logits(ids)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _settled((sums[name] / rows[name]).numpy()) for name in sums}


def _settled(means: np.ndarray) -> np.ndarray:
    """Finite, positive float32; all ones where nothing was ever put in."""
    mean = float(means.mean())
    if not np.isfinite(mean):
        raise UserError("the student's activations are not finite", "the training diverged; train again")
    return np.maximum(means, FLOOR * mean).astype(np.float32) if mean > 0 else np.ones(len(means), np.float32)
