"""General skills: the generated corpus on which the embedded base models are pretrained.

What: short documents that exercise what a larger pretrained model already knows: reading, copying, looking up,
comparing, arithmetic with carries, dates, tables, conditions, formulas, counting, instructions of many forms.
Why: a base model that has these skills learns a domain from a few hundred rationales; one that lacks them does not.
Not covered: the domains themselves. Nothing here is about jurisdiction, medicine or company ratios, and a test checks
that no text of a recipe's pool comes out of this module.

Each skill is a function `(rng) -> (context, question, steps, answer)`; `documents(seed)` mixes them, writes them in
several layouts and never ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Item = tuple[str, str, str, str]
Skill = Callable[[random.Random], Item]

FIRST = """
Anna Ben Clara David Erik Fatima George Hana Ivan Julia Karim Laura Marco Nina Omar Paula Quinn Rosa
Samuel Tara Umar Vera Walter Xenia Yusuf Zoe Peter Maria John Susan Robert Linda Michael Karen
Thomas Nancy Daniel Lisa Mark Betty Paul Sandra Steven Ashley Kevin Donna Brian Carol Emily Ryan
Jacob Gary Helen Frank Ruth Scott Grace Adam Leah Jack Alice Henry Emma Lucas Noah Olivia James Mia
Ava Liam Ella Owen Ivy Aaron Abigail Alan Albert Alexander Alexis Alicia Amber Amina Amir Anders Andrea Angel Anita
Anthony Arjun Arthur Astrid Austin Beatrice Bella Bernard Bianca Bruno Caleb Camila Carl Carmen Catherine Chloe
Christian Christina Christopher Cora Craig Curtis Dalia Dario Denise Dennis Diana Dmitri Dominic Doris Dorothy Douglas
Edgar Eleanor Elise Ellen Emil Enrique Erin Esther Eva Fiona Florence Francis Frederick Gabriel Gemma Gerald Gina Gloria
Gregory Hannah Harold Heather Hector Howard Hussein Ian Ines Irene Isaac Jan Jane Janet Javier Jean Jerome Joan Joel
Jonathan Jordan Jorge Josephine Judith Julian Keith Kenneth Kyle Larry Lena Leonard Leo Leticia Lily Lorenzo Louise
Lucia Luis Luna Lydia Madeline Malik Marie Marina Martha Martin Max Megan Mei Miguel Miriam Mohammed Monica Nathan
Nikolai Nora Oscar Pamela Patrick Penelope Philip Rachel Rafael Ralph Raymond Rebekah Renata Roger Roland Roman Roy
Russell Samir Sana Sara Sean Sergio Shirley Silvia Sonia Stella Stuart Sven Tamara Teresa Theo Tina Tom Valentina
Valerie Veronica Victor Victoria Vincent Viola Violet Virgil Wanda Warren Wayne Wendy Wesley Willa Xavier
Yara Yvonne Zachary Zara
""".split()
PLACES = """
Alabama Alaska Arizona Arkansas California Colorado Connecticut Delaware Florida Georgia Hawaii
Idaho Illinois Indiana Iowa Kansas Kentucky Louisiana Maine Maryland Massachusetts Michigan
Minnesota Mississippi Missouri Montana Nebraska Nevada Ohio Oklahoma Oregon Pennsylvania Tennessee
Texas Utah Vermont Virginia Washington Wisconsin Wyoming France Spain Italy Kenya Peru Japan Norway
Brazil Canada Chile Egypt Ghana India Poland
""".split()
PLACES += [
    "New York",
    "New Jersey",
    "New Mexico",
    "New Hampshire",
    "North Carolina",
    "South Carolina",
    "North Dakota",
    "South Dakota",
    "West Virginia",
    "Rhode Island",
    "Costa Rica",
    "Sri Lanka",
    "South Korea",
    "New Zealand",
]
THINGS = """
apples books chairs coins cups dolls eggs flowers games hats keys lamps maps nails oranges pens
plates ribbons shells shirts stamps stones toys trees watches boxes bottles candles cards bricks
tickets tools
""".split()
COLORS = """
red blue green yellow black white brown purple orange grey pink silver gold
""".split()
JOBS = """
teacher baker driver farmer nurse pilot painter singer lawyer writer cook guard clerk tailor builder
doctor judge manager sailor miner
""".split()
WORDS = """
account action address advice agreement amount answer area article balance bank bill blood board
body book branch bridge business capital case cash cause center chance change charge child claim
class clear client code college common company condition confirm contract copy copyright correct
cost country course court cover credit criteria current customer damage date death debt decision
degree department depends detail diagnosis direct disease distance district dollar dose double
dramatic duty early earnings economy effect employee energy engine entire equity error estimate
evidence example exceed expense fact factor failure family farm fever figure final finance force
foreign form formal fraud free friend function future gain general goods gross growth guide half
head health heart hearing high hour human impact income index infringement injury insurance interest
invoice island issue item judgment jurisdiction jury kidney kind knowledge labor land language large
law legal letter level liability license limit line liquid loan local loss machine margin market
material matter measure medical member method middle minimum minute mistake money month moral motion
mountain nature negative negligence net normal notice number object offer office officer operating
order owner page paper parent park part party patent patient pattern payment people percent period
person phone place plan plant point policy positive power present president pressure price private
problem process product profit program property protein public purchase purpose quality quarter
question rate ratio reason receipt record reduce region relation rent reply report request respond
result return revenue review right risk river rule salary sale sample school science score season
second secret section security sense serious serum service share short sign signal single sodium
source south special stage standard state statement status stock storage story street strong student
subject sudden sum supply support surface surgery system table tax teacher term test theory
threshold total town trade trademark traffic treatment trespass trial trust unit university urgent
value vehicle version victory view village visit voice volume wage water weight whole window woman
work world wrongful year
""".split()
NOISE = """The weather was mild that week. It was a quiet morning. The room had large windows. A bell rang twice.
Nobody was in a hurry. The road was wet after the rain. Lunch was served at noon. The meeting lasted an hour.
Music played in the hall. The form was filed on time. The letter arrived on Monday. The garden was full of birds.
They had met many years before. The office is on the second floor. The train was late again.""".replace("\n", " ")
NOISES = [s.strip() + "." for s in NOISE.split(".") if s.strip()]
MONTHS = """
January February March April May June July August September October November December
""".split()
ONSETS = """
b br c ch cl d dr f fr g gl h j k l m n p pl qu r s sh st t th tr v w z
""".split()
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
CODAS = ["", "", "n", "r", "l", "s", "t", "m", "nd", "rk", "x", "th"]


def word(rng: random.Random) -> str:
    """A pronounceable word that exists nowhere, so that copying has to be learnt rather than remembered."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(CODAS)


def name(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.5:
        return rng.choice(FIRST)
    if roll < 0.75:
        return word(rng).capitalize()
    if roll < 0.9:
        return f"{rng.choice(FIRST)} {word(rng).capitalize()}"
    return f"{word(rng).capitalize()} {rng.choice(('Inc', 'Group', 'Company', 'Ltd', 'Club', 'LLC', 'Corporation'))}"


def names(rng: random.Random, k: int) -> list[str]:
    found: list[str] = []
    while len(found) < k:
        one = name(rng)
        if all(one.split()[0] != other.split()[0] for other in found):
            found.append(one)
    return found


def place(rng: random.Random) -> str:
    return rng.choice(PLACES) if rng.random() < 0.75 else word(rng).capitalize()


def few_places(rng: random.Random, k: int) -> list[str]:
    """k places of which some are likely to be equal."""
    base = [place(rng) for _ in range(max(1, k - rng.randint(0, 2)))]
    return [base[i] if i < len(base) else rng.choice(base) for i in rng.sample(range(k), k)]


def magnitude(rng: random.Random) -> int:
    """A whole number; its number of digits is drawn first, so that short numbers are as frequent as long ones."""
    digits = rng.choice((1, 2, 2, 3, 3, 4, 5))
    value = rng.randint(10 ** (digits - 1), 10**digits - 1)
    if digits >= 3 and rng.random() < 0.4:
        value = value // 10 * 10
    return value


def thousands(rng: random.Random) -> int:
    return rng.choice((rng.randint(1, 99), rng.randint(1, 99), rng.randint(100, 999), rng.randint(1000, 9999))) * 1000


def show(value: int, commas: bool) -> str:
    return f"{value:,}" if commas else str(value)


def decimal(tenths: int, places: int = 1) -> str:
    """`tenths` / 10**places without trailing zeros, in exact integer arithmetic."""
    text = f"{tenths / 10**places:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def with_noise(rng: random.Random, sentences: list[str]) -> str:
    sentences = list(sentences)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(NOISES))
    return " ".join(sentences)


def yes(flag: bool) -> str:
    return "Yes" if flag else "No"


LIVES = (
    "{} lives in {}.",
    "{} is from {}.",
    "{} comes from {}.",
    "{}'s home is {}.",
    "{} was raised in {}.",
    "{}, who is based in {}, was there.",
)


def lookup(rng: random.Random) -> Item:
    people = names(rng, rng.randint(2, 5))
    kind = rng.randrange(4)
    if kind == 0:
        values = few_places(rng, len(people))
        form = rng.choice(LIVES)
        asked, fact = "Where is {} from?", "{} is from {}."
    elif kind == 1:
        values = [rng.choice(JOBS) for _ in people]
        form, asked, fact = "{} works as a {}.", "What is the job of {}?", "{} works as a {}."
    elif kind == 2:
        values = [rng.choice(COLORS) for _ in people]
        form, asked, fact = "{} has a {} car.", "What color is the car of {}?", "The car of {} is {}."
    else:
        values = [f"{magnitude(rng)} {rng.choice(THINGS)}" for _ in people]
        form, asked, fact = "{} has {}.", "What does {} have?", "{} has {}."
    i = rng.randrange(len(people))
    context = with_noise(rng, [form.format(p, v) for p, v in zip(people, values, strict=True)])
    return context, asked.format(people[i]), fact.format(people[i], values[i]), values[i]


def compare_places(rng: random.Random) -> Item:
    people = names(rng, rng.randint(2, 5))
    homes = few_places(rng, len(people))
    form = rng.choice(LIVES)
    context = with_noise(rng, [form.format(p, h) for p, h in zip(people, homes, strict=True)])
    i, j = rng.sample(range(len(people)), 2)
    same = homes[i] == homes[j]
    question = rng.choice(
        ("Are {} and {} from the same place?", "Do {} and {} share a home?", "Is the home of {} also that of {}?")
    )
    relation = "the same place" if same else "different places"
    steps = rng.choice(
        (
            f"{people[i]} is from {homes[i]} and {people[j]} is from {homes[j]}. These are {relation}.",
            f"{people[i]}: {homes[i]}. {people[j]}: {homes[j]}. {homes[i]} and {homes[j]} are {relation}.",
        )
    )
    return context, question.format(people[i], people[j]), steps, yes(same)


def compare_teams(rng: random.Random) -> Item:
    """Does any member of one group share a property with any member of another?"""
    left, right = rng.randint(1, 3), rng.randint(1, 3)
    people = names(rng, left + right)
    homes = few_places(rng, left + right)
    form = rng.choice(LIVES)
    sentences = [form.format(p, h) for p, h in zip(people, homes, strict=True)]
    rng.shuffle(sentences)
    one, two = rng.choice(
        (("The red team", "The blue team"), ("Group A", "Group B"), ("The first table", "The second table"))
    )
    verb = rng.choice(("is", "has", "consists of"))
    sentences += [f"{one} {verb} {join(people[:left])}.", f"{two} {verb} {join(people[left:])}."]
    shared = [h for h in homes[:left] if h in homes[left:]]
    parts = [f"{one}: {join([f'{p} ({h})' for p, h in zip(people[:left], homes[:left], strict=True)])}."]
    parts.append(f"{two}: {join([f'{p} ({h})' for p, h in zip(people[left:], homes[left:], strict=True)])}.")
    parts.append(f"Both have {shared[0]}." if shared else "No place is on both sides.")
    question = rng.choice(
        ("Do the two sides share any place?", "Is someone on one side from the same place as someone on the other?")
    )
    return with_noise(rng, sentences), question, " ".join(parts), yes(bool(shared))


def more_or_less(rng: random.Random) -> Item:
    commas = rng.random() < 0.6
    mark = "$" if rng.random() < 0.4 else ""
    scale = rng.random()
    if scale < 0.35:
        a, b = thousands(rng), thousands(rng)
    elif scale < 0.7:
        a = magnitude(rng)
        b = max(1, a + rng.choice((-1, 1)) * rng.randint(0, max(1, a // 3)))
    else:
        a, b = magnitude(rng), magnitude(rng)
    left, right = mark + show(a, commas), mark + show(b, commas)
    if rng.random() < 0.25 and not mark:
        left, right = decimal(a), decimal(b)
    relation = "more than" if a > b else "less than" if a < b else "equal to"
    ask, truth = rng.choice(
        (("more than", a > b), ("less than", a < b), ("at least", a >= b), ("at most", a <= b), ("greater than", a > b))
    )
    phrase = rng.choice(
        (
            f"{left} is {relation} {right}.",
            f"{left} is {relation} {right}, so it is {'' if truth else 'not '}{ask} {right}.",
        )
    )
    return "", f"Is {left} {ask} {right}?", phrase, yes(truth)


def compare_symbols(rng: random.Random) -> Item:
    a = magnitude(rng)
    b = a if rng.random() < 0.1 else rng.choice((magnitude(rng), max(1, a + rng.randint(-9, 9))))
    left, right = (decimal(a), decimal(b)) if rng.random() < 0.4 else (str(a), str(b))
    sign = ">" if a > b else "<" if a < b else "="
    return "", f"Which sign belongs between {left} and {right}?", f"{left} {sign} {right}.", sign


def _sum_steps(values: list[int], text: Callable[[int], str]) -> str:
    total, parts = values[0], []
    for value in values[1:]:
        parts.append(f"{text(total)} + {text(value)} = {text(total + value)}.")
        total += value
    return " ".join(parts)


def addition(rng: random.Random) -> Item:
    k = rng.choice((2, 2, 2, 3, 3, 4))
    style = rng.random()
    if style < 0.35:
        values = [thousands(rng) for _ in range(k)]
        mark = rng.choice(("", "$"))
        text: Callable[[int], str] = lambda v: f"{mark}{v:,}"  # noqa: E731
    elif style < 0.75:
        values = [magnitude(rng) for _ in range(k)]
        text = str
    else:
        values = [rng.randint(1, 999) for _ in range(k)]
        text = decimal
    total = text(sum(values))
    if rng.random() < 0.5:
        thing = rng.choice(THINGS)
        people = names(rng, k)
        context = with_noise(
            rng, [f"{p} paid {text(v)} for {rng.choice(THINGS)}." for p, v in zip(people, values, strict=True)]
        )
        return context, f"How much was paid in all for the {thing} and the rest?", _sum_steps(values, text), total
    question = rng.choice(("What is {}?", "Compute {}.", "Add up: {}"))
    return "", question.format(" + ".join(text(v) for v in values)), _sum_steps(values, text), total


def subtraction(rng: random.Random) -> Item:
    a, b = sorted((magnitude(rng), magnitude(rng)), reverse=True)
    text: Callable[[int], str] = decimal if rng.random() < 0.35 else str
    steps = f"{text(a)} - {text(b)} = {text(a - b)}."
    if rng.random() < 0.3:
        c = rng.randint(0, a - b)
        steps += f" {text(a - b)} - {text(c)} = {text(a - b - c)}."
        return "", f"What is {text(a)} - {text(b)} - {text(c)}?", steps, text(a - b - c)
    return (
        "",
        rng.choice(("What is {} - {}?", "Take away: {} - {}", "Compute {} - {}.")).format(text(a), text(b)),
        steps,
        text(a - b),
    )


def _product(a: int, b: int) -> str:
    """Partial products, largest digit of `b` first: 47 * 36 = 47 * 30 + 47 * 6 = 1410 + 282 = 1692."""
    digits = [int(d) * 10**p for p, d in zip(range(len(str(b)) - 1, -1, -1), str(b), strict=True) if d != "0"]
    if len(digits) <= 1:
        return f"{a} * {b} = {a * b}."
    split = " + ".join(f"{a} * {d}" for d in digits)
    values = [a * d for d in digits]
    text = f"{a} * {b} = {split} = {' + '.join(map(str, values))}"
    while len(values) > 1:
        values = [values[0] + values[1], *values[2:]]
        text += f" = {' + '.join(map(str, values))}"
    return text + "."


def multiplication(rng: random.Random) -> Item:
    roll = rng.random()
    if roll < 0.3:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
    elif roll < 0.65:
        a, b = rng.randint(10, 999), rng.randint(2, 9) * rng.choice((1, 1, 10, 100))
    elif roll < 0.9:
        a, b = rng.randint(10, 299), rng.randint(11, 99)
    else:
        a, b = magnitude(rng), rng.choice((10, 100, 1000))
    return (
        "",
        rng.choice(("What is {} * {}?", "Multiply {} by {}.", "Compute {} times {}.")).format(a, b),
        _product(a, b),
        str(a * b),
    )


def decimal_product(rng: random.Random) -> Item:
    a, b = rng.randint(2, 99), rng.randint(2, 30)
    result = decimal(a * b)
    steps = f"{a} * {b} = {a * b}, so {decimal(a)} * {b} = {result}."
    return "", f"What is {decimal(a)} * {b}?", steps, result


def division(rng: random.Random) -> Item:
    b, q = rng.randint(2, 12), rng.randint(2, 60)
    if rng.random() < 0.6:
        return "", f"What is {b * q} / {b}?", f"{b} * {q} = {b * q}, so {b * q} / {b} = {q}.", str(q)
    r = rng.randint(1, b - 1)
    steps = f"{b} * {q} = {b * q} and {b * q + r} - {b * q} = {r}."
    return "", f"Divide {b * q + r} by {b}: how many times, and what is left?", steps, f"{q} rest {r}"


def percent(rng: random.Random) -> Item:
    p, base = rng.choice((1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 75)), rng.randint(1, 99) * rng.choice((1, 10, 100))
    value = p * base
    steps = f"{p} * {base} = {value}, and {value} / 100 = {decimal(value, 2)}."
    return "", f"What is {p}% of {base}?", steps, decimal(value, 2)


def counting(rng: random.Random) -> Item:
    target = rng.choice(COLORS)
    listed = [rng.choice((target, rng.choice(COLORS))) for _ in range(rng.randint(3, 9))]
    hits = [c for c in listed if c == target]
    steps = f"{', '.join(f'{c} {i + 1}' for i, c in enumerate(hits))}." if hits else f"There is no {target}."
    return f"The list: {', '.join(listed)}.", f"How many times does {target} occur?", steps, str(len(hits))


def points(rng: random.Random) -> Item:
    """A game's score: each feature that is present adds its points, then the total is compared with a limit."""
    features = rng.sample(rng.choice((THINGS, WORDS)), rng.randint(3, 7))
    worth = [rng.choice((1, 1, 1, 2, 2, 3, 5)) for _ in features]
    has = [rng.random() < 0.5 for _ in features]
    who = name(rng)
    rules = "Points: " + ", ".join(f"{f} {w}" for f, w in zip(features, worth, strict=True)) + "."
    held = [f for f, h in zip(features, has, strict=True) if h]
    missing = [f for f, h in zip(features, has, strict=True) if not h]
    rng.shuffle(held)
    story = [f"{who} has {join(held)}." if held else f"{who} has nothing."]
    if missing and rng.random() < 0.5:
        story.append(f"{who} has no {rng.choice(missing)}.")
    total, parts = 0, []
    for feature, value, present in zip(features, worth, has, strict=True):
        if present:
            parts.append(f"{feature} +{value} = {total + value}")
            total += value
    body = ", ".join(parts) + "." if parts else "No points."
    steps = f"{body} Total {total}."
    if rng.random() < 0.5:
        limit = max(0, total + rng.randint(-2, 2))
        steps += f" {total} is {'at least' if total >= limit else 'less than'} {limit}."
        return (
            f"{rules} {with_noise(rng, story)}",
            f"Does {who} have at least {limit} points?",
            steps,
            yes(total >= limit),
        )
    return f"{rules} {with_noise(rng, story)}", f"How many points does {who} have?", steps, str(total)


def conditions(rng: random.Random) -> Item:
    who, limit, low = name(rng), rng.randint(5, 80), rng.randint(20, 200)
    age, height = max(1, limit + rng.randint(-10, 10)), max(1, low + rng.randint(-30, 30))
    first, second = age >= limit, height > low
    both = rng.random() < 0.6
    rule = f"Rule: entry needs age at least {limit} {'and' if both else 'or'} height above {low}."
    steps = (
        f"Age {age} is {'at least' if first else 'less than'} {limit}: {'met' if first else 'not met'}. "
        f"Height {height} is {'above' if second else 'not above'} {low}: {'met' if second else 'not met'}. "
    )
    truth = (first and second) if both else (first or second)
    steps += f"{'Both are' if both else 'One is'} needed, so entry is {'allowed' if truth else 'refused'}."
    return (
        f"{rule} {with_noise(rng, [f'{who} is {age} years old.', f'{who} is {height} tall.'])}",
        f"May {who} enter?",
        steps,
        yes(truth),
    )


def formula(rng: random.Random) -> Item:
    """Substitute into a stated formula, compute, and sometimes compare with a limit."""
    a, b, c = rng.sample(
        ["a", "b", "c", "d", "e", "f", "g", "h", "k", "m", "n", "p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z"],
        3,
    )
    label = word(rng)
    va, vb, vc = rng.randint(1, 150), rng.randint(1, 60), rng.randint(2, 9)
    kind = rng.randrange(4)
    if kind == 0:
        text, total = f"{a} + {c} * {b}", va + vc * vb
        work = f"{vc} * {vb} = {vc * vb}. {va} + {vc * vb} = {total}."
    elif kind == 1:
        va += vb + 20
        text, total = f"{a} - {b} - {c}", va - vb - vc
        work = f"{va} - {vb} = {va - vb}. {va - vb} - {vc} = {total}."
    elif kind == 2:
        text, total = f"{a} * {b}", va * vb
        work = _product(va, vb)
    else:
        top = vb + vc
        text, total = f"({b} - {c}) * {a}", (top - vc) * va
        work = f"{top} - {vc} = {vb}. {_product(vb, va)}"
        vb = top
    given = [f"{a} = {va}", f"{b} = {vb}", f"{c} = {vc}"]
    if c not in text:
        given = given[:2]
    rng.shuffle(given)
    context = f"{label} = {text}. Given: {', '.join(given)}."
    if rng.random() < 0.5:
        limit = max(1, total + rng.choice((-1, 1)) * rng.randint(0, max(2, total // 2)))
        relation = "more than" if total > limit else "less than" if total < limit else "equal to"
        return context, f"Is {label} above {limit}?", f"{work} {total} is {relation} {limit}.", yes(total > limit)
    return context, f"What is {label}?", work, str(total)


def table(rng: random.Random) -> Item:
    rows = rng.sample(rng.choice((THINGS, WORDS)), rng.randint(2, 5))
    first = rng.randint(1980, 2030)
    columns = [str(first + i) for i in range(rng.randint(2, 3))]
    cells = {r: [rng.choice((rng.randint(1, 99), rng.randint(100, 999))) for _ in columns] for r in rows}
    lines = ["item | " + " | ".join(columns)] + [f"{r} | " + " | ".join(map(str, cells[r])) for r in rows]
    row = rng.choice(rows)
    i, j = rng.sample(range(len(columns)), 2)
    a, b = cells[row][i], cells[row][j]
    context = "\n".join(lines)
    kind = rng.randrange(4)
    if kind == 0:
        return context, f"What is the value of {row} in {columns[i]}?", f"{row} in {columns[i]}: {a}.", str(a)
    if kind == 1:
        relation = "more than" if a > b else "less than" if a < b else "equal to"
        steps = f"{row} in {columns[i]}: {a}. {row} in {columns[j]}: {b}. {a} is {relation} {b}."
        return context, f"Was {row} higher in {columns[i]} than in {columns[j]}?", steps, yes(a > b)
    if kind == 2:
        high, low = max(a, b), min(a, b)
        steps = f"{row}: {a} in {columns[i]}, {b} in {columns[j]}. {high} - {low} = {high - low}."
        return context, f"By how much does {row} differ between {columns[i]} and {columns[j]}?", steps, str(high - low)
    other = rng.choice([r for r in rows if r != row])
    c = cells[other][i]
    steps = f"{row} in {columns[i]}: {a}. {other} in {columns[i]}: {c}. {a} + {c} = {a + c}."
    return context, f"What do {row} and {other} add up to in {columns[i]}?", steps, str(a + c)


def cross_compare(rng: random.Random) -> Item:
    """Compare two products without dividing."""
    a, b, c, d = (
        rng.randint(2, 400),
        rng.choice((2, 3, 4, 5, 10, 20, 30, 100)),
        rng.randint(2, 400),
        rng.choice((2, 3, 5, 10, 11, 12, 15, 40)),
    )
    left, right = a * b, c * d
    relation = "more than" if left > right else "less than" if left < right else "equal to"
    steps = f"{_product(a, b)} {_product(c, d)} {left} is {relation} {right}."
    return "", f"Is {a} * {b} more than {c} * {d}?", steps, yes(left > right)


def dates(rng: random.Random) -> Item:
    kind = rng.randrange(3)
    if kind == 0:
        year, age = rng.randint(1900, 2000), rng.randint(1, 99)
        who = name(rng)
        steps = f"{year} + {age} = {year + age}."
        return f"{who} was born in {year}.", f"In which year does {who} turn {age}?", steps, str(year + age)
    if kind == 1:
        day, step, month = rng.randint(1, 14), rng.randint(1, 14), rng.choice(MONTHS)
        return (
            "",
            f"Which date is {step} days after {month} {day}?",
            f"{day} + {step} = {day + step}.",
            f"{month} {day + step}",
        )
    i, j = rng.sample(range(12), 2)
    relation = "less" if i < j else "more"
    steps = f"{MONTHS[i]} is month {i + 1}. {MONTHS[j]} is month {j + 1}. {i + 1} is {relation} than {j + 1}."
    return "", f"Does {MONTHS[i]} come before {MONTHS[j]}?", steps, yes(i < j)


def units(rng: random.Random) -> Item:
    small, big, factor = rng.choice(
        (
            ("cm", "m", 100),
            ("g", "kg", 1000),
            ("minutes", "hours", 60),
            ("mm", "cm", 10),
            ("days", "weeks", 7),
            ("months", "years", 12),
        )
    )
    value = rng.randint(2, 40)
    if rng.random() < 0.5 or factor not in (10, 100):
        return (
            "",
            f"How many {small} are {value} {big}?",
            f"1 {big} is {factor} {small}. {_product(value, factor)}",
            f"{value * factor} {small}",
        )
    value = rng.randint(1, 300)
    result = decimal(value, 2 if factor == 100 else 1)
    return (
        "",
        f"How many {big} are {value} {small}?",
        f"1 {big} is {factor} {small}. {value} / {factor} = {result}.",
        f"{result} {big}",
    )


def words_task(rng: random.Random) -> Item:
    made_up = rng.random() < 0.35
    listed = [word(rng) for _ in range(rng.randint(2, 6))] if made_up else rng.sample(WORDS, rng.randint(2, 7))
    text = ", ".join(listed)
    kind = rng.randrange(6)
    if kind == 0:
        return "", f"Repeat: {text}", "", text
    if kind == 1:
        return "", f"Write in reverse order: {text}", "", ", ".join(reversed(listed))
    if kind == 2:
        return "", f"Write in alphabetical order: {text}", "", ", ".join(sorted(listed))
    if kind == 3:
        i = rng.randrange(len(listed))
        ordinal = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")[i]
        return "", f"Which word is the {ordinal} of these? {text}", f"The {ordinal} word is {listed[i]}.", listed[i]
    if kind == 4:
        probe = rng.choice((rng.choice(listed), word(rng) if made_up else rng.choice(WORDS)))
        return (
            "",
            f"Is {probe} among these? {text}",
            f"{probe} is {'' if probe in listed else 'not '}in the list.",
            yes(probe in listed),
        )
    return (
        "",
        f"How many words are there? {text}",
        f"{', '.join(f'{w} {i + 1}' for i, w in enumerate(listed))}.",
        str(len(listed)),
    )


def roles(rng: random.Random) -> Item:
    """Who does what to whom, in several phrasings, with several people on either side."""
    left, right = rng.randint(1, 3), rng.randint(1, 3)
    people = names(rng, left + right)
    verb, agent, patient = rng.choice(
        (
            ("calls", "caller", "called"),
            ("teaches", "teacher", "pupil"),
            ("pays", "payer", "paid"),
            ("invites", "host", "guest"),
            ("visits", "visitor", "visited"),
        )
    )
    givers, takers = people[:left], people[left:]
    amount = f"${thousands(rng):,}"
    topic = " ".join(rng.sample(WORDS, rng.randint(1, 2)))
    other = "them" if right > 1 else "the other"
    text = rng.choice(
        (
            f"{join(givers)} {verb} {join(takers)} about {topic} for {amount}.",
            f"{join(takers)} met {join(givers)}, who {verb} {other} over {topic} and {amount}.",
            f"For {amount}, {join(givers)} {verb} {join(takers)} in {place(rng)}.",
        )
    )
    kind = rng.randrange(3)
    steps = f"{agent.capitalize()}: {join(givers)}. {patient.capitalize()}: {join(takers)}. Amount: {amount}."
    answer = (join(givers), join(takers), amount)[kind]
    asked = (f"Who is on the side of the {agent}?", f"Who is on the side of the {patient}?", "What is the amount?")[
        kind
    ]
    return with_noise(rng, [text]), asked, steps, answer


def budget(rng: random.Random) -> Item:
    """Add up amounts scattered in a text, then compare the total with a limit."""
    who, k = name(rng), rng.randint(1, 3)
    values = [thousands(rng) if rng.random() < 0.8 else rng.randint(1, 99) * 1000 for _ in range(k)]
    total = sum(values)
    limit = rng.choice((rng.randint(1, 30) * 10_000, max(1000, total + rng.randint(-9, 9) * 1000), 50_000, 100_000))
    bought = rng.sample(THINGS, k) if rng.random() < 0.4 else [f"{rng.choice(WORDS)} {w}" for w in rng.sample(WORDS, k)]
    text = f"{who} spends {join([f'${v:,} on {t}' for v, t in zip(values, bought, strict=True)])}."
    work = _sum_steps(values, lambda v: f"${v:,}")
    relation = "more than" if total > limit else "less than" if total < limit else "equal to"
    steps = f"{work} ${total:,} is {relation} ${limit:,}.".strip()
    return with_noise(rng, [text]), f"Does {who} spend more than ${limit:,}?", steps, yes(total > limit)


MEETINGS = (
    ("visits", "visit", "visited by", "Visitor", "Host"),
    ("calls", "call", "called by", "Caller", "Called"),
    ("teaches", "teach", "taught by", "Teacher", "Pupil"),
    ("invites", "invite", "invited by", "Host", "Guest"),
    ("pays", "pay", "paid by", "Payer", "Paid"),
    ("beats", "beat", "beaten by", "Winner", "Loser"),
    ("helps", "help", "helped by", "Helper", "Helped"),
    ("hires", "hire", "hired by", "Employer", "Worker"),
)


TWO_HOMES = (
    "{} has a house in {} and an office in {}.",
    "{} was founded in {} and has its main shop in {}.",
    "{}, an old club, is registered in {} with its hall in {}.",
    "{} works in {} and sleeps in {}.",
)


def sides(rng: random.Random) -> Item:
    """Who stands on which side of a meeting, and where each one is from."""
    left, right = rng.choice((1, 1, 2, 2, 3)), rng.choice((1, 1, 1, 2, 3))
    people = names(rng, left + right)
    homes = [[h] for h in few_places(rng, left + right)]
    for home in homes if rng.random() < 0.3 else ():
        if rng.random() < 0.5:
            home.append(place(rng))
    form, two_homes = rng.choice(LIVES), rng.choice(TWO_HOMES)
    sentences = [(form if len(h) == 1 else two_homes).format(p, *h) for p, h in zip(people, homes, strict=True)]
    order = list(range(left + right))
    if rng.random() < 0.3:
        rng.shuffle(order)
    sentences = [sentences[i] for i in order]
    one, many, passive, agent, patient = rng.choice(MEETINGS)
    givers, takers = people[:left], people[left:]
    both = {1: "", 2: rng.choice(("", " both")), 3: rng.choice(("", " all"))}[left]
    each = rng.choice(("", " each")) if right > 1 else ""
    topic = " ".join(rng.sample(WORDS, rng.randint(1, 2)))
    story = rng.choice((
        f"{join(givers)}{both} {one if left == 1 else many} {join(takers)}{each} for {topic}.",
        f"{join(givers)}{both} {one if left == 1 else many} {join(takers)}{each} for {topic} and {rng.choice(WORDS)}.",
        f"{join(takers)} {'is' if right == 1 else 'are'} {passive} {join(givers)} for {topic}.",
    ))  # fmt: skip
    sentences.insert(rng.choice((0, len(sentences), len(sentences), len(sentences))), story)
    told = [f"{p} ({' and '.join(h)})" for p, h in zip(people, homes, strict=True)]
    one_side, other_side = join(told[:left]), join(told[left:])
    steps = rng.choice((
        f"{agent}: {one_side}. {patient}: {other_side}.",
        f"{one_side} against {other_side}.",
        f"On one side {one_side}, on the other {other_side}.",
    ))  # fmt: skip
    kind = rng.randrange(3)
    asked = ("Who is on which side, and where from?", f"Who is the {patient.lower()}?", f"Who is the {agent.lower()}?")[
        kind
    ]
    answer = (f"{left} against {right}", join(takers), join(givers))[kind]
    return with_noise(rng, sentences), asked, steps, answer


VERDICTS = (
    ("match", "differ"),
    ("are the same", "are different"),
    ("agree", "disagree"),
    ("are equal", "are not equal"),
)


def pairs(rng: random.Random) -> Item:
    """Hold each entry of one side against each entry of the other, one small judgement a step."""
    left, right = rng.choice((1, 1, 2, 2, 3)), rng.choice((1, 1, 2, 2, 3))
    source = rng.random()
    if source < 0.75:
        entries = few_places(rng, left + right)
    elif source < 0.9:
        entries = [rng.choice(COLORS) for _ in range(left + right)]
    else:
        entries = [word(rng) for _ in range(max(1, left + right - rng.randint(0, 2)))]
        entries = [rng.choice(entries) for _ in range(left + right)]
    same, different = rng.choice(VERDICTS)
    first, second = entries[:left], entries[left:]
    told, told_too = first, second
    opening = ""
    if rng.random() < 0.6:
        people = names(rng, left + right)
        told = [f"{p} ({e})" for p, e in zip(people[:left], first, strict=True)]
        told_too = [f"{p} ({e})" for p, e in zip(people[left:], second, strict=True)]
        if rng.random() < 0.3:
            opening = f"{join(told)} against {join(told_too)}. "
    stop = rng.random() < 0.5
    steps: list[str] = []
    hits = 0
    for other in dict.fromkeys(second):
        for one in dict.fromkeys(first):
            if not (stop and hits):
                steps.append(f"{one} and {other} {same if one == other else different}.")
                hits += one == other
    context = rng.choice(("One side: {}. Other side: {}.", "{} meet {}.", "A is {}. B is {}.")).format(
        join(told), join(told_too)
    )
    question = f"Which entries {same}, which {different}?"
    if opening:
        question += " Name the sides first."
    if stop:
        return context, f"{question} Stop when two {same}.", opening + " ".join(steps), yes(bool(hits))
    return context, f"{question} How many pairs {same}?", opening + " ".join(steps), str(hits)


def accounts(rng: random.Random) -> Item:
    """Add up what each of several receives, each account on its own, and hold every total against one limit."""
    who, *others = names(rng, rng.randint(2, 3) + 1)
    limit = rng.choice((rng.randint(1, 30) * 10_000, 50_000, 100_000, rng.randint(10, 99) * 1000))
    story, steps, over = [], [], 0
    verb = rng.choice(("owes", "sends", "lends", "sells"))
    for other in others:
        values = [thousands(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        parts = [f"${v:,} for {' '.join(rng.sample(WORDS, rng.choice((1, 2))))}" for v in values]
        story.append(f"{who} {verb} {other} {join(parts)}.")
        total = sum(values)
        relation = "more than" if total > limit else "less than" if total < limit else "equal to"
        work = _sum_steps(values, lambda v: f"${v:,}")
        steps.append(f"{work} ${total:,} is {relation} ${limit:,}.".strip())
        over += total > limit
    asked = f"How many of them get more than ${limit:,}?"
    return with_noise(rng, story), asked, " ".join(steps), str(over)


def overlap(rng: random.Random) -> Item:
    """Which entry do two short lists share?"""
    pool = few_places(rng, 7) if rng.random() < 0.7 else rng.sample(WORDS, 7)
    pool = list(dict.fromkeys(pool))
    left = rng.sample(pool, min(len(pool), rng.randint(1, 3)))
    right = rng.sample(pool, min(len(pool), rng.randint(1, 3)))
    common = [w for w in right if w in left]
    steps = f"{common[0]} is in both." if common else "Nothing is in both."
    return f"A: {join(left)}. B: {join(right)}.", "Do A and B share an entry?", steps, yes(bool(common))


def figures(rng: random.Random) -> Item:
    """Read two numbers out of lines of figures, in several layouts, and work with them."""
    rows = rng.sample(rng.choice((THINGS, WORDS)), rng.randint(2, 5))
    first = rng.randint(1980, 2030)
    years = [first + i for i in range(rng.randint(2, 3))]
    cells = {r: [rng.choice((rng.randint(1, 99), rng.randint(100, 999))) for _ in years] for r in rows}
    layout = rng.randrange(3)
    if layout == 0:
        lines = [f"{y}: " + ", ".join(f"{r} {cells[r][i]}" for r in rows) for i, y in enumerate(years)]
        context = f"Figures of {name(rng)}.\n" + "\n".join(lines)
    elif layout == 1:
        parts = [f"{r}: " + ", ".join(f"{cells[r][i]} in {y}" for i, y in enumerate(years)) + "." for r in rows]
        context = f"{name(rng)}. " + " ".join(parts)
    else:
        head = "item | " + " | ".join(map(str, years))
        context = f"{name(rng)}\n" + "\n".join([head] + [f"{r} | " + " | ".join(map(str, cells[r])) for r in rows])
    row, other = rng.sample(rows, 2)
    i = rng.randrange(len(years))
    a, b, year = cells[row][i], cells[other][i], years[i]
    read = f"{row} in {year}: {a}. {other} in {year}: {b}."
    kind = rng.randrange(4)
    if kind == 0:
        j = rng.choice([k for k in range(len(years)) if k != i])
        high, low = max(a, cells[row][j]), min(a, cells[row][j])
        steps = f"{year}: {a}. {years[j]}: {cells[row][j]}. {high} - {low} = {high - low}."
        return context, f"How much did {row} change between {year} and {years[j]}?", steps, str(high - low)
    if kind == 1:
        high, low = max(a, b), min(a, b)
        return (
            context,
            f"How far apart are {row} and {other} in {year}?",
            f"{read} {high} - {low} = {high - low}.",
            str(high - low),
        )
    factor, times = rng.choice((2, 3, 4, 5, 6, 8, 10, 20)), rng.choice((1, 2, 3, 5, 10))
    left, right = a * times, b * factor
    relation = "more than" if left > right else "less than" if left < right else "equal to"
    work = f"{_product(b, factor)}" if times == 1 else f"{_product(a, times)} {_product(b, factor)}"
    question = f"Is {times} * {row} more than {factor} * {other} in {year}?"
    return context, question, f"{read} {work} {left} is {relation} {right}.", yes(left > right)


SKILLS: dict[str, tuple[Skill, float]] = {
    "sides": (sides, 5.0),
    "pairs": (pairs, 4.0),
    "accounts": (accounts, 1.2),
    "overlap": (overlap, 1.5),
    "figures": (figures, 3.0),
    "lookup": (lookup, 0.6),
    "compare_places": (compare_places, 1.2),
    "compare_teams": (compare_teams, 2.0),
    "more_or_less": (more_or_less, 1.2),
    "compare_symbols": (compare_symbols, 0.4),
    "addition": (addition, 2.0),
    "subtraction": (subtraction, 1.6),
    "multiplication": (multiplication, 1.6),
    "decimal_product": (decimal_product, 0.8),
    "division": (division, 0.3),
    "percent": (percent, 0.3),
    "counting": (counting, 0.3),
    "points": (points, 1.3),
    "conditions": (conditions, 0.8),
    "formula": (formula, 1.5),
    "table": (table, 2.0),
    "cross_compare": (cross_compare, 0.6),
    "dates": (dates, 0.3),
    "units": (units, 0.4),
    "words_task": (words_task, 0.8),
    "roles": (roles, 0.6),
    "budget": (budget, 1.6),
}


@dataclass(frozen=True)
class Document:
    """A prompt, the worked steps (may be empty) and the answer; `chat` says whether the chat template frames it."""

    skill: str
    prompt: str
    steps: str
    answer: str
    chat: bool


def draw(rng: random.Random) -> tuple[str, Item]:
    """One skill by weight, and one item of it."""
    chosen = rng.choices(list(SKILLS), weights=[w for _, w in SKILLS.values()])[0]
    return chosen, SKILLS[chosen][0](rng)


def documents(seed: int, chat_share: float = 0.5, direct_share: float = 0.1) -> Iterator[Document]:
    """An endless stream of documents, the same for the same seed.

    `chat_share` of them are framed by the chat template, the rest are plain text; `direct_share` are answered
    without steps.
    """
    rng = random.Random(seed)
    while True:
        skill, (context, question, steps, answer) = draw(rng)
        layout = rng.randrange(4)
        if not context:
            prompt = question
        elif layout == 0:
            prompt = f"{question}\n{context}"
        elif layout == 1:
            prompt = f"{context}\n{question}"
        else:
            prompt = f"{context} {question}" if "\n" not in context else f"{context}\n{question}"
        if rng.random() < direct_share:
            steps = ""
        yield Document(skill, prompt, steps, answer, rng.random() < chat_share)
