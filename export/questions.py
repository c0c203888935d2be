"""General prompts for the checks of a checkpoint that brings no items of its own: two hundred, the same in every run.

An export is compared with its original on prompts; a folder from the hub has none. These touch numbers, code, lists,
several languages and layouts, so that a token that is rare in one is met in another. Nothing is scored by them: they
ask whether two runtimes say the same. Not covered: the checkpoint's own task; `--calibration FILE` brings its prompts.
"""

from __future__ import annotations

from itertools import islice, product

FORMS = (
    "Answer yes or no: is {a} greater than {b}?",
    "A tenant pays {a} dollars a month. How much is it in {b} months?",
    "List {b} things to check before signing a contract about {thing}.",
    "Explain in one sentence what {thing} is.",
    "Translate into French: I bought {b} kilograms of {thing} for {a} euros.",
    "Write a Python function that returns the first {b} multiples of {a}.",
    "Convert {a} kilometres into miles.",
    "What comes next: {b}, {a}, {b}, {a}?",
    "Summarise: {thing} was delivered {b} days late, and the buyer asks for {a} dollars back.",
    "Was kostet {thing}, wenn {b} Stück {a} Euro kosten?",
    "¿Cuántos días hay en {b} semanas y {a} días?",
    "Give the date {b} days after 2026-01-{b:02d}.",
    "Which is cheaper: {thing} at {a} dollars, or two for {b} dollars each?",
    "| item | price |\n|---|---|\n| {thing} | {a} |\n| tax | {b} |\n\nWhat is the total?",
    '{{"item": "{thing}", "count": {b}, "price": {a}}}\nWhich key holds a text?',
    "Correct the spelling: the {thing} are recieved at teh adress on {b}/{a}.",
    "Rewrite politely: send me {thing} now, I paid {a}!",
    "Is the word “{thing}” singular or plural?",
    "请用一句话说明 {thing} 的用途\uff0c并写出数字 {a}。",
    "A patient takes {b} tablets of {a} mg. How many mg is that?",
)
FILLINGS = (
    (17, 12, "bread"),
    (950, 3, "insurance"),
    (41, 7, "a used bicycle"),
    (1200, 24, "copper wire"),
    (8, 5, "apples"),
    (365, 11, "a lease"),
    (64, 2, "window glass"),
    (73, 9, "olive oil"),
    (505, 6, "batteries"),
    (99, 4, "a second-hand laptop"),
)


def general(count: int) -> list[str]:
    """The first `count` of the prompts, every form before a second filling of any."""
    made = (form.format(a=a, b=b, thing=thing) for (a, b, thing), form in product(FILLINGS, FORMS))
    return list(islice(made, count))
