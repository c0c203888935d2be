"""What it costs, in KL divergence, to store one tensor in one type: the figures a search over types is made of.

To first order the divergence grows with the squared error of a tensor's outputs, which is the squared error of its
weights, each column weighed by its importance. So every type's error is computed exactly, the divergence that a unit of
it causes is measured once a tensor (that tensor alone coarsened, in torch), and the products of the two are summed.
Where the budget is too short for every tensor, tensors of one role share a measurement. Not covered: interaction of
tensors, which the search meets by measuring whole files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, quants

from bridge_edge.export.gguf_writer import load_config, restore, target_names
from bridge_edge.export.imatrix import Importance
from bridge_edge.export.journal import Journal
from bridge_edge.export.llama_quantiser import requantise
from bridge_edge.export.parity import log_softmax
from bridge_edge.export.quantize import IMPORTANT_TENSOR_TYPES, Mix
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.gguf_header import read_header
from bridge_edge.runtimes.torch_runtime import TorchRuntime

# Coarse to fine. Where rows do not divide into 256 weights only the types with blocks of 32 remain.
LADDER = ("IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0")
PROBE = ("Q3_K", "IQ4_NL")  # the type whose divergence is measured: coarse enough to rise above rounding
NUMBERS = 32_000_000  # logits kept of the original: 128 MB


@dataclass(frozen=True)
class Cost:
    """One tensor in one type: its bytes, and the divergence expected of it."""

    bytes: int
    kl: float


class Proxy:
    """Mean KL of a model to the original on fixed texts. Rows are thinned out where the vocabulary is large."""

    def __init__(self, original: Runtime, texts: Sequence[list[int]]) -> None:
        self.texts = texts
        rows = max(1, NUMBERS // original.vocab_size)
        self.stride = max(1, math.ceil(sum(map(len, texts)) / rows))
        self.wanted = [log_softmax(original.logits(ids)[:: self.stride]).astype(np.float32) for ids in texts]

    def kl(self, runtime: Runtime) -> float:
        total, rows = 0.0, 0
        for ids, p in zip(self.texts, self.wanted, strict=True):
            q = log_softmax(runtime.logits(ids)[:: self.stride])  # (T, V)
            total += float((np.exp(p.astype(np.float64)) * (p - q)).sum())
            rows += len(p)
        return max(0.0, total / rows)


def ladder(columns: int, importance: bool) -> list[str]:
    """The types a matrix with so many columns can take."""
    fits = [t for t in LADDER if columns % GGML_QUANT_SIZES[GGMLQuantizationType[t]][0] == 0]
    return [t for t in fits if importance or t not in IMPORTANT_TENSOR_TYPES]


def nbytes(elements: int, kind: str) -> int:
    block, width = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return elements // block * width


def role(name: str) -> str:
    """What tensors of all layers share: blk.3.ffn_up.weight -> ffn_up."""
    return name.split(".")[-2]


class Sensitivity:
    """Measures a checkpoint (`folder`, opened as `original`) whose F32 GGUF is `whole`; `work` takes scratch files."""

    def __init__(self, folder: Path, original: TorchRuntime, whole: Path, work: Path, importance: Importance) -> None:
        self.original, self.whole, self.work, self.importance = original, whole, work, importance
        self.config, self.arch = load_config(folder)
        names = target_names(self.config)
        self.tensors = {t.name: t for t in read_header(whole).tensors if len(t.shape) > 1}
        found = {names(source): (source, p) for source, p in original.model.named_parameters()}
        self.parameters: dict[str, tuple[str, torch.nn.Parameter]] = {n: found[n] for n in self.tensors if n in found}

    def costs(self, proxy: Proxy, journal: Journal, deadline: float, threads: int | None) -> dict[str, dict[str, Cost]]:
        """Cost of every tensor in every type it can take."""
        errors = self._errors(journal, deadline, threads)
        slopes = self._slopes(proxy, errors, journal, deadline, threads)
        table: dict[str, dict[str, Cost]] = {}
        for name, by_type in errors.items():
            size = self.tensors[name].elements
            table[name] = {t: Cost(nbytes(size, t), slopes[name] * e) for t, e in by_type.items()}
        return table

    def _uniform(self, kind: str, threads: int | None) -> Any:
        """A file with every matrix that can be in one type, opened; the caller reads, then drops it."""
        path = self.work / f"uniform-{kind}.gguf"
        types = {n: kind for n, t in self.tensors.items() if kind in ladder(t.shape[0], bool(self.importance))}
        requantise(self.whole, path, "Q8_0", threads, Mix(self.importance, types))
        return path

    def _errors(self, journal: Journal, deadline: float, threads: int | None) -> dict[str, dict[str, float]]:
        """Squared error of the weights, weighed by importance, by tensor and type; what takes too long is left out."""
        found: dict[str, dict[str, float]] = {name: {} for name in self.tensors}
        order = sorted(LADDER, key=lambda t: (t not in ("Q8_0", *PROBE), LADDER.index(t)))
        for kind in order:
            able = [n for n, t in self.tensors.items() if kind in ladder(t.shape[0], bool(self.importance))]
            if not able or (time.monotonic() > deadline and kind not in ("Q8_0", *PROBE)):
                continue
            kept = journal.get(f"errors {kind}")
            if kept is None:
                kept = self._measure_errors(kind, able, threads)
                journal.put(f"errors {kind}", kept)
            for name, value in kept.items():
                found[name][kind] = value
        return found

    def _measure_errors(self, kind: str, able: Sequence[str], threads: int | None) -> dict[str, float]:
        path = self._uniform(kind, threads)
        exact, coarse = GGUFReader(self.whole), GGUFReader(path)
        wanted = {t.name: t for t in exact.tensors if t.name in able}
        errors = {}
        for tensor in coarse.tensors:
            if tensor.name in wanted:
                off = quants.dequantize(tensor.data, tensor.tensor_type) - wanted[tensor.name].data
                weight = self.importance.get(tensor.name, np.ones(off.shape[-1], np.float32))
                errors[tensor.name] = float((off.astype(np.float64) ** 2 @ weight.astype(np.float64)).sum())
        del exact, coarse
        path.unlink()
        return errors

    def _slopes(
        self,
        proxy: Proxy,
        errors: dict[str, dict[str, float]],
        journal: Journal,
        deadline: float,
        threads: int | None,
    ) -> dict[str, float]:
        """Divergence a unit of error, by tensor; by role where the time does not suffice for each."""
        started = time.monotonic()
        readers: dict[str, GGUFReader] = {}
        probe = {n: next(t for t in PROBE if t in errors[n]) for n in errors}
        for kind in set(probe.values()):
            readers[kind] = GGUFReader(self._uniform(kind, threads))
        coarse = {n: next(t for t in readers[kind].tensors if t.name == n) for n, kind in probe.items()}
        proxy.kl(self.original)  # a first pass that warms up and tells how long one takes
        one = time.monotonic() - started
        single = time.monotonic() + one * len(errors) < deadline
        slopes: dict[str, float] = {}
        groups: dict[str, list[str]] = {}
        for name in errors:
            groups.setdefault(name if single else role(name), []).append(name)
        for key, names in groups.items():
            kl = journal.get(f"kl {key}")
            if kl is None:
                kl = self._swapped(names, coarse, lambda: proxy.kl(self.original))
                journal.put(f"kl {key}", kl)
            slope = kl / max(sum(errors[n][probe[n]] for n in names), 1e-30)
            slopes.update(dict.fromkeys(names, slope))
        for kind in list(readers):
            del readers[kind]
            (self.work / f"uniform-{kind}.gguf").unlink()
        return slopes

    @torch.no_grad()
    def _swapped(self, names: Sequence[str], coarse: dict[str, Any], measure: Callable[[], float]) -> float:
        """`measure()` with the named tensors of the original replaced by their coarse form."""
        kept = []
        try:
            for name in names:
                source, parameter = self.parameters[name]
                data = quants.dequantize(coarse[name].data, coarse[name].tensor_type)
                data = restore(source, data, self.config, self.arch)
                kept.append((parameter, parameter.data))
                parameter.data = torch.from_numpy(np.array(data, dtype=np.float32)).reshape(parameter.shape)
            return measure()
        finally:
            for parameter, before in kept:
                parameter.data = before
