"""k-quant some rows at a time: the builder's quantiser holds a dozen copies of the matrix that it works on.

For the table of a real vocabulary (136 million weights at the shape of Qwen2.5-0.5B) that is eight gigabytes. A block
of weights shares nothing with the next one, so the same function is handed rows of whole blocks and its results are put
together: equal to the bit, at the memory of one part. Not covered: the other algorithms, which already work within what
the model itself takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

PART = 1 << 22  # weights at a time
Quantised = tuple[np.ndarray, np.ndarray, np.ndarray]  # codes, scales, zero points; a row a block
Quantiser = Callable[[np.ndarray, int, int], Quantised]


def in_parts(whole: Quantiser) -> Quantiser:
    """`whole` on a few rows at a time. A row is a whole number of blocks; codes come back as the bytes they are."""

    def quantise(data: np.ndarray, num_bits: int = 4, group_size: int = 32) -> Quantised:
        step = max(1, PART // data.shape[1])
        codes, scales, zeros = [], [], []
        for start in range(0, len(data), step):
            code, scale, zero = whole(data[start : start + step], num_bits, group_size)
            codes.append(code.astype(np.uint8))
            scales.append(scale)
            zeros.append(zero)
        return np.concatenate(codes), np.concatenate(scales), np.concatenate(zeros)

    return quantise


@contextlib.contextmanager
def small_parts() -> Iterator[None]:
    """Within it, the builder's k-quant works in parts."""
    from onnxruntime.quantization.neural_compressor import weight_only

    name = "quant_tensor_k_quant_cuda"  # what the quantiser calls; without a GPU's package it is the CPU's
    whole = getattr(weight_only, name)
    setattr(weight_only, name, in_parts(whole))
    try:
        yield
    finally:
        setattr(weight_only, name, whole)
