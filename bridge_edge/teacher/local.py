"""A model on this machine as the teacher: a Hugging Face folder, a hub id or a .gguf file, through the runtimes.

It costs nothing but is counted in queries and tokens like any other, by its own tokenizer. Questions that arrive
together are answered together: the first one that finds the model free waits a moment and takes along those that came
meanwhile, so the concurrency of the run is the size of a batch.

Decoding is greedy, as the runtimes do it: no temperature, no second sample. The system prompt stands before the
question in one user message, since not every chat template has a system role. The weights are loaded with the first
question; the path is looked at before. Not covered: GPUs (serve the model behind an OpenAI-compatible address instead)
and models larger than the memory.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from bridge_edge.errors import UserError, first_line
from bridge_edge.prices import Price
from bridge_edge.run import digest_tree
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.load import kind_of, load_runtime
from bridge_edge.teacher.base import Reply, Request, TeacherError, digest

GATHER_S = 0.05  # how long the first question waits for company
WANTED = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt")


class LocalTeacher:
    """A model in a folder or file; `ask` may be called from several threads and answers them in batches."""

    def __init__(self, model: str, threads: int | None = None) -> None:
        self.price = Price()
        self.path = find_model(model)
        self.name = f"local:{self.path.name if Path(model).exists() else model}"
        self._threads = threads
        self._queue: deque[tuple[Request, Future[str]]] = deque()
        self._turn = threading.Lock()
        self._loading = threading.Lock()
        self._loaded: Runtime | None = None

    @property
    def runtime(self) -> Runtime:
        with self._loading:
            if self._loaded is None:
                self._loaded = load_runtime(self.path, self._threads)
            return self._loaded

    def close(self) -> None:
        with self._turn, self._loading:
            if self._loaded is not None:
                self._loaded.close()
                self._loaded = None

    def count_tokens(self, text: str) -> int:
        return len(self.runtime.encode(text))

    def prompt_tokens(self, request: Request) -> int:
        return len(self.runtime.chat(one_message(request)))

    def request_hash(self, request: Request) -> str:
        plain = Request(request.item_id, request.messages, request.max_tokens, None, request.sample)
        return digest("local", "", self.fingerprint, plain)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model's files: another model under the same name answers differently."""
        return digest_tree(self.path)

    def ask(self, request: Request) -> Reply:
        mine: Future[str] = Future()
        self._queue.append((request, mine))
        time.sleep(GATHER_S)
        while not mine.done():
            with self._turn:
                if not mine.done():
                    self._answer(self._take())
        try:
            text = mine.result()
        except UserError as error:  # a prompt that is too long for the model, memory that is too small
            message = f"item {request.item_id!r}: {error.message}"
            raise TeacherError(message, "local error", billed="no", scope="item") from None
        used = self.count_tokens(text)
        reason = "length" if used >= request.max_tokens else "stop"
        if not text.strip():
            empty = Reply(text, self.prompt_tokens(request), used, reason, self.name)
            message = f"item {request.item_id!r}: empty reply from {self.name}"
            raise TeacherError(message, "empty", billed="yes", reply=empty, scope="item")
        return Reply(text, self.prompt_tokens(request), min(used, request.max_tokens), reason, self.name)

    def _take(self) -> list[tuple[Request, Future[str]]]:
        """All questions that wait, with one bound on the answer; the others are taken next."""
        taken: list[tuple[Request, Future[str]]] = []
        while self._queue and (not taken or self._queue[0][0].max_tokens == taken[0][0].max_tokens):
            taken.append(self._queue.popleft())
        return taken

    def _answer(self, taken: list[tuple[Request, Future[str]]]) -> None:
        """Generate for all; where the batch fails, one by one, so that one bad prompt fails alone."""
        if not taken:
            return
        prompts, bound = [one_message(request) for request, _ in taken], taken[0][0].max_tokens
        try:
            texts = self.runtime.generate(prompts, bound)
        except Exception as error:
            if len(taken) == 1:
                taken[0][1].set_exception(error)
                return
            for one in taken:
                self._answer([one])
            return
        for (_, future), text in zip(taken, texts, strict=True):
            future.set_result(text)


def one_message(request: Request) -> str:
    """The system prompt and the question as one user message."""
    return "\n\n".join(message["content"] for message in request.messages)


def is_path(model: str) -> bool:
    """Whether a file or folder is meant and not a hub id."""
    path = Path(model).expanduser()
    return path.exists() or path.suffix == ".gguf" or model.startswith((".", "/", "~"))


def find_model(model: str) -> Path:
    """The folder or file of a local path, or of a hub id (downloaded once, weights in safetensors only)."""
    if is_path(model):
        return kind_of(Path(model).expanduser())[1]
    from huggingface_hub import snapshot_download

    try:
        return kind_of(Path(snapshot_download(model, allow_patterns=list(WANTED))))[1]
    except UserError:
        raise
    except Exception as error:  # the library raises many kinds, of which none is for users
        raise UserError(
            f"teacher.model={model!r} is no file or folder here, and the hub does not give it: {first_line(error)}",
            "give a folder with config.json and safetensors, a .gguf file, or a hub id that this machine can reach",
        ) from None
