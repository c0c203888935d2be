"""Embeddings by a sentence-transformers model, for whoever wants distances that do not depend on the assistant.

Weights are read from safetensors only and code that comes with a model is never run. Not covered: prompts that some
models want before a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridge_edge.errors import UserError, first_line
from bridge_edge.progress import Advance
from bridge_edge.recipe_models import OWN_EMBEDDINGS

CHUNK, ROWS = 1_024, 65_536


def stored(path: Path) -> np.ndarray:
    """Embeddings saved as float16, as float32 of length 1 again: rounding would else tell equal vectors apart."""
    saved = np.load(path, mmap_mode="r")
    vectors = np.empty(saved.shape, dtype=np.float32)
    for start in range(0, len(saved), ROWS):
        part = saved[start : start + ROWS].astype(np.float32)
        vectors[start : start + ROWS] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return vectors


def sentence_vectors(model: str, texts: Sequence[str], device: str, advance: Advance, batch: int = 32) -> np.ndarray:
    """L2-normalised embeddings (n, d) float32; a model that is not at hand is a UserError."""
    from sentence_transformers import SentenceTransformer

    try:
        encoder = SentenceTransformer(
            model, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # the library raises many kinds, of which none is for users
        where = "the folder needs modules.json and *.safetensors" if Path(model).is_dir() else "check its name"
        raise UserError(
            f"cannot load the embedding model select.embeddings={model!r}: {first_line(error)}",
            f"{where} (`bridge-edge doctor` tells whether the hub can be reached), or set "
            f"select.embeddings={OWN_EMBEDDINGS}",
        ) from error
    parts = []
    for start in range(0, len(texts), CHUNK):
        some = list(texts[start : start + CHUNK])
        found = encoder.encode(some, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)
        parts.append(np.asarray(found, dtype=np.float32))
        advance(len(some), "")
    return np.concatenate(parts)
