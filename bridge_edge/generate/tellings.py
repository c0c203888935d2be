"""One item told several times over, each time with other names, and what the assistant says told back.

What: `told_again` gives an engine every item as it is and then with other words of the lists of `swap.words`, and
returns the drafts with the item's own words. `borne_out` chooses the draft that the others bear out most.
Why: what a model misreads in one telling it seldom misreads alike in another, though it is as sure of it. So of several
tellings more items are right in one, and what they say alike is true more often than what one draft was sure of.
Not covered: tellings in other sentences; drafts that are drawn (`annotate.samples`), which err alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bridge_edge.data.pool import shingles
from bridge_edge.data.samples import Sample
from bridge_edge.data.swaps import Swaps, swaps_of
from bridge_edge.generate.drafts import Draft, Verdict, Writer
from bridge_edge.generate.likeness import jaccard
from bridge_edge.progress import Advance
from bridge_edge.recipe import Recipe


@dataclass(frozen=True)
class Telling:
    """How often an item is told, and with which words."""

    swaps: Swaps
    count: int
    seed: int

    def words(self, item: Sample, k: int) -> dict[str, str]:
        """The other words of telling k by the item's own; none in the first telling, which is the item as it is."""
        rng = random.Random(f"{self.seed} {k} {item.id}")
        return self.swaps.drawn(item.prompt, rng) if k else {}


def telling_of(recipe: Recipe) -> Telling | None:
    """How the recipe tells items more than once; None where it does not."""
    swaps = swaps_of(recipe) if recipe.annotate.tellings > 1 else None
    return Telling(swaps, recipe.annotate.tellings, recipe.annotate.seed) if swaps else None


def told_again(
    writer: Writer, items: Sequence[Sample], telling: Telling, advance: Advance
) -> Iterator[tuple[int, Draft]]:
    """The drafts of all tellings, told back, with the places of their items; numbered as samples are."""
    new = [telling.words(item, k) for k in range(telling.count) for item in items]
    prompts = [
        telling.swaps.told(item.prompt, words) for item, words in zip([*items] * telling.count, new, strict=True)
    ]
    asked: dict[str, list[int]] = {}  # an item without such words is the same in every telling, and written on once
    for place, prompt in enumerate(prompts):
        asked.setdefault(prompt, []).append(place)
    told = [replace(items[places[0] % len(items)], prompt=prompt) for prompt, places in asked.items()]
    for index, draft in writer.write(told, advance):
        same = asked[told[index].prompt]
        for place in same:
            back = {other: own for own, other in new[place].items()}
            text = telling.swaps.told(draft.text, back)
            yield place % len(items), replace(draft, text=text, sample=place // len(items))
        advance(len(same) - 1, "")


def borne_out(verdict: Verdict, drafts: int) -> Verdict:
    """The verdict with the accord of its candidates, the one with the most first: the mean Jaccard similarity of a
    rationale's word triples with those of the item's other drafts, of which one with a false sum, another answer or
    none counts as not alike at all. That is the draft of least Bayes risk (Kumar and Byrne, HLT-NAACL 2004)."""
    true = {i: shingles(c.parsed.rationale) for i, c in enumerate(verdict.candidates) if not c.false}

    def accord(i: int) -> float:
        return sum(jaccard(true[i], other) for k, other in true.items() if k != i) / max(1, drafts - 1)

    found = [replace(c, accord=accord(i) if i in true else 0.0) for i, c in enumerate(verdict.candidates)]
    found.sort(key=lambda c: (bool(c.false), -(c.accord or 0.0)))  # of equals the surest stays first
    return replace(verdict, candidates=tuple(found))
