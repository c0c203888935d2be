"""Filters between the assistant's drafts and the student, each with a count and a reason an item.

What: an item's drafts must parse and end, hit the gold answer where there is one, agree with each other, state no
false sum or comparison, belong to the surest share, repeat no other rationale, and be short, in this order. None of
these needs the teacher or knows the domain. Each decision is kept: which filter dropped the item and why, or that all
let it pass.
Why: a small assistant is often right for wrong reasons. Its own mean log-probability tells such rationales apart, and
false arithmetic can simply be recomputed. A small student learns worse from long rationales than from a mixture in
which they are few (Li et al., arXiv 2502.12143), and repeated ones teach the phrase instead of the step.
Not covered: what a rationale means. Only a domain's own checker knows that. It is used for figures, and filters only
where `annotate.steps` asks for it, to show what wrong steps behind a right answer cost the student.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bridge_edge.data.card import normal
from bridge_edge.data.samples import ASSISTANT, Sample
from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Candidate, Verdict
from bridge_edge.generate.likeness import near_duplicates_of
from bridge_edge.plain import grid
from bridge_edge.recipe_models import AnnotateSpec


@dataclass
class Entry:
    """One item on its way through the filters; `best` is the draft that stands for it, and `read` its mean
    log-probability under a second reader, where there is one."""

    sample: Sample
    verdict: Verdict
    drafts: int
    best: Candidate | None = None
    read: float | None = None
    dropped_by: str = ""
    why: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Candidate:
        assert self.best is not None  # what has none is dropped by the first filter
        return self.best

    def annotated(self, by: str = ASSISTANT) -> Sample:
        """The item with the rationale and answer of the draft that stands for it, which `by` has written."""
        parsed = self.chosen.parsed
        return replace(self.sample, rationale=parsed.rationale, answer=parsed.answer, provenance=by)

    def record(self) -> dict[str, Any]:
        """The item's line in decisions.jsonl."""
        line: dict[str, Any] = {"id": self.sample.id, "kept": not self.dropped_by}
        if self.dropped_by:
            line |= {"dropped_by": self.dropped_by, "why": self.why}
        line |= {"drafts": self.drafts, "votes": self.verdict.votes, "agreement": round(self.verdict.agreement, 4)}
        if self.best is not None:
            draft = self.best.draft
            line |= {"decided_by": self.verdict.by, "sample": draft.sample, "logprob": draft.logprob}
            line["tokens"] = draft.tokens
            line |= {} if self.best.accord is None else {"accord": round(self.best.accord, 4)}
            line |= {} if self.read is None else {"read": round(self.read, 5)}
        return {**line, **({"notes": self.notes} if self.notes else {})}


Reader = Callable[[Sequence[Sample]], list[float]]
"""What reads drafts: from annotated samples to a mean log-probability each (`reader.py`)."""
Filter = Callable[[Sequence[Entry], AnnotateSpec], dict[int, str]]
"""From the entries that are left to the places of those to drop, each with the reason."""


def unparsed(entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    return {i: "no draft ended with an answer that can be read" for i, e in enumerate(entries) if e.best is None}


def answer_missed(entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    if spec.keep != "answer":
        return {}
    found = {}
    for i, entry in enumerate(entries):
        gold, given = entry.sample.answer, entry.chosen.parsed.answer or ""
        if gold is not None and normal(given) != normal(gold):
            found[i] = f"says {given!r}, the gold answer is {gold!r}"
    return found


def disputed(entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    return {
        i: f"{e.verdict.agreement:.0%} of its drafts agree, annotate.agreement is {spec.agreement:.0%}"
        for i, e in enumerate(entries)
        if e.verdict.agreement < spec.agreement
    }


def false_arithmetic(entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    return {i: e.chosen.false for i, e in enumerate(entries) if spec.arithmetic and e.chosen.false}


def wrong_steps(wrong: Callable[[Entry], bool], entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    return {i: "the domain's checker finds a step wrong" for i, entry in enumerate(entries) if wrong(entry)}


def unsure(entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    """All but the `surest` share by mean log-probability; with a second reader or several tellings by the sum of the
    ranks that the assistant, the reader and the accord of the tellings give, less the assistant's where the engine
    reports none.

    Taken within each answer, since an assistant may be surer of one answer than of the other, and the student must not
    learn that balance.
    """
    if spec.surest == 1:
        return {}
    if any(e.chosen.draft.logprob is None and e.read is None and e.chosen.accord is None for e in entries):
        raise UserError(
            f"annotate.surest={spec.surest} needs log-probabilities, which this engine did not report",
            "let the server report them (logprobs), or set annotate.reader=true or annotate.surest=1",
        )
    groups: dict[str, list[int]] = {}
    for place, entry in enumerate(entries):
        groups.setdefault(entry.chosen.parsed.answer or "", []).append(place)
    found = {}
    for answer, places in groups.items():
        ranked = _by_sureness([entries[i] for i in places])
        for i in (places[k] for k in ranked[max(1, round(spec.surest * len(ranked))) :]):
            told = f"mean log-probability {entries[i].chosen.sureness:.4f}"
            if entries[i].read is not None:
                told += f", {entries[i].read:.4f} by the second reader"
            if (accord := entries[i].chosen.accord) is not None:
                told += f", accord {accord:.2f}"
            found[i] = f"{told}, not among the surest of {answer!r}"
    return found


def unsure_to_both(reader: Reader, entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    """As `unsure`, after a second reader has read what is left by then."""
    for entry, logprob in zip(entries, reader([e.annotated() for e in entries]), strict=True):
        entry.read = logprob
    return unsure(entries, spec)


def _by_sureness(entries: Sequence[Entry]) -> list[int]:
    """The places of entries, the surest first."""
    places = range(len(entries))
    orders = [own := sorted(places, key=lambda i: -entries[i].chosen.sureness)]
    if all(e.read is not None for e in entries):
        orders.append(sorted(places, key=lambda i: -(entries[i].read or 0.0)))
    if all(e.chosen.accord is not None for e in entries):
        orders.append(sorted(own, key=lambda i: -(entries[i].chosen.accord or 0.0)))
    if len(orders) > 1 and all(e.chosen.draft.logprob is None for e in entries):
        orders.remove(own)
    ranks = dict.fromkeys(places, 0)
    for order in orders:
        for rank, i in enumerate(order):
            ranks[i] += rank
    return sorted(own, key=lambda i: ranks[i])


def repeated(entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    """Rationales that nearly repeat a surer one."""
    if spec.near_duplicate is None:
        return {}
    order = sorted(range(len(entries)), key=lambda i: -entries[i].chosen.sureness)
    texts = [e.chosen.parsed.rationale for e in entries]
    like = near_duplicates_of(texts, order, spec.near_duplicate)
    return {i: f"nearly repeats the rationale of {entries[other].sample.id}" for i, other in like.items()}


def too_long(entries: Sequence[Entry], spec: AnnotateSpec) -> dict[int, str]:
    """Long drafts past their share: a shorter one of the same answer takes their place, or the longest are dropped."""
    longest = spec.longest
    if longest is None:
        return {}
    for entry in entries:
        best = entry.chosen
        if best.draft.tokens > longest:
            short = [c for c in entry.verdict.candidates if c.draft.tokens <= longest and (best.false or not c.false)]
            if short:
                entry.best = short[0]
                entry.notes.append(f"draft {short[0].draft.sample} instead of {best.draft.sample}, which was long")
    long = [i for i, e in enumerate(entries) if e.chosen.draft.tokens > longest]
    short_ones = len(entries) - len(long)
    share = spec.long_share
    allowed = len(long) if share >= 1 else int(share / (1 - share) * short_ones + 1e-9)
    ranked = sorted(long, key=lambda i: (entries[i].chosen.draft.tokens, i))
    return {
        i: f"{entries[i].chosen.draft.tokens} tokens; more than {longest} may be {share:.0%} at most"
        for i in ranked[allowed:]
    }


FILTERS: tuple[tuple[str, Filter], ...] = (
    ("unparsed", unparsed),
    ("answer_missed", answer_missed),
    ("disputed", disputed),
    ("false_arithmetic", false_arithmetic),
    ("unsure", unsure),
    ("near_duplicate", repeated),
    ("too_long", too_long),
)
CHECKED = 4  # filters before the one by a domain's checker, which is there only where it is asked for


@dataclass(frozen=True)
class Row:
    """What one filter did: how many it dropped and left, and the share of wrong steps among what is left, if known."""

    name: str
    removed: int
    left: int
    wrong_steps: float | None = None


def sift(
    entries: Sequence[Entry],
    spec: AnnotateSpec,
    wrong: Callable[[Entry], bool] | None = None,
    reader: Reader | None = None,
) -> tuple[list[Entry], list[Row]]:
    """Pass the entries through all filters, marking what is dropped; returns what is left, and a row for each filter.

    `wrong` tells an entry whose steps are wrong, by a domain's checker; it is counted, and filters with `spec.steps`.
    `reader` has a say in which are surest.
    """
    filters = [(n, partial(unsure_to_both, reader) if reader and f is unsure else f) for n, f in FILTERS]
    if spec.steps and wrong is not None:
        filters.insert(CHECKED, ("wrong_steps", partial(wrong_steps, wrong)))
    left, rows = list(entries), []
    for name, judge in filters:
        out = judge(left, spec)
        for place, why in out.items():
            left[place].dropped_by, left[place].why = name, why
        left = [e for i, e in enumerate(left) if i not in out]
        share = None if wrong is None or not left else round(sum(map(wrong, left)) / len(left), 4)
        rows.append(Row(name, len(out), len(left), share))
        if not left:
            break
    return left, rows


def table(rows: Sequence[Row]) -> str:
    """What each filter took, for people."""
    known = any(row.wrong_steps is not None for row in rows)
    header = ["filter", "removed", "left", *(["wrong steps"] if known else [])]
    lines = []
    for row in rows:
        share = "" if row.wrong_steps is None else f"{row.wrong_steps:.1%}"
        lines.append([row.name, str(row.removed), str(row.left), *([share] if known else [])])
    return grid(header, lines, right=(1, 2, 3))
