"""The training loop against `transformers.Trainer`, and annotation against `model.generate`, side by side.

    python -m bridge_edge.benchmarks.throughput --recipe legal --items 400

Same model, same data, same threads, alternating, with a warm-up; what is printed is the ratio of each pair. The Trainer
runs with its defaults (float32, AdamW, its own collator with dynamic padding), at a batch of as many rows as
ours holds on average. `--precision fp32` and `--optimizer adamw` make our loop do the same arithmetic, which tells the
share of the gain that is the loop's alone.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bridge_edge.cli import quiet_environment

if TYPE_CHECKING:
    from bridge_edge.data.samples import Sample
    from bridge_edge.recipe import Recipe

BOUND = 64  # new tokens


def ours(model: Any, examples: list[Any], micro: int, precision: str, optimizer: str) -> int:
    """One epoch through `train`; returns the real tokens."""
    from bridge_edge.train.loop import Plan, train

    plan = Plan(1e-3, 1, micro, micro, optimizer=optimizer, precision=precision)
    return train(model, examples, plan, 0, lambda share, note: None).tokens


def trainers(model: Any, tokenizer: Any, examples: list[Any], rows: int) -> int:
    """One epoch through `transformers.Trainer` with its defaults; returns the real tokens."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    data = []
    for e in examples:
        labels = [int(i) if s else -100 for i, s in zip(e.ids, e.segments, strict=True)]
        data.append({"input_ids": e.ids.tolist(), "attention_mask": [1] * len(e), "labels": labels})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=rows, num_train_epochs=1, save_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True, learning_rate=1e-3, logging_strategy="no",
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=data, data_collator=DataCollatorForSeq2Seq(tokenizer)).train()
    return sum(len(e) for e in examples)


Clock = Callable[[], float]


def alternate(
    first: Callable[[], float], second: Callable[[], float], pairs: int, clock: Clock = time.perf_counter
) -> dict[str, Any]:
    """Units a second of both, in turn; the ratio of each pair."""
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs + 1):
        for side, work in enumerate((first, second)):
            start = clock()
            units = work()
            if number:  # the first pair warms up
                rates[side].append(units / (clock() - start))
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    return {
        "ours_per_s": round(statistics.median(rates[0]), 1),
        "theirs_per_s": round(statistics.median(rates[1]), 1),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "pairs": pairs,
    }


def training(
    spec: Recipe, samples: list[Sample], pairs: int, precision: str, optimizer: str, clock: Clock = time.perf_counter
) -> dict[str, Any]:
    """Real tokens a second of both loops; each gets its model as it is usually loaded for it."""
    import torch
    from transformers import AutoModelForCausalLM

    from bridge_edge.data.encode import encode_samples
    from bridge_edge.train.models import load_model, load_tokenizer, locate

    tokenizer = load_tokenizer(spec.student.model)
    examples = encode_samples(tokenizer, samples)
    micro = spec.student.micro_tokens
    rows = max(1, micro // (sum(map(len, examples)) // len(examples)))
    plain = AutoModelForCausalLM.from_pretrained(locate(spec.student.model), dtype=torch.float32)
    fast = load_model(spec.student.model)
    return alternate(
        lambda: ours(fast, examples, micro, precision, optimizer),
        lambda: trainers(plain, tokenizer, examples, rows),
        pairs,
        clock,
    )


def annotation(spec: Recipe, samples: list[Sample], pairs: int, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """Generated tokens a second of our batches, and of `model.generate` prompt by prompt on an eighth of the items."""
    import torch
    from transformers import AutoModelForCausalLM

    from bridge_edge.data.encode import prompt_ids
    from bridge_edge.generate.engine import generate
    from bridge_edge.train.models import load_model, load_tokenizer, locate

    tokenizer = load_tokenizer(spec.student.model)
    prompts = prompt_ids(tokenizer, [s.prompt for s in samples])
    ta = load_model(spec.ta.model)
    reference: Any = AutoModelForCausalLM.from_pretrained(locate(spec.ta.model), dtype=torch.float32)
    ends = frozenset([tokenizer.eos_token_id])

    def batched() -> float:
        return sum(len(g.ids) + 1 for g in generate(ta, prompts, BOUND, ends))

    def one_by_one() -> float:
        total = 0
        for ids in prompts[: max(8, len(prompts) // 8)]:
            out = reference.generate(torch.tensor([ids]), max_new_tokens=BOUND, do_sample=False, pad_token_id=0)
            total += out.shape[1] - len(ids)
        return total

    return alternate(batched, one_by_one, pairs, clock)


def task_samples(recipe: str, items: int) -> tuple[Recipe, list[Sample]]:
    """A shipped recipe, and items of its task with the expert's rationales."""
    from bridge_edge.data.pool import load_task
    from bridge_edge.recipe_io import load_recipe

    spec = load_recipe([f"recipe={recipe}"])
    task = load_task(spec.task.module or recipe)
    return spec, [replace(s, rationale=task.expert(s, random.Random(s.id))[0]) for s in task.generate(items, 5)]


@click.command()
@click.option("--recipe", default="legal", show_default=True)
@click.option("--items", type=int, default=400, show_default=True)
@click.option("--pairs", type=int, default=3, show_default=True)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--optimizer", type=click.Choice(["muon", "adamw"]), default="muon", show_default=True)
@click.option("--threads", type=int, default=None)
def main(recipe: str, items: int, pairs: int, precision: str, optimizer: str, threads: int | None) -> None:
    """Print both ratios as one JSON line."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    spec, samples = task_samples(recipe, items)
    trained = training(spec, samples, pairs, precision, optimizer)
    annotated = annotation(spec, samples, pairs)
    setting = {"threads": torch.get_num_threads(), "precision": precision, "optimizer": optimizer}
    print(json.dumps({"training_tokens": trained, "annotation_tokens": annotated, **setting}))


if __name__ == "__main__":
    quiet_environment()
    main()
