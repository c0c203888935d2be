"""Does an ONNX student say the same on another processor? Greedy tokens here and under another Python, compared.

    .ci/arm64 FOLDER                                  # an aarch64 Python and its wheels, for qemu
    python -m bridge_edge.benchmarks.arm64 MODEL --python FOLDER/python

Both sides get this package's modules as one zip file and run `BareONNX`, which needs onnxruntime-genai and numpy alone,
on the test items of the model's run. Nothing is timed: an emulator says nothing of a device's speed. The exit code is 1
where a token differs, which for a quantised model may be rounding: kernels of another processor add in another order.
Not covered: GGUF, since llama-cpp-python has no wheel for aarch64, and torch.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from bridge_edge.benchmarks.reached import runner
from bridge_edge.deliver import held_out
from bridge_edge.errors import UserError

SAY = """
import json, platform, sys
from pathlib import Path
from bridge_edge.runtimes.genai import BareONNX
job = json.load(sys.stdin)
model = BareONNX(Path(job["model"]), 1)
said = [list(model.stream(model.chat(prompt), job["new"])) for prompt in job["prompts"]]
print(json.dumps({"machine": platform.machine(), "said": said}))
"""


def greedy(python: Sequence[str], model: Path, prompts: Sequence[str], new: int) -> dict[str, Any]:
    """The tokens of the answers to each prompt, and the processor, as a Python with these words says them."""
    job = json.dumps({"model": str(model.resolve()), "prompts": list(prompts), "new": new})
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "runner.zip"
        packed.write_bytes(runner())
        path = os.pathsep.join([str(packed), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            done = subprocess.run([*python, "-c", SAY], input=job, env={**os.environ, "PYTHONPATH": path},
                                  capture_output=True, text=True, check=False)  # fmt: skip
        except OSError as error:
            raise UserError(f"cannot start {python[0]!r}: {error.strerror}", "make one with .ci/arm64") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{shlex.join(python)} cannot run the model: {said}", "it needs onnxruntime-genai and numpy")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compared(here: Sequence[Sequence[int]], there: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many answers are equal token for token, and where the first one is not."""
    rows = list(zip(here, there, strict=True))
    differ = [k for k, (a, b) in enumerate(rows) if list(a) != list(b)]
    first = None
    if differ:
        pairs = enumerate(zip_longest(*rows[differ[0]]))
        first = {"item": differ[0], "token": next(place for place, (a, b) in pairs if a != b)}
    return {"answers": len(rows), "equal": len(rows) - len(differ), "tokens": sum(map(len, here)), "first": first}


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--python", required=True, help="The other Python, with words before it if need be.")
@click.option("--items", type=click.IntRange(1), default=50, show_default=True)
@click.option("--new", type=click.IntRange(1), default=96, show_default=True, help="Tokens of an answer at the most.")
def main(model: Path, python: str, items: int, new: int) -> None:
    """Print one JSON line."""
    prompts = [sample.prompt for sample in held_out(model, "test")[:items]]
    if not prompts:
        raise click.UsageError(f"{model} lies in no run with test items")
    try:
        here, there = (greedy(words, model, prompts, new) for words in ([sys.executable], shlex.split(python)))
    except UserError as error:
        raise click.UsageError(str(error)) from None
    found = compared(here["said"], there["said"])
    print(json.dumps({"here": here["machine"], "there": there["machine"], "model": model.name, **found}))
    sys.exit(found["equal"] != found["answers"])


if __name__ == "__main__":
    main()
