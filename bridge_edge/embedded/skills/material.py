"""What the skills are made of: words, names, places, numbers, and the ways to write a sum or a list."""

from __future__ import annotations

import random
from collections.abc import Callable

from bridge_edge.data.places import STATES

Item = tuple[str, str, str, str]

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

PLACES = [
    *(state for state in STATES if " " not in state),
    *"France Spain Italy Kenya Peru Japan Norway Brazil Canada Chile Egypt Ghana India Poland".split(),
    *(state for state in STATES if " " in state),
    *("Costa Rica", "Sri Lanka", "South Korea", "New Zealand"),
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
LIVES = (
    "{} lives in {}.",
    "{} is from {}.",
    "{} comes from {}.",
    "{}'s home is {}.",
    "{} was raised in {}.",
    "{}, who is based in {}, was there.",
)


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


def sum_steps(values: list[int], text: Callable[[int], str]) -> str:
    total, parts = values[0], []
    for value in values[1:]:
        parts.append(f"{text(total)} + {text(value)} = {text(total + value)}.")
        total += value
    return " ".join(parts)


def product(a: int, b: int) -> str:
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
