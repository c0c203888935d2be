"""Feed tokens into a runtime step by step, with its KV cache kept: what the field's benchmarks time as pp and tg.

`Runtime.stream` decodes greedily and stops at an end token, so it cannot time "128 tokens at a depth of 512". A session
can: tokens go in, their keys and values stay, and `rewind` drops what lies beyond a position, so one prefill serves
several tests at a depth. The logits of the last token are computed on each call, as a decoder needs them, and dropped.

A session has the runtime for itself: any other call on the runtime ends it. Not covered: batches, sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime


class Session(Protocol):
    """An open KV cache; `length` tokens are in it."""

    length: int

    def feed(self, ids: Sequence[int]) -> None:
        """Run tokens through the model behind those that are in already."""

    def rewind(self, length: int) -> None:
        """Forget everything from position `length` on."""


class GGUFSession:
    """llama.cpp's own context, in batches as large as the runtime's."""

    def __init__(self, runtime: Any, room: int) -> None:
        from bridge_edge.runtimes.gguf_runtime import BATCH

        self.runtime, self.batch, self.length = runtime, BATCH, 0
        runtime._prepare([0], room - 1)

    def feed(self, ids: Sequence[int]) -> None:
        for i in range(0, len(ids), self.batch):
            part = ids[i : i + self.batch]
            self.runtime._run(part, self.length, every=False)
            self.length += len(part)

    def rewind(self, length: int) -> None:
        from bridge_edge.runtimes.llama_native import native

        memory = native.llama_get_memory(self.runtime._context)
        if not native.llama_memory_seq_rm(memory, 0, length, -1):
            raise UserError(f"llama.cpp cannot rewind the cache of {self.runtime.path}", "measure at one depth a run")
        self.length = length


class ONNXSession:
    """An onnxruntime-genai generator to which tokens are appended."""

    def __init__(self, runtime: Any, room: int, least: int = 0) -> None:
        import onnxruntime_genai as og

        from bridge_edge.runtimes.genai import append

        self.append = append
        params = og.GeneratorParams(runtime._model)
        params.set_search_options(max_length=room, min_length=least, do_sample=False, num_beams=1, batch_size=1)
        self.generator: Any = og.Generator(runtime._model, params)
        self.path, self.length = runtime.path, 0

    def feed(self, ids: Sequence[int]) -> None:
        for size in self.append(self.generator, ids, self.path):
            self.length += size

    def rewind(self, length: int) -> None:
        self.generator.rewind_to(length)
        self.length = length


class TorchSession:
    """A transformers cache. Caches with a sliding window cannot be cut, so those are filled again."""

    def __init__(self, runtime: Any, room: int) -> None:
        self.model, self.length = runtime.model, 0
        self.cache: Any = None
        self.fed: list[int] = []

    def feed(self, ids: Sequence[int]) -> None:
        import torch

        with torch.no_grad():
            out = self.model(
                input_ids=torch.tensor([list(ids)]), past_key_values=self.cache, use_cache=True, logits_to_keep=1
            )
        self.cache = out.past_key_values
        self.fed += ids
        self.length += len(ids)

    def rewind(self, length: int) -> None:
        if length == self.length:
            return
        kept = self.fed[:length]
        try:
            self.cache.crop(length - self.length)  # negative: how many to drop
        except (RuntimeError, ValueError):
            self.cache, self.fed, self.length = None, [], 0
            if kept:
                self.feed(kept)
        self.fed, self.length = kept, length


SESSIONS: dict[str, Callable[[Any, int], Session]] = {
    "gguf": GGUFSession,
    "onnx": ONNXSession,
    "torch": TorchSession,
}


def open_session(runtime: Runtime, room: int) -> Session:
    """A session with room for `room` tokens; a runtime of another kind may bring its own as `session(room)`."""
    limit = getattr(runtime, "context_length", None)
    if room < 1 or (limit is not None and room > limit):
        raise UserError(f"a session of {room} tokens does not fit", f"{runtime.path} has a context of {limit}")
    make = getattr(runtime, "session", None)
    return make(room) if make else SESSIONS[runtime.name](runtime, room)


def use_threads(runtime: Runtime, threads: int) -> None:
    """Let the next calls run on `threads`. Only torch needs it: there the count belongs to the whole process."""
    if runtime.name == "torch":
        import torch

        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
