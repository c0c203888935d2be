"""Annotation throughput: this package's engine against `model.generate` in batches of 64 and the other engines.

    python -m bridge_edge.benchmarks.annotation --recipe legal --items 128

Same assistant, same prompts, same bound and end token, in turn, after a warm-up; each round gives a ratio. Tokens are
counted up to each row's end token, so that a batch that drags finished rows along gains nothing by it. Processor time
is given beside the time, since it is what a busy machine leaves comparable. Not covered: GPUs, served assistants.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from bridge_edge.cli import quiet_environment

ENGINES = ("native", "transformers", "llama-cpp")


def of_writer(writer: Any, items: list[Any]) -> int:
    """The tokens that an engine of the annotation makes of the items."""
    return sum(draft.tokens + draft.ended for _, draft in writer.write(items, lambda share, note: None))


def of_generate(model: Any, tokenizer: Any, items: list[Any], bound: int, rows: int) -> int:
    """The tokens that `model.generate` makes of the items, in batches of `rows`, sorted by length."""
    import torch

    from bridge_edge.data.encode import prompt_ids

    ids, total = sorted(prompt_ids(tokenizer, [s.prompt for s in items]), key=len), 0
    for start in range(0, len(ids), rows):
        part = ids[start : start + rows]
        width = max(map(len, part))
        padded = torch.tensor([[0] * (width - len(p)) + p for p in part])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part])
        end = tokenizer.eos_token_id
        out = model.generate(
            padded, attention_mask=mask, max_new_tokens=bound, do_sample=False, eos_token_id=end, pad_token_id=0
        )
        for row in out[:, width:].tolist():
            total += row.index(end) + 1 if end in row else len(row)
    return total


def measure(works: dict[str, Callable[[], int]], rounds: int) -> dict[str, dict[str, float]]:
    """Tokens a second, and a processor second, of each way of working, in turn; the median of the rounds."""
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            start, processor = time.perf_counter(), time.process_time()
            tokens = work()
            if number:  # the first round warms up
                found[name].append((time.perf_counter() - start, time.process_time() - processor, tokens))
    return {
        name: {
            "tokens": rows[0][2],
            "per_second": round(statistics.median(n / s for s, _, n in rows), 1),
            "per_cpu_second": round(statistics.median(n / c for _, c, n in rows), 1),
        }
        for name, rows in found.items()
    }


@click.command()
@click.option("--recipe", default="legal", show_default=True)
@click.option("--items", type=int, default=128, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--engine", "engines", type=click.Choice(ENGINES), multiple=True, default=ENGINES, show_default=True)
def main(recipe: str, items: int, rounds: int, engines: tuple[str, ...]) -> None:
    """Print the figures as a table, and as one JSON line last."""
    import torch
    from transformers import AutoModelForCausalLM

    from bridge_edge.data.pool import load_task
    from bridge_edge.generate.drafts import Wish
    from bridge_edge.generate.writers import Setting, make_writer
    from bridge_edge.plain import grid
    from bridge_edge.recipe_io import load_recipe
    from bridge_edge.shipping import assistant_gguf
    from bridge_edge.train.models import load_tokenizer, locate

    spec = load_recipe([f"recipe={recipe}"])
    pool = load_task(spec.task.module or recipe).generate(items, 5)
    folder, wish = Path(locate(spec.ta.model)), Wish(96)
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(folder, Path(scratch), Path(scratch) / "calls.sqlite", "cpu", "auto", 4, assistant_gguf)
        plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = load_tokenizer(spec.ta.model)
        works: dict[str, Callable[[], int]] = {
            "model.generate, batch 64": lambda: of_generate(plain, tokenizer, pool, wish.bound, 64)
        }
        for engine in engines:
            writer = make_writer(spec.annotate.model_copy(update={"engine": engine}), wish, setting)
            works[engine] = partial(of_writer, writer, pool)
        figures = measure(works, rounds)
    base = figures["model.generate, batch 64"]["per_cpu_second"]
    rows = [
        [name, str(f["tokens"]), str(f["per_second"]), str(f["per_cpu_second"]), f"{f['per_cpu_second'] / base:.2f}"]
        for name, f in figures.items()
    ]
    print(grid(["engine", "tokens", "per s", "per CPU s", "ratio"], rows, right=(1, 2, 3, 4)))
    print(json.dumps({"recipe": recipe, "items": items, "threads": torch.get_num_threads(), "figures": figures}))


if __name__ == "__main__":
    quiet_environment()
    main()
