"""What do our runtimes lose to the engines they drive? Each beside the engine's bare calls and, for GGUF, llama-bench.

    python -m bridge_edge.benchmarks.reference FILE.gguf|ONNX-FOLDER [--llama-bench PATH] [--threads 1]

Prefill (pp) and decode (tg) are `field.py`'s. "bare" is the engine in its own loop: llama_decode on a plain batch, as
llama-bench calls it, without reading logits; onnxruntime-genai's append_tokens on the whole prompt and
generate_next_token, as its own benchmark does. They
take turns, repetition by repetition. llama-bench comes with llama.cpp's source, which the source distribution of
llama-cpp-python holds:

    cmake -S vendor/llama.cpp -B build -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF
    cmake --build build --target llama-bench

Not covered: torch, batches, devices other than the CPU.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from bridge_edge.benchmarks import field
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError, first_line
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.session import GGUFSession, ONNXSession, Session

WORDS = "The tenant pays 1200 dollars a month and the landlord keeps the deposit until the lease ends. "


class BareGGUF(GGUFSession):
    """llama_decode on tokens that the library places by itself; no logits are copied."""

    def feed(self, ids: Sequence[int]) -> None:
        from bridge_edge.runtimes.llama_native import native

        for i in range(0, len(ids), self.batch):
            part = (native.llama_token * len(ids[i : i + self.batch]))(*ids[i : i + self.batch])
            if native.llama_decode(self.runtime._context, native.llama_batch_get_one(part, len(part))):
                raise UserError(f"llama.cpp cannot decode {self.runtime.path}", "free some memory")
            self.length += len(part)


class BareONNX(ONNXSession):
    """A prompt is appended; single tokens are the generator's own."""

    def __init__(self, runtime: Any, room: int) -> None:
        super().__init__(runtime, room, least=room)

    def feed(self, ids: Sequence[int]) -> None:
        if self.length and len(ids) == 1:
            self.generator.generate_next_token()
        else:
            self.generator.append_tokens(np.array([list(ids)], dtype=np.int32))
        self.length += len(ids)


BARE: dict[str, type[BareGGUF] | type[BareONNX]] = {"gguf": BareGGUF, "onnx": BareONNX}


@dataclass
class Bare:
    """A loaded runtime whose sessions are bare, for `field.repetition`."""

    runtime: Any

    @property
    def context_length(self) -> int:
        return int(self.runtime.context_length)

    def session(self, room: int) -> Session:
        return BARE[self.runtime.name](self.runtime, room)


def compare(runtime: Any, asked: Sequence[field.Test], repetitions: int) -> dict[str, dict[str, float]]:
    """Tokens a second by test, ours and bare: medians over repetitions, the first of which is dropped."""
    ids = runtime.encode(WORDS)
    found: dict[str, dict[str, list[float]]] = {}
    sides: tuple[tuple[str, Any], ...] = (("ours", runtime), ("bare", Bare(runtime)))
    for turn in range(repetitions + 1):
        for name, subject in sides:
            for timed in field.repetition(subject, asked, ids):
                if turn:
                    speeds = found.setdefault(timed.test.name, {}).setdefault(name, [])
                    speeds.append(timed.test.tokens / timed.seconds[0])
    return {test: {name: median(speeds) for name, speeds in by.items()} for test, by in found.items()}


def llama_bench(program: Path, model: Path, asked: Sequence[field.Test], threads: int, turns: int) -> dict[str, float]:
    """llama-bench's own figures, by the names of our tests."""
    words = [str(program), "-m", str(model), "-t", str(threads), "-r", str(turns), "-o", "json"]
    for test in asked:
        words += ["-p" if test.kind == "pp" else "-n", str(test.tokens)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        rows = json.loads(done.stdout)
        return {f"{'tg' if r['n_gen'] else 'pp'}{r['n_gen'] or r['n_prompt']}@d0": float(r["avg_ts"]) for r in rows}
    except (OSError, subprocess.CalledProcessError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{program} gave no figures: {first_line(error)}", "try it by hand with -o json") from None


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--llama-bench", "program", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--prompt-tokens", "pp", type=click.IntRange(1), default=512, show_default=True)
@click.option("--generate-tokens", "tg", type=click.IntRange(1), default=128, show_default=True)
@click.option("--repetitions", type=click.IntRange(1), default=5, show_default=True)
def main(model: Path, program: Path | None, threads: int, pp: int, tg: int, repetitions: int) -> None:
    """Print a line for each test and one JSON line last."""
    quiet_environment()
    runtime: Any = load_runtime(model, threads)
    if runtime.name not in BARE:
        raise UserError(f"{model} runs in {runtime.name}", "name a .gguf file or an ONNX folder")
    asked, left = field.fitting(field.tests([pp], [tg], [0]), runtime.context_length)
    if left:
        raise UserError(f"{model} has a context of {runtime.context_length}", "ask for fewer tokens")
    rows = compare(runtime, asked, repetitions)
    if program:
        for test, speed in llama_bench(program, runtime.path, asked, threads, repetitions).items():
            rows.setdefault(test, {})["llama-bench"] = speed
    for test, by in rows.items():
        others = ", ".join(f"{n} {v:.1f} (ours {by['ours'] / v:.3f} of it)" for n, v in by.items() if n != "ours")
        click.echo(f"{test:<10} ours {by['ours']:.1f} tokens/s, {others}")
    click.echo(json.dumps({"model": str(model), "threads": threads, "repetitions": repetitions, "tests": rows}))


if __name__ == "__main__":
    main()
