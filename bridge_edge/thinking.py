"""Reasoning of a set length (`reasoning.budgets`): what the student is shown of it, and how well it keeps to it.

What: `budgeted` makes, for each annotated item and budget b, a rationale of b/2 to b tokens: a draft of the assistant
of that length and the same answer, or its rationale cut to whole sentences (`data/thinking.py`): the first cut behind
which the assistant still finds the answer the most probable. `figures` measures a student at each budget, left alone
and with the bound enforced.
Why: the same question at several budgets tells the student what the control signal is about (BARD, arXiv 2511.01470).
The first cut that serves, and not the one that serves best: a small student learns a length by a way of shortening that
is always the same.
The assistant judges for free, so the teacher is asked nothing more.
Not covered: rationales written to a budget by a model, which `annotation.rewritten` gathers where the teacher has shown
how (`reasoning.compress=teacher`); whether what is left is a reason, as the assistant has the question before it too.
Budgets above the length that the assistant writes have no examples; the stage's figures say how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.card import ANSWER as MARKER
from bridge_edge.data.card import normal, parse
from bridge_edge.data.encode import encode_pairs, prompt_ids
from bridge_edge.data.samples import ASSISTANT, Sample
from bridge_edge.data.thinking import ROOM, asked, closing, counter, fits, shorter, thought
from bridge_edge.evaluate import Scores, score, spearman
from bridge_edge.generate.drafts import Draft
from bridge_edge.generate.engine import generate
from bridge_edge.parallel import side_by_side
from bridge_edge.progress import track
from bridge_edge.recipe import Recipe
from bridge_edge.train.batches import ANSWER, Encoded, bucket, collate
from bridge_edge.train.losses import supervised_states
from bridge_edge.train.models import load_model, load_tokenizer
from bridge_edge.train.precision import use_bf16

FILE = "budgeted.jsonl"
TRIES = 3  # cuts that are judged for an item and budget; each is a forward pass over the question


def written(
    sample: Sample, drafts: Sequence[Draft], budget: int, recipe: Recipe, count: Callable[[str], int]
) -> str | None:
    """A rationale of the assistant's own that fits a budget: the chosen draft, else another of the same answer."""
    whole = sample.rationale or ""
    if fits(count(whole), budget):
        return whole
    for draft in drafts:
        read = parse(draft.text, recipe.task.answers)
        same = draft.ended and read.answer is not None and normal(read.answer) == normal(sample.answer or "")
        if same and fits(count(read.rationale), budget) and not first_error(read.rationale):
            return read.rationale
    return None


def budgeted(
    samples: Sequence[Sample], drafts: Mapping[str, Sequence[Draft]], recipe: Recipe, folder: str, device: str
) -> tuple[list[Sample], dict[str, Any]]:
    """Samples whose prompts name a budget and whose rationales keep to it, and how they came about."""
    count = counter(load_tokenizer(folder))
    pairs = [(sample, budget) for sample in samples for budget in recipe.reasoning.budgets]
    found: dict[int, str] = {}
    for i, (sample, budget) in enumerate(pairs):
        own = written(sample, drafts.get(sample.id, ()), budget, recipe, count)
        if own is not None:
            found[i] = own
    rest = [i for i in range(len(pairs)) if i not in found]
    short = cut([pairs[i] for i in rest], recipe, folder, device)
    found |= {i: text for i, text in zip(rest, short, strict=True) if text is not None}
    made = [
        replace(pairs[i][0], prompt=asked(pairs[i][0].prompt, pairs[i][1]), rationale=text, provenance=ASSISTANT)
        for i, text in sorted(found.items())
    ]
    by_budget = {str(b): sum(pairs[i][1] == b for i in found) for b in recipe.reasoning.budgets}
    return made, {**by_budget, "cut": sum(text is not None for text in short)}


def cut(pairs: Sequence[tuple[Sample, int]], recipe: Recipe, folder: str, device: str) -> list[str | None]:
    """The rationale of each sample cut to its budget: the first cut behind which the assistant finds the sample's
    answer the most probable; None where there is none."""
    tokenizer, model = load_tokenizer(folder), load_model(folder, device).eval()
    count = counter(tokenizer)
    cuts = [
        (i, text)
        for i, (sample, budget) in enumerate(pairs)
        for text in islice(shorter(sample.rationale or "", budget, count), TRIES)
    ]
    triples = [(pairs[i][0].prompt, text, pairs[i][0].answer or "") for i, text in cuts]
    found: dict[int, str] = {}
    for (i, text), right in zip(cuts, carried(model, tokenizer, triples, recipe), strict=True):
        if right:
            found.setdefault(i, text)
    return [found.get(i) for i in range(len(pairs))]


def carried(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, triples: list[tuple[str, str, str]], recipe: Recipe
) -> list[bool]:
    """Whether each answer is the model's most probable one behind its prompt, rationale and marker, token by token."""
    rows = [
        Encoded(r.ids, r.segments * (r.segments == ANSWER)) for r in encode_pairs(tokenizer, triples)
    ]  # else PROMPT
    marker = len(tokenizer(MARKER, add_special_tokens=False)["input_ids"])
    bf16 = use_bf16(recipe.ta.precision, model.device)

    def work(places: list[int]) -> list[bool]:
        batch = collate([rows[i] for i in places], 0).to(model.device)
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            states = supervised_states(model, batch)
            right = states.head(states.hidden).argmax(-1) == states.labels  # (N,)
        # Behind the marker and before the end token, which says nothing of the answer.
        return [bool(right[states.rows == k][marker:-1].all()) for k in range(len(places))]

    batches = bucket([len(r) for r in rows], recipe.ta.micro_tokens, range(len(rows)))
    found: dict[int, bool] = {}
    with side_by_side(model) as run, track("rationales within budgets", len(rows)) as advance:
        for places, results in zip(batches, run(work, batches), strict=True):
            found |= dict(zip(places, results, strict=True))
            advance(len(places), "")
    return [found[i] for i in range(len(rows))]


def figures(folder: Path, samples: Sequence[Sample], recipe: Recipe, device: str) -> dict[str, Any]:
    """How a student keeps to each budget of the recipe (see `at_budgets`)."""
    return at_budgets(folder, samples, recipe, device, recipe.reasoning.budgets)[0]


def at_budgets(
    folder: Path, samples: Sequence[Sample], recipe: Recipe, device: str, budgets: Sequence[int]
) -> tuple[dict[str, Any], dict[int, Scores]]:
    """How a student keeps to each budget: thought (tokens, mean), violations (share above the budget) and distance
    (mean |n - b| / b) where it is left alone, and its accuracy then and with the bound enforced; and over all budgets
    Spearman's correlation of budget and tokens thought. Also its answers with the bound enforced.

    A student of a recipe without budgets is asked without the control signal, which leaves plain truncation."""
    tokenizer, model = load_tokenizer(str(folder)), load_model(str(folder), device)
    found: dict[str, Any] = {}
    scores: dict[int, Scores] = {}
    pairs: list[tuple[int, int]] = []
    with track("test within budgets", len(budgets)) as advance:
        for budget in budgets:
            one, counts, scores[budget] = at_budget(model, tokenizer, samples, recipe, budget)
            found[str(budget)] = one
            pairs += [(budget, n) for n in counts]
            advance(1, f"{one['accuracy']:.1%} at {budget}")
    rank = spearman([b for b, _ in pairs], [n for _, n in pairs])
    return {**found, "spearman": None if rank is None else round(rank, 4)}, scores


def at_budget(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample], recipe: Recipe, budget: int
) -> tuple[dict[str, Any], list[int], Scores]:
    """The figures of one budget, the tokens thought of each sample, and the answers with the bound enforced."""
    told = [asked(s.prompt, budget) if recipe.reasoning.budgets else s.prompt for s in samples]
    prompts = prompt_ids(tokenizer, told)
    alone = _completions(model, tokenizer, prompts, recipe.task.max_new_tokens, recipe)
    counts = [thought(lambda ids: str(tokenizer.decode(list(ids))), ids)[0] for ids in alone]
    over = [i for i, n in enumerate(counts) if n > budget]
    cut = [alone[i][:budget] for i in over]
    heads = [ids + closing_ids(tokenizer, ids) for ids in cut]
    tails = _completions(model, tokenizer, [prompts[i] + h for i, h in zip(over, heads, strict=True)], ROOM, recipe)
    bound = list(alone)
    for i, head, tail in zip(over, heads, tails, strict=True):
        bound[i] = head + tail
    scores = [
        score(samples, [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in texts], recipe.task.answers)
        for texts in (alone, bound)
    ]
    n = np.array(counts)
    return (
        {
            "accuracy": round(scores[1].accuracy, 4),
            "ci95": [round(x, 4) for x in scores[1].ci95],
            "left_alone": round(scores[0].accuracy, 4),
            "thought": round(float(n.mean()), 2),
            "violations": round(len(over) / len(samples), 4),
            "distance": round(float(np.abs(n - budget).mean()) / budget, 4),
        },
        counts,
        scores[1],
    )


def closing_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """The tokens that close the thought `ids`."""
    pieces = closing(str(tokenizer.decode(list(ids))))
    return list(chain.from_iterable(tokenizer(p, add_special_tokens=False)["input_ids"] for p in pieces))


def _completions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], bound: int, recipe: Recipe
) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in prompts]
    ends = frozenset([tokenizer.eos_token_id])
    for row in generate(model, prompts, bound, ends, recipe.annotate.batch_rows, "fp32") if prompts else ():
        found[row.index] = row.ids
    return found
