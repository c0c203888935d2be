"""The pool and the held-out splits, and the gate that keeps them apart.

No dev or test item, exact or near-duplicate, may reach the teacher, the pool or training: pool items that come too
close to a held-out one are dropped, and what was dropped is counted in the manifest. The splits are locked there by
their hashes.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bridge_edge.data.card import Card
from bridge_edge.data.files import ANSWER_ALIASES, read_rows, to_samples
from bridge_edge.data.samples import Sample, Task
from bridge_edge.data.thinking import CARD_KEY
from bridge_edge.errors import UserError, first_line
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_task import DataSpec

SHINGLE = 3
WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+|[+*/<>=^%$]|(?<=[\d)] )-(?= [\d(])")
POOL_SEED, DEV_SEED, TEST_SEED = 1, 2, 3
FEW, TRIES = 2_000, 3  # draws that show how frequent each kind is; how often twice as many are drawn


def load_task(module: str) -> Task:
    """The TASK of a shipped domain; raises UserError for an unknown name."""
    if not re.fullmatch(r"[a-z_]+", module):
        raise UserError(f"task.module={module!r} is no name of a shipped domain", "`bridge-edge recipes` lists them")
    try:
        return import_module(f"bridge_edge.recipes.{module}.task").TASK
    except ModuleNotFoundError as error:
        raise UserError(f"task.module={module!r} is no shipped domain", "`bridge-edge recipes` lists them") from error


def make_card(recipe: Recipe, suffix: str = "", budgets: Sequence[int] = ()) -> Card:
    """The card that every model of this run carries; `suffix` ends the prompt of one that was trained with it, and
    `budgets` of reasoning are those that it was trained on."""
    return Card(
        recipe.name,
        recipe.task.prompt + suffix,
        recipe.task.answers,
        recipe.task.max_new_tokens,
        extra={"format": recipe.tutor.format, **({CARD_KEY: list(budgets)} if budgets else {})},
    )


def shingles(text: str) -> frozenset[str]:
    """Runs of three words, without case and punctuation (a number's own point, and signs of arithmetic, stay); a
    shorter text is one shingle."""
    words = WORD.findall(text.casefold())
    if len(words) <= SHINGLE:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def near_duplicates(pool: Sequence[Sample], held_out: Sequence[Sample], threshold: float) -> set[int]:
    """Indices of pool items whose Jaccard similarity of shingles with a held-out item is at least `threshold`.

    Exact by construction: a pair at or above the threshold shares a shingle of the held-out item's rarest ones
    (prefix filtering, Bayardo et al., WWW 2007), so only such pairs are compared.
    """
    pool_sets = [shingles(s.prompt) for s in pool]
    frequency: dict[str, int] = defaultdict(int)
    for found in pool_sets:
        for item in found:
            frequency[item] += 1

    def rare_first(found: frozenset[str]) -> list[str]:
        ranked = sorted(found, key=lambda x: (frequency[x], x))
        return ranked[: len(ranked) - max(1, math.ceil(threshold * len(ranked) - 1e-9)) + 1]

    index: dict[str, list[int]] = defaultdict(list)
    for i, found in enumerate(pool_sets):
        for item in rare_first(found):
            index[item].append(i)
    close: set[int] = set()
    for sample in held_out:
        mine = shingles(sample.prompt)
        for i in {i for item in rare_first(mine) for i in index.get(item, ())} - close:
            common = len(mine & pool_sets[i])
            # A division is rounded as the threshold's own decimals are: 7 of 10 is 0.7, while 0.7 * 10 is above 7.
            if common / (len(mine) + len(pool_sets[i]) - common) >= threshold:
                close.add(i)
    return close


def distinct(samples: Sequence[Sample]) -> list[Sample]:
    """The samples without repeated prompts, first one kept."""
    found: dict[str, Sample] = {}
    for sample in samples:
        found.setdefault(sample.id, sample)
    return list(found.values())


def build_splits(recipe: Recipe) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    """Pool, dev and test samples of a recipe, and what was counted on the way.

    Raises UserError for an empty pool, for labels that a recipe needs and the data lacks, and for a budget that the
    pool cannot fill.
    """
    if recipe.data.path or recipe.data.hub:
        splits, counts = _from_data(recipe)
    else:
        splits, counts = _generated(recipe)
    held_out = splits["dev"] + splits["test"]
    pool = distinct(splits["pool"])
    counts["repeated"] = len(splits["pool"]) - len(pool)
    leaked = near_duplicates(pool, held_out, recipe.data.near_duplicate)
    counts["near_duplicates_dropped"] = len(leaked)
    splits["pool"] = [s for i, s in enumerate(pool) if i not in leaked]
    if not splits["pool"]:
        raise UserError(
            "the pool is empty", f"of {len(pool)} items {len(leaked)} stand too close to held-out ones; give more data"
        )
    if recipe.data.labels == "gold" and any(s.answer is None for s in splits["pool"]):
        raise UserError(
            "pool items without an answer", "map the column with data.columns.answer=NAME, or set data.labels=none"
        )
    if recipe.budget.queries and recipe.budget.queries > len(splits["pool"]):
        raise UserError(
            f"budget.queries={recipe.budget.queries} is above the pool of {len(splits['pool'])} items",
            "lower it, or give more data",
        )
    counts.update({name: len(items) for name, items in splits.items()})
    return splits, counts


def _generated(recipe: Recipe) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    task = load_task(recipe.task.module or "")
    seed = recipe.seed * 10
    sizes = (
        ("pool", recipe.data.pool or 10_000, POOL_SEED),
        ("dev", recipe.data.dev, DEV_SEED),
        ("test", recipe.data.test, TEST_SEED),
    )
    splits = {name: task.generate(size, seed + offset) for name, size, offset in sizes if name != "pool"}
    _, size, offset = sizes[0]
    splits["pool"] = uneven(task, size, seed + offset, recipe.data.skew)
    counts: dict[str, Any] = {"source": f"generator {task.name}"}
    if recipe.data.skew:
        counts["kinds"] = dict(Counter(s.kind for s in splits["pool"]).most_common())
    return splits, counts


def uneven(task: Task, count: int, seed: int, skew: float) -> list[Sample]:
    """`count` samples of a domain; with a `skew` s the k-th most frequent kind is 1 / k^s as frequent as the first.

    The order of the kinds is drawn by the seed. With s = 0 they come as the domain makes them. Raises UserError where
    a domain has too few items of a kind.
    """
    if not skew:
        return task.generate(count, seed)
    seen = Counter(s.kind for s in task.generate(FEW, seed))
    kinds = sorted(seen)
    random.Random(seed).shuffle(kinds)
    weights = [(k + 1) ** -skew for k in range(len(kinds))]
    ends = [round(count * sum(weights[: k + 1]) / sum(weights)) for k in range(len(kinds))]
    wanted = {kind: end - start for kind, start, end in zip(kinds, [0, *ends], ends, strict=False)}
    drawn = count + int(FEW * max(wanted[kind] / seen[kind] for kind in kinds))
    for _ in range(TRIES):
        left, found = Counter(wanted), []
        for item in task.generate(drawn, seed):
            if left[item.kind] > 0:
                left[item.kind] -= 1
                found.append(item)
        if len(found) == count:
            random.Random(seed).shuffle(found)
            return found
        drawn *= 2
    short = next(kind for kind in kinds if left[kind] > 0)
    raise UserError(
        f"data.skew={skew:g} wants {wanted[short]} items of kind {short!r}, and {drawn // 2} draws have too few",
        "lower data.skew or data.pool",
    )


def read_hub(data: DataSpec) -> list[dict[str, Any]]:
    """Rows of a hub dataset (never running code that comes with it)."""
    from datasets import load_dataset

    try:
        return [dict(row) for row in load_dataset(data.hub, data.hub_config, split=data.split)]
    except Exception as error:  # the library raises many kinds, of which none is for users
        raise UserError(
            f"cannot load the dataset {data.hub!r}: {first_line(error)}",
            "check its name, or download it and set data.path",
        ) from error


def _from_data(recipe: Recipe) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    card, data = make_card(recipe), recipe.data
    rows = read_rows(Path(data.path)) if data.path else read_hub(data)
    samples = distinct(_to_samples(rows, card, data, recipe.name))
    random.Random(recipe.seed).shuffle(samples)
    counts: dict[str, Any] = {"source": Path(data.path).name if data.path else str(data.hub), "rows": len(rows)}
    if data.test_path:
        test = to_samples(read_rows(Path(data.test_path)), card, data.columns, Path(data.test_path).stem)
        held = data.dev
    else:
        test, held = [], data.dev + data.test
    if len(samples) <= held:
        raise UserError(
            f"{counts['source']} has {len(samples)} distinct items, of which {held} would be held out, "
            "so the pool is empty",
            f"lower data.dev={data.dev} and data.test={data.test}, or give more data",
        )
    samples.sort(key=lambda s: s.answer is None)  # held-out items need answers; the order is else kept
    dev, rest = samples[: data.dev], samples[data.dev :]
    if not test:
        test, rest = rest[: data.test], rest[data.test :]
    if any(s.answer is None for s in dev + test):
        labelled = sum(s.answer is not None for s in samples)
        raise UserError(
            f"the {held} held-out items need answers, and {labelled} items of {counts['source']} have one",
            f"label some more, or lower data.dev={data.dev} and data.test={data.test}",
        )
    return {"pool": rest[: data.pool] if data.pool else rest, "dev": dev, "test": test}, counts


def _to_samples(rows: list[dict[str, Any]], card: Card, data: DataSpec, kind: str) -> list[Sample]:
    """Samples of a file; with data.labels=none the answer may be missing in some rows, or in all."""
    if data.labels == "gold":
        return to_samples(rows, card, data.columns, kind)
    names = [data.columns["answer"]] if "answer" in data.columns else ["answer", *ANSWER_ALIASES]
    has = [any(str(row.get(n) if row.get(n) is not None else "").strip() for n in names) for row in rows]
    labelled = [row for row, flag in zip(rows, has, strict=True) if flag]
    bare = [{k: v for k, v in row.items() if k not in names} for row, flag in zip(rows, has, strict=True) if not flag]
    columns = {k: v for k, v in data.columns.items() if k != "answer"}
    samples = to_samples(labelled, card, data.columns, kind) if labelled else []
    return samples + (to_samples(bare, card, columns, kind, require_answer=False) if bare else [])
