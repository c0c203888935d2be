"""Put the parts of `--quant auto` together: calibration texts, importance matrix, sensitivities, search, the file.

The texts that measure divergence are others than those of the importance matrix, and both are others than the dev items
that judge. Without calibration texts there is no matrix, and the dev prompts measure divergence. Not covered: what each
part does, see there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.export import imatrix
from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.export.journal import Journal, journal_path
from bridge_edge.export.llama_quantiser import requantise
from bridge_edge.export.quantize import Mix
from bridge_edge.export.search import BASE, journal_key, search
from bridge_edge.export.sensitivity import Proxy, Sensitivity
from bridge_edge.export.wish import Wish
from bridge_edge.runtimes.gguf_header import Header
from bridge_edge.runtimes.torch_runtime import TorchRuntime

PROXY_TEXTS, PROXY_TOKENS = 16, 4_000


def make_auto(
    folder: Path, out: Path, name: str, dev: Sequence[Sample], threads: int | None, wish: Wish
) -> tuple[Header, int, dict[str, Any]]:
    """Search, write `out`; its header, how many tensors had an importance matrix, and the search's report."""
    if wish.types:
        raise UserError("quant auto chooses the tensor types itself", "leave out --tensor, or name a type as Q4_K_M")
    if not dev or any(s.answer is None for s in dev):
        raise UserError("quant auto needs dev items with answers", "export from a run, or choose a type as Q4_K_M")
    original = TorchRuntime(folder, threads)
    whole = out.with_suffix(".f32.gguf")
    try:
        read = imatrix.texts(original, wish.calibration)
        importance = imatrix.measure(original, folder, read) if read else {}
        others = wish.calibration[len(read) :] or wish.calibration or tuple(dev)
        proxy = Proxy(original, imatrix.texts(original, others, PROXY_TEXTS, PROXY_TOKENS))
        write_gguf(folder, whole, "F32", name)
        sensitivity = Sensitivity(folder, original, whole, out.parent, importance)
        journal = Journal(journal_path(out.parent), journal_key(folder, dev, wish.calibration))
        found = search(sensitivity, proxy, dev, wish.goal, journal, threads)
        chosen = found.chosen
        header = requantise(whole, out, BASE if chosen.types else chosen.name, threads, Mix(importance, chosen.types))
    finally:
        original.close()
        whole.unlink(missing_ok=True)
    return header, len(importance), found.to_json()
