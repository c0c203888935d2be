"""Short vignettes for the medical domain: who the patient is, what was measured, and findings that do not matter.

What: openings, lists of measurements in several layouts, and irrelevant values mixed in among the relevant ones.
Why: the domain should be read out of varied text, not out of one template.
Not covered: findings that contradict each other, spelled-out numbers, units other than those named.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bridge_edge.recipes._steps import article, join

SURNAMES = """Adams Baker Bell Brown Carter Clark Cooper Davis Diaz Evans Fisher Garcia Gray Green Hall Harris Hill
Hughes Jones Kelly Khan King Lee Lewis Lopez Mason Miller Moore Morgan Nguyen Owens Parker Patel Price Reed Rossi Scott
Shah Silva Smith Stone Tanaka Taylor Turner Walker Ward Watson White Wilson Wood Wright Young""".split()
PLACES = ("in the clinic", "on the ward", "in the emergency room", "at a routine visit", "after a fall", "with fever",
          "with cough", "before surgery", "with nausea", "after dialysis", "from a care home")  # fmt: skip
Measure = tuple[str, str]
OTHERS: dict[str, Callable[[random.Random], str]] = {
    "potassium": lambda rng: f"{rng.randint(3, 5)}.{rng.randint(0, 9)} mmol/L",
    "hemoglobin": lambda rng: f"{rng.randint(8, 17)} g/dL",
    "platelets": lambda rng: f"{rng.randint(90, 420)}",
    "heart rate": lambda rng: f"{rng.randint(50, 130)}/min",
    "temperature": lambda rng: f"{rng.randint(36, 39)}.{rng.randint(0, 9)} C",
    "oxygen saturation": lambda rng: f"{rng.randint(88, 99)}%",
    "glucose": lambda rng: f"{rng.randint(70, 260)} mg/dL",
    "bilirubin": lambda rng: f"0.{rng.randint(2, 9)} mg/dL",
    "lipase": lambda rng: f"{rng.randint(15, 60)} U/L",
}


def others(rng: random.Random, most: int = 2, without: Sequence[str] = ()) -> list[Measure]:
    """None to `most` irrelevant measurements."""
    names = rng.sample([name for name in OTHERS if name not in without], rng.randint(0, most))
    return [(name, OTHERS[name](rng)) for name in names]


def opening(rng: random.Random, sex: str, age: int) -> str:
    """The patient in a sentence without its verb: `A 72-year-old woman with fever`."""
    title = rng.choice(("Mrs", "Ms")) if sex == "woman" else "Mr"
    who = rng.choice((
        article(f"{age}-year-old {sex}", capital=True),
        f"A {sex} aged {age}",
        f"{title} {rng.choice(SURNAMES)}, a {sex} of {age} years",
        f"{title} {rng.choice(SURNAMES)} ({sex}, {age} years)",
    ))  # fmt: skip
    return who if rng.random() < 0.5 else f"{who} {rng.choice(PLACES)}"


def listing(rng: random.Random, measures: Sequence[Measure]) -> str:
    """The measurements in random order and one of several layouts, as the rest of the opening's sentence."""
    items = list(measures)
    rng.shuffle(items)
    layout = rng.randrange(4)
    if layout == 0:
        return f" has {join([f'{name} {value}' for name, value in items])}."
    if layout == 1:
        return ". " + ". ".join(f"{name.capitalize()}: {value}" for name, value in items) + "."
    if layout == 2:
        return ":\n" + "\n".join(f"{name} | {value}" for name, value in items)
    return f" shows {join([f'{article(name)} of {value}' for name, value in items])}."


def ask(rng: random.Random, story: str, question: str) -> str:
    """Story and question on one line or two."""
    return f"{story}{chr(10) if chr(10) in story or rng.random() < 0.4 else ' '}{question}"


def findings(rng: random.Random, who: str, present: Sequence[str], absent: Sequence[str]) -> str:
    """Which findings there are, in this order, and one or two that there are not."""
    text = f"{who} {rng.choice(('has', 'presents with'))} {join(present)}." if present else f"{who} has no complaints."
    missing = rng.sample(list(absent), min(len(absent), rng.randint(0, 2)))
    if missing:
        text += " " + rng.choice((f"There is no {' and no '.join(missing)}.", f"No {' or '.join(missing)}."))
    return text
