"""Clinical formulas as threshold questions that need no division.

Cockcroft-Gault creatinine clearance: (140 - age) * weight / (72 * serum creatinine in mg/dL), times 0.85 for women
(Cockcroft and Gault, Nephron 1976). Body mass index: kg / m^2 (WHO classes at 25, 30, 35, 40). Anion gap without
potassium: sodium - chloride - bicarbonate (Emmett and Narins, Medicine 1977). Corrected calcium:
calcium + 0.8 * (4 - albumin) in mg/dL and g/dL (after Payne et al., BMJ 1973). Mean arterial pressure:
(systolic + 2 * diastolic) / 3.
Not covered: values that make long sums. Women's weights are multiples of 20 kg, so that 0.85 * weight is whole, and
their ages of 10 years; men's weights and all heights are multiples of 10; albumin goes in steps of
0.5 g/dL. Generated vignettes, not for care.
"""

from __future__ import annotations

import random
from fractions import Fraction

from bridge_edge.recipes._steps import ASKED, Facts, Kind, Work, beside, product, show, upward
from bridge_edge.recipes.medical.vignette import ask, listing, opening, others


def _person(rng: random.Random, low: int = 19, high: int = 92) -> tuple[str, int]:
    return rng.choice(("man", "woman")), rng.randint(low, high)


def _question(rng: random.Random, names: tuple[str, ...], asked: str, limit: str) -> str:
    return f"Is {rng.choice(names)} {rng.choice(ASKED[asked])} {limit}?"


def _given(**values: object) -> str:
    """The values that the formula needs, looked up before anything is computed: `Sodium 140, chloride 100.`"""
    return ", ".join(f"{name} {value}" for name, value in values.items()).capitalize() + "."


def draw_clearance(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    sex = rng.choice(("man", "woman"))
    weight = rng.choice((40, 60, 60, 80, 80, 100)) if sex == "woman" else rng.choice((50, 60, 70, 80, 90, 100))
    limit, asked, creatinine = rng.choice((30, 50, 60)), rng.choice(("above", "below")), rng.choice((5, 10, 15, 20, 30))
    mass = Fraction(weight * (85 if sex == "woman" else 100), 100)
    pivot = Fraction(limit * 72 * creatinine, 10) / mass  # the value of 140 - age at which clearance meets the limit
    age = 140 - beside(rng, pivot, upward(asked, truth), 140 - 92, 140 - 20)
    age = max(40, round(age, -1)) if sex == "woman" else age  # the mass has two digits there
    facts = {"sex": sex, "age": age, "weight": weight, "creatinine_tenths": creatinine, "limit": limit, "ask": asked}
    level = show(Fraction(creatinine, 10))
    measures = [("weight", f"{weight} kg"), ("creatinine", f"{level} mg/dL"), *others(rng)]
    story = opening(rng, sex, age) + listing(rng, measures)
    names = ("the creatinine clearance", "the Cockcroft-Gault clearance", "creatinine clearance (Cockcroft-Gault)")
    return ask(rng, story, _question(rng, names, asked, f"{limit} mL/min")), facts


def work_clearance(f: Facts) -> Work:
    woman, rest = f["sex"] == "woman", 140 - f["age"]
    mass = f["weight"] * 85 // 100 if woman else f["weight"]
    level = Fraction(f["creatinine_tenths"], 10)
    scaled = 72 * level
    first = f"140 - {f['age']} = {rest}. "
    first += f"Woman: 0.85 * {f['weight']} = {mass}. " if woman else ""
    left = first + (product(mass, rest) if woman else product(rest, mass))  # the rounder number comes second
    right = f"72 * {show(level)} = {show(scaled)}. {product(int(scaled), f['limit'])}"
    return Work(
        rules=("Clearance.", "Clearance: use 140 - age, weight and creatinine.", "Clearance, without dividing."),
        steps=(f"{_given(age=f['age'], weight=f['weight'], creatinine=show(level))} {left} {right}",),
        left=rest * mass,
        right=scaled * f["limit"],
        subject="the clearance",
        ask=f["ask"],
        limit=str(f["limit"]),
    )


def draw_bmi(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    sex, age = _person(rng)
    height, limit = rng.choice((15, 16, 17, 18, 19, 20)), rng.choice((20, 25, 30, 30, 40))
    asked = rng.choice(("at least", "below", "above"))
    weight = beside(rng, Fraction(limit * height * height, 100), upward(asked, truth), 38, 190)
    facts = {"weight": weight, "height_dm": height, "limit": limit, "ask": asked}
    size = rng.choice((f"{height * 10} cm", f"{height / 10:.1f} m"))
    story = opening(rng, sex, age) + listing(rng, [("weight", f"{weight} kg"), ("height", size), *others(rng)])
    return ask(rng, story, _question(rng, ("the BMI", "the body mass index"), asked, f"{limit} kg/m2")), facts


def work_bmi(f: Facts) -> Work:
    square = f["height_dm"] ** 2
    given = f"Weight {f['weight']} kg, height {f['height_dm']} dm."
    steps = f"{f['height_dm']} * {f['height_dm']} = {square}. {product(square, f['limit'])} "
    return Work(
        rules=("BMI.", "BMI = weight / height^2.", "BMI: height squared comes first."),
        steps=(f"{given} {steps}{f['weight']} * 100 = {f['weight'] * 100}.",),
        left=f["weight"] * 100,
        right=square * f["limit"],
        subject="the BMI",
        ask=f["ask"],
        limit=str(f["limit"]),
    )


def draw_gap(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    sex, age = _person(rng)
    asked, limit = rng.choice(("above", "below", "at least")), rng.choice((10, 12, 12, 14, 16, 20))
    sodium, bicarbonate = rng.randint(125, 150), rng.randint(8, 30)
    gap = beside(rng, limit, upward(asked, truth), 3, 34)
    chloride = sodium - bicarbonate - gap
    facts = {"sodium": sodium, "chloride": chloride, "bicarbonate": bicarbonate, "limit": limit, "ask": asked}
    ions = [(ion, f"{facts[ion]} mmol/L") for ion in ("sodium", "chloride", "bicarbonate")]
    story = opening(rng, sex, age) + listing(rng, [*ions, *others(rng)])
    return ask(rng, story, _question(rng, ("the anion gap", "the serum anion gap"), asked, f"{limit} mmol/L")), facts


def work_gap(f: Facts) -> Work:
    rest = f["sodium"] - f["chloride"]
    gap = rest - f["bicarbonate"]
    given = _given(sodium=f["sodium"], chloride=f["chloride"], bicarbonate=f["bicarbonate"])
    return Work(
        rules=("Gap.", "Gap = sodium - chloride - bicarbonate.", "Gap: take chloride and bicarbonate from sodium."),
        steps=(f"{given} {f['sodium']} - {f['chloride']} = {rest}. {rest} - {f['bicarbonate']} = {gap}.",),
        left=gap,
        right=f["limit"],
        subject="the gap",
        ask=f["ask"],
        limit=str(f["limit"]),
    )


def draw_calcium(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    sex, age = _person(rng)
    asked, limit = rng.choice(("above", "below")), rng.choice((85, 100, 105))
    albumin = rng.choice((15, 20, 25, 30, 35))
    pivot = limit - Fraction(8 * (40 - albumin), 10)
    calcium = beside(rng, pivot, upward(asked, truth), 55, 135)
    facts = {"calcium_tenths": calcium, "albumin_tenths": albumin, "limit_tenths": limit, "ask": asked}
    measures = [("calcium", f"{show(Fraction(calcium, 10))} mg/dL"), ("albumin", f"{show(Fraction(albumin, 10))} g/dL")]
    story = opening(rng, sex, age) + listing(rng, measures + others(rng, without=("bilirubin",)))
    names = ("the corrected calcium", "the albumin-corrected calcium", "calcium corrected for albumin")
    return ask(rng, story, _question(rng, names, asked, f"{show(Fraction(limit, 10))} mg/dL")), facts


def work_calcium(f: Facts) -> Work:
    calcium, albumin, limit = (Fraction(f[key], 10) for key in ("calcium_tenths", "albumin_tenths", "limit_tenths"))
    lack = 4 - albumin
    added = lack * Fraction(8, 10)
    total = calcium + added
    given = _given(calcium=show(calcium), albumin=show(albumin))
    sums = f"4 - {show(albumin)} = {show(lack)}. 0.8 * {show(lack)} = {show(added)}."
    return Work(
        rules=(
            "Corrected.",
            "Corrected = calcium + 0.8 * (4 - albumin).",
            "Corrected: each g/dL of albumin below 4 adds 0.8.",
        ),
        steps=(f"{given} {sums} {show(calcium)} + {show(added)} = {show(total)}.",),
        left=total,
        right=limit,
        subject="corrected calcium",
        ask=f["ask"],
        limit=show(limit),
    )


def draw_map(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    sex, age = _person(rng)
    asked, limit = rng.choice(("at least", "below", "above")), rng.choice((60, 65, 65, 70, 80, 90, 100))
    mean = beside(rng, limit, upward(asked, truth), 45, 130)
    low = max(30, mean - rng.randint(5, 20))
    high = 3 * mean - 2 * low + rng.randint(-1, 1)
    facts = {"systolic": high, "diastolic": low, "limit": limit, "ask": asked}
    pressure: list[tuple[str, str]] = rng.choice((
        [("blood pressure", f"{high}/{low} mmHg")],
        [("systolic pressure", f"{high} mmHg"), ("diastolic pressure", f"{low} mmHg")],
    ))  # fmt: skip
    story = opening(rng, sex, age) + listing(rng, pressure + others(rng))
    names = ("the mean arterial pressure", "the MAP", "mean arterial pressure")
    return ask(rng, story, _question(rng, names, asked, f"{limit} mmHg")), facts


def work_map(f: Facts) -> Work:
    double, high, limit = 2 * f["diastolic"], f["systolic"], f["limit"]
    sums = f"2 * {f['diastolic']} = {double}. {double} + {high} = {double + high}."
    return Work(
        rules=("MAP.", "MAP = (systolic + 2 * diastolic) / 3.", "MAP: systolic + 2 * diastolic against 3 * limit."),
        steps=(f"{_given(systolic=high, diastolic=f['diastolic'])} {sums} 3 * {limit} = {3 * limit}.",),
        left=double + high,
        right=3 * limit,
        subject="the MAP",
        ask=f["ask"],
        limit=str(limit),
    )


KINDS = (
    Kind("cockcroft_gault", draw_clearance, work_clearance),
    Kind("bmi", draw_bmi, work_bmi),
    Kind("anion_gap", draw_gap, work_gap),
    Kind("corrected_calcium", draw_calcium, work_calcium),
    Kind("map", draw_map, work_map),
)
