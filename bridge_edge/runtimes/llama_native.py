"""The few llama.cpp calls that the GGUF runtime and the exporter share: logging, models, tokens.

The low-level binding is used in place of its `Llama` class, which keeps logits for the whole context (gigabytes
with a large vocabulary) and reserves the model's full context. Native log lines are kept, not printed: the last
error explains a failed load. Whatever uses llama.cpp takes it as `native` from this module, which says how to install
it where it is missing.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError, first_line
from bridge_edge.runtimes.base import MissingRuntime

try:
    import llama_cpp as native
except (ImportError, OSError, RuntimeError) as problem:  # not installed, or built for another machine
    raise MissingRuntime(
        f"llama.cpp is not at hand: {first_line(problem)}",
        "pip install -c constraints.txt llama-cpp-python (it is compiled: some minutes and a C++ compiler)",
    ) from None

ERROR = 4  # ggml log level
_errors: collections.deque[str] = collections.deque(maxlen=8)


@native.llama_log_callback
def _log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    if level == ERROR:
        _errors.append(text.decode("utf-8", "replace").strip())


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)
def _abort(told: bytes) -> None:
    """An assertion failed in native code, which cannot be gone on from: one line in the place of a core dump."""
    reason = told.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
    os.write(2, f"bridge-edge: llama.cpp gave up: {reason[0]}; check the file or export it again\n".encode())
    os._exit(2)


@functools.cache
def start() -> None:
    """Silence the native log, take over its assertions and initialise the backend, once a process."""
    native.llama_log_set(_log, ctypes.c_void_p(0))
    library = native.llama_cpp._lib
    if hasattr(library, "ggml_set_abort_callback"):  # older builds lack it
        library.ggml_set_abort_callback(_abort)
    native.llama_backend_init()


@functools.cache
def multiplies_in_tiles() -> bool:
    """Whether this build would lay the weights out for Intel's AMX. GCC before 13.3 drops most of the tile
    configuration that llama.cpp makes on the stack, so that the first prompt ends in a segmentation fault
    (ggml-org/llama.cpp pull request 26954); with the weights as they are in the file it multiplies by AVX-512."""
    return b"AMX_INT8 = 1" in native.llama_print_system_info()


def last_error() -> str:
    """The last native error line, or an empty string; clears the list."""
    line = _errors[-1] if _errors else ""
    _errors.clear()
    return line


def load_model(path: Path, vocab_only: bool = False) -> ctypes.c_void_p:
    """A native model on the CPU; raises UserError with the native reason."""
    start()
    last_error()
    params = native.llama_model_default_params()
    params.n_gpu_layers = 0
    params.vocab_only = vocab_only
    params.check_tensors = not vocab_only
    params.use_extra_bufts = not multiplies_in_tiles()
    model = native.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        reason = last_error() or "no reason given"
        raise UserError(f"llama.cpp cannot load {path}: {reason}", "check that the file is complete, or export again")
    return model


def vocabulary(model: ctypes.c_void_p) -> ctypes.c_void_p:
    """The vocabulary of a loaded model."""
    vocab = native.llama_model_get_vocab(model)
    if not vocab:
        raise UserError("the GGUF file has no vocabulary", "export it again")
    return vocab


def tokenize(vocab: ctypes.c_void_p, text: str) -> list[int]:
    """Token ids; special tokens written in the text are recognised, none is added."""
    raw = text.encode("utf-8")
    if not raw:
        return []
    room = len(raw) + 8  # a token covers at least one byte; SentencePiece may add a leading space
    buffer = (native.llama_token * room)()
    count = native.llama_tokenize(vocab, raw, len(raw), buffer, room, False, True)
    if count < 0:
        buffer = (native.llama_token * -count)()
        count = native.llama_tokenize(vocab, raw, len(raw), buffer, -count, False, True)
    if count < 0:
        raise UserError(
            f"llama.cpp cannot tokenize {text[:40]!r}", "the vocabulary of the file is damaged; export again"
        )
    return list(buffer[:count])


def piece(vocab: ctypes.c_void_p, token: int) -> bytes:
    """The bytes of one token; nothing for control tokens."""
    buffer = ctypes.create_string_buffer(256)
    count = native.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, False)
    if count < 0:
        buffer = ctypes.create_string_buffer(-count)
        count = native.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, False)
    return buffer.raw[: max(0, count)]


def fill(batch: native.llama_batch, ids: Sequence[int], first: int, every: bool) -> None:
    """Put tokens at positions `first`... into a native batch; logits for all of them or for the last only."""
    batch.n_tokens = len(ids)
    positions: Any = batch.pos  # the binding declares one array too many
    for i, token in enumerate(ids):
        batch.token[i] = token
        positions[i] = first + i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = every or i == len(ids) - 1
