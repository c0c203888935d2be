"""Words that stand for one another: the same question and reasoning, told of other people and other places.

What: `Swaps` holds lists of words of which any may stand in the place of any other of its list without a change to what
is right: first names, states, firms. `swapped` tells a sample with other words, a different one for each that it has,
so what was equal stays equal and what differed still differs (mention replacement; Dai and Adel, arXiv 2010.11683).
Why: a few hundred answers of the teacher are seen many times over, always with the same names, and a small model learns
these names in the place of what is done with them. The words are known, so every pass may have others, at no teacher's
cost.
Not covered: words that change their form with what is beside them; finding the lists, which only a task's owner knows.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.recipe import Recipe


class Swaps:
    """Lists of words by name. A word counts where it stands whole and in this spelling, the longest first ("New York"
    before "York"); one that is in two lists is of the first alone, so no two words become the same."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self._list_of: dict[str, str] = {}
        for name, words in lists.items():
            for word in words:
                self._list_of.setdefault(word, name)
        self.lists = {k: tuple(w for w in dict.fromkeys(words) if self._list_of[w] == k) for k, words in lists.items()}
        longest = sorted(self._list_of, key=lambda word: (-len(word), word))
        by_first: dict[str, list[str]] = defaultdict(list)  # of thousands of words few begin as the text does
        for word in longest:
            by_first[word[:1]].append(re.escape(word[1:]))
        ways = (f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in by_first.items())
        self._any = re.compile(rf"(?<!\w)(?:{'|'.join(ways)})(?!\w)")

    def found(self, text: str) -> dict[str, list[str]]:
        """The words of each list in a text, in the order of their first appearance; lists without one are left out."""
        found: dict[str, list[str]] = {}
        for word in dict.fromkeys(self._any.findall(text)):
            found.setdefault(self._list_of[word], []).append(word)
        return found

    def drawn(self, text: str, rng: random.Random) -> dict[str, str]:
        """For each word of a text one of its list, each as likely and no two the same; it may be the word itself."""
        new: dict[str, str] = {}
        for name, words in self.found(text).items():
            new |= zip(words, rng.sample(self.lists[name], len(words)), strict=True)
        return new

    def told(self, text: str, new: Mapping[str, str]) -> str:
        """A text with other words; those that `new` does not name stay."""
        return self._any.sub(lambda match: new.get(match.group(), match.group()), text)

    def swapped(self, sample: Sample, rng: random.Random, answer: bool = False) -> Sample:
        """The sample with other words in prompt and rationale (and in the answer, where it is no choice of a few), each
        as likely; the sample itself where it has none. Facts are of the words as they were, so they are left out."""
        parts = [sample.prompt, sample.rationale or "", *([sample.answer or ""] if answer else [])]
        new = self.drawn("\n".join(parts), rng)
        if not new:
            return sample
        prompt, rationale = self.told(sample.prompt, new), sample.rationale and self.told(sample.rationale, new)
        given = self.told(sample.answer, new) if answer and sample.answer else sample.answer
        return replace(sample, prompt=prompt, rationale=rationale, answer=given, facts={})


def swaps_of(recipe: Recipe) -> Swaps | None:
    """The words that a recipe swaps; None where it swaps none. Raises UserError where it names none, or where a choice
    of its answers has one."""
    if not recipe.swap.enabled:
        return None
    lists: Mapping[str, Sequence[str]] = recipe.swap.words
    if not lists and recipe.task.module:
        lists = load_task(recipe.task.module).alike
    if not lists:
        raise UserError(
            "swap.enabled=true, and no lists of words that stand for one another are known",
            "name them, e.g. swap.words={people: [Anna, Ben]}, or leave it out",
        )
    swaps = Swaps(lists)
    for choice in recipe.task.answers:
        for name, words in swaps.found(choice).items():
            raise UserError(
                f"swap.words.{name} has {words[0]!r}, which is in the answer {choice!r} of task.answers",
                "take it out of the list: an answer must stay as it is",
            )
    return swaps
