"""Statements read out of rationales: true ones pass, false ones are named, letters are left alone."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from bridge_edge.data.arithmetic import claims, first_error, numbers
from bridge_edge.embedded.skills import SKILLS

TRUE = [
    "47 * 36 = 47 * 30 + 47 * 6 = 1410 + 282 = 1692.",
    "14 - 3 = 11. 11 is more than 10.",
    "$12,000 + $8,500 = $20,500. $20,500 is more than $20,000.",
    "(140 - 68) * 58 = 4176.",
    "Clearance = (140 - age) * weight / (72 * creatinine).",
    "Clearance = (140 - 68) * 58 / 72 = 58.",
    "140 - age = 75, 140 - age 65 = 75.",
    "stones +2 = 2, hats +1 = 3. Total 3. 3 is at least 3.",
    "urea +1 = 1, other cause -2 = -1. Total -1.",
    "A +1 = 1. B +2 = 3. Total score is 3.",
    "78 years +2 = 2, age 75 +1 = 3.",
    "85 * 60 = 5100, and 5100 / 100 = 51.",
    "10 / 3 = 3.33.",
    "120 is less than 130, so it is not more than 130.",
    "8 * 4 = 32, which is more than 30.",
    "12 / 80 * 100 = 15%. 15% is above 12%. 10% of 200 = 20.",
    "2 kg + 3 kg = 5 kg. 5 kg is below 6 kg.",
    "45 mL/min is less than 60 mL/min.",
    "3 times 4 = 12, 12 divided by 4 = 3, 2 x 5 = 10.",
    "-5 + 3 = -2. So -5 + 3 = -2.",
    "(3 + 4 = 7)",
    "1.7^2 = 2.89. 7 >= 7, 3 < 4, 6 ≤ 6.",
    "2+3=5. 12 +3 = 15.",
    "The score CURB-65 = 3 and the pressure is 85/50.",
    "5 is not less than 5. 5 is equal to 5. 5 is less than or equal to 5.",
    "There is nothing to compute here.",
]
FALSE = [
    ("14 - 3 = 12.", "14 - 3 = 12"),
    ("47 * 36 = 47 * 30 + 47 * 6 = 1410 + 272 = 1692.", "1410 + 272"),
    ("Total cost = 3 + 4 = 8.", "3 + 4 = 8"),
    ("5 + 5 = 10. 10 is more than 10.", "10 is more than 10"),
    ("$1,200 is less than $1,100.", "$1,200"),
    ("stones +2 = 2, hats +1 = 4.", "hats +1 = 4"),
    ("stones +2 = 2, hats +1 = 3. Total 4.", "Total 4"),
    ("9 is at least 10.", "9 is at least 10"),
    ("12 is less than 13, so it is more than 13.", "it is more than 13"),
    ("10 / 3 = 3.4.", "10 / 3 = 3.4"),
    ("0.14 + 0.02 = 0.2.", "0.14 + 0.02"),
    ("4 / 0 = 4.", "division by zero"),
    ("3 + * 4 = 7.", "cannot read"),
    ("2 kg + 3 kg = 6 kg.", "6"),
    ("10% of 200 = 30.", "200 = 30"),
    ("12 divided by 3 = 5.", "12 divided by 3 = 5"),
    ("(3 + 4 = 8)", "3 + 4 = 8"),
    ("7 is equal to 8.", "7 is equal to 8"),
    ("6 is not above 5.", "6 is not above 5"),
]


@pytest.mark.parametrize("text", TRUE)
def test_true_statements_pass(text: str) -> None:
    assert first_error(text) == ""


@pytest.mark.parametrize(("text", "part"), FALSE)
def test_false_statements_are_named(text: str, part: str) -> None:
    assert part in first_error(text)


def test_a_chain_gives_one_claim_a_link_with_the_numbers_it_starts_from() -> None:
    chain = claims("Gap = 140 - 102 = 38, and 38 is more than 12.")
    assert [(c.left, c.relation, c.right) for c in chain] == [(38, "=", 38), (38, ">", 12)]
    assert chain[0].operands == (140, 102)


def test_numbers_are_read_with_separators_signs_and_decimals() -> None:
    assert numbers("$1,200 at 15% for 2.5 days") == {Fraction(1200), Fraction(15, 100), Fraction(5, 2)}


@pytest.mark.parametrize(
    "text",
    [
        "9" * 5000 + " + 1 = 2",
        "(" * 3000 + "1" + ")" * 3000 + " = 1",
        "9^9^9 = 1",
        "9^99999999 = 1",
        "= = =",
        "+ = +",
        "2 * " * 20000 + "1 = 1",
    ],
)
def test_hostile_text_ends_in_an_answer_and_not_in_an_exception(text: str) -> None:
    assert isinstance(first_error(text), str)


def test_the_steps_of_the_general_skills_are_all_true_and_break_when_a_result_is_changed() -> None:
    rng, caught, tried = random.Random(3), 0, 0
    for name in ("addition", "subtraction", "multiplication", "percent", "points", "cross_compare", "more_or_less"):
        for _ in range(60):
            steps = SKILLS[name][0](rng)[2]
            assert first_error(steps) == "", steps
            if " = " in steps:
                head, _, result = steps.partition(" = ")
                tried += 1
                caught += first_error(f"{head} = 1{result}") != ""
    assert caught == tried > 200
