"""Clinical point scores as questions whether a patient reaches a number of points.

CHA2DS2-VASc: heart failure 1, hypertension 1, age 75 or more 2 (65 to 74: 1), diabetes 1, stroke, TIA or embolism 2,
vascular disease 1, female sex 1 (Lip et al., Chest 2010). Wells score for deep vein thrombosis with its ten items,
likely from 2 points on (Wells et al., N Engl J Med 2003). CURB-65: confusion, urea above 7 mmol/L, 30 breaths a minute
or more, systolic below 90 or diastolic 60 or less, age 65 or more, 1 each (Lim et al., Thorax 2003).
A rationale goes through the findings in the order of the vignette, in its words, and gives each its points: to search
the vignette for every item of a score in turn, and to say only what is there, is more than a small model does reliably.
Not covered: "another diagnosis as likely" (-2) where it would bring the Wells score below zero, and a calf larger by
just 3 cm, on which versions of that score differ. Generated vignettes, not for care.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from bridge_edge.recipes._steps import Facts, Kind, Work, points, upward
from bridge_edge.recipes.medical.vignette import ask, findings, opening

CHADS = {
    "heart failure": (1, ("heart failure", "congestive heart failure")),
    "hypertension": (1, ("hypertension", "high blood pressure")),
    "diabetes": (1, ("diabetes", "type 2 diabetes")),
    "stroke": (2, ("a previous stroke", "a past TIA", "a previous embolism")),
    "vascular disease": (1, ("a previous heart attack", "peripheral artery disease", "aortic plaque")),
}
Told = list[list[Any]]  # findings as the vignette words them, in its order, each with its points; lists, as in a file
CHADS_NOISE = ("asthma", "gout", "migraine", "psoriasis", "a hip replacement", "glaucoma", "anemia", "hay fever")
WELLS = {
    "cancer": (1, ("active cancer", "cancer under treatment")),
    "paralysis": (1, ("a paralysed leg", "a leg in plaster")),
    "bed rest": (1, ("four days of bed rest", "major surgery last month")),
    "tenderness": (1, ("tenderness along the deep veins", "deep vein tenderness")),
    "whole leg": (1, ("swelling of the whole leg", "an entirely swollen leg")),
    "calf": (1, ()),
    "edema": (1, ("pitting edema", "pitting edema of that leg")),
    "veins": (1, ("collateral superficial veins", "collateral veins")),
    "earlier DVT": (1, ("a previous DVT", "an earlier DVT")),
}
WELLS_NOISE = ("fever", "cough", "a knee scar", "gout", "asthma", "headache", "back pain", "a rash", "a bruise")
NAMED_ABSENT = {"cancer": "active cancer", "paralysis": "paralysis", "tenderness": "tenderness",
                "edema": "pitting edema", "veins": "dilated vein", "earlier DVT": "previous DVT"}  # fmt: skip
OTHER = ("Another diagnosis is as likely.", "Cellulitis is at least as likely.", "A muscle tear is just as likely.")


def draw_chads(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    sex, limit = rng.choice(("man", "woman")), rng.choice((2, 2, 3, 4))
    age = rng.choice((rng.randint(40, 64), rng.randint(65, 74), rng.randint(75, 92), rng.choice((64, 65, 74, 75))))
    has = [name for name in CHADS if rng.random() < (0.55 if upward("at least", truth) else 0.25)]
    told = _present(rng, [CHADS[name] for name in has], rng.sample(CHADS_NOISE, rng.randint(0, 2)))
    facts: Facts = {"sex": sex, "age": age, "has": has, "told": told, "limit": limit}
    absent = [name for name in CHADS if name not in has] + ["sleep apnea"]
    rhythm = rng.choice(("with atrial fibrillation", "in atrial fibrillation"))
    story = findings(rng, f"{opening(rng, sex, age)} {rhythm}", [words for words, _ in told], absent)
    question = rng.choice(("Is the CHA2DS2-VASc score at least {}?", "Does the CHA2DS2-VASc score reach {} points?",
                           "Are there at least {} CHA2DS2-VASc points?"))  # fmt: skip
    return ask(rng, story, question.format(limit)), facts


def work_chads(f: Facts) -> Work:
    years = 2 if f["age"] >= 75 else 1 if f["age"] >= 65 else 0
    told = [(f"{f['age']} years", years), (f["sex"], int(f["sex"] == "woman")), *f["told"]]
    rules = ("CHA2DS2-VASc:", "CHA2DS2-VASc points:", "CHA2DS2-VASc, stroke and 75 years give 2:")
    return _score(told, f["limit"], rules)


def _present(rng: random.Random, signs: Sequence[tuple[int, Sequence[str]]], noise: Sequence[str]) -> Told:
    """One wording of each sign with its points, and findings that earn none, in random order."""
    told: Told = [[rng.choice(words), worth] for worth, words in signs] + [[words, 0] for words in noise]
    rng.shuffle(told)
    return told


def _score(told: Sequence[Sequence[Any]], limit: int, rules: tuple[str, ...]) -> Work:
    return Work(
        rules=rules,
        steps=(points(told),),
        left=sum(worth for _, worth in told),
        right=limit,
        subject="the score",
        ask="at least",
        limit=str(limit),
        score=True,
    )


def draw_wells(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    sex, age, limit = rng.choice(("man", "woman")), rng.randint(22, 88), rng.choice((1, 2, 2, 2, 3))
    has = [name for name in WELLS if rng.random() < (0.4 if upward("at least", truth) else 0.15)]
    other = len(has) >= 2 and rng.random() < 0.35
    calf = rng.randint(4, 7) if "calf" in has else rng.choice((0, 1, 2))  # 3 cm: sources differ
    larger = f"a calf {calf} cm larger than the other"
    signs = [(1, (larger,)) if name == "calf" else WELLS[name] for name in has]
    noise = rng.sample(WELLS_NOISE, rng.randint(0, 2)) + ([larger] if calf and "calf" not in has else [])
    told = _present(rng, signs, noise)
    facts: Facts = {"has": has, "told": told, "calf_cm": calf, "other": other, "limit": limit}
    absent = [NAMED_ABSENT[name] for name in NAMED_ABSENT if name not in has]
    story = findings(rng, opening(rng, sex, age), [words for words, _ in told], absent)
    story += f" {rng.choice(OTHER)}" if other else ""
    question = rng.choice(("Is the Wells DVT score at least {}?", "Does the Wells score for DVT reach {} points?"))
    return ask(rng, story, question.format(limit)), facts


def work_wells(f: Facts) -> Work:
    told = [*f["told"], *([("other diagnosis", -2)] if f["other"] else [])]
    return _score(told, f["limit"], ("Wells:", "Wells points:", "Wells, another likely diagnosis takes 2:"))


def draw_curb(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    limit, ill = rng.choice((1, 2, 2, 3, 3)), 0.65 if upward("at least", truth) else 0.3
    sex, age = rng.choice(("man", "woman")), rng.randint(65, 92) if rng.random() < ill else rng.randint(30, 64)
    confused = rng.random() < ill
    urea = rng.randint(8, 16) if rng.random() < ill else rng.randint(3, 7)
    breaths = rng.randint(30, 40) if rng.random() < ill else rng.randint(14, 29)
    high, low = _pressure(rng, rng.random() < ill)
    facts: Facts = {"confused": confused, "urea": urea, "breaths": breaths, "systolic": high, "diastolic": low}
    facts |= {"age": age, "limit": limit}
    items = [f"urea {urea} mmol/L", f"{rng.choice(('respiratory rate', 'breathing rate'))} {breaths}/min"]
    items += [f"blood pressure {high}/{low} mmHg", "new confusion" if confused else "no confusion"]
    items += [rng.choice((f"heart rate {rng.randint(60, 130)}/min", f"temperature {rng.randint(37, 40)} C"))] * (
        rng.random() < 0.4
    )
    rng.shuffle(items)
    story = f"{opening(rng, sex, age)} has pneumonia: {', '.join(items)}."
    question = rng.choice(("Is the CURB-65 score at least {}?", "Does the CURB-65 score reach {} points?"))
    return ask(rng, story, question.format(limit)), facts


def _pressure(rng: random.Random, ill: bool) -> tuple[int, int]:
    """A blood pressure that earns the point (either way) or does not, often close to 90/60."""
    if not ill:
        return rng.randint(90, 150), rng.randint(61, 85)
    return rng.choice(((rng.randint(70, 89), rng.randint(45, 70)), (rng.randint(90, 115), rng.randint(45, 60))))


def work_curb(f: Facts) -> Work:
    low = f["systolic"] < 90 or f["diastolic"] <= 60
    items = (
        ("confused", f["confused"], "not confused"),
        (f"urea {f['urea']} high", f["urea"] > 7, f"urea {f['urea']} normal"),
        (f"breathing {f['breaths']} fast", f["breaths"] >= 30, f"breathing {f['breaths']} normal"),
        (f"pressure {f['systolic']}/{f['diastolic']} low", low, f"pressure {f['systolic']}/{f['diastolic']} normal"),
        (f"{f['age']} years", f["age"] >= 65, f"{f['age']} years"),
    )
    told = [(label if present else otherwise, int(present)) for label, present, otherwise in items]
    return _score(told, f["limit"], ("CURB-65:", "CURB-65 points:", "CURB-65, each of five signs gives 1:"))


KINDS = (
    Kind("cha2ds2_vasc", draw_chads, work_chads),
    Kind("wells_dvt", draw_wells, work_wells),
    Kind("curb65", draw_curb, work_curb),
)
