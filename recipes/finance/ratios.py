"""Company ratios as threshold questions over a small statement, compared by cross-multiplying.

The definitions are those of any textbook of financial statement analysis (e.g. Penman, Financial Statement Analysis
and Security Valuation): growth = new / old - 1; gross margin = (revenue - cost of sales) / revenue; operating
margin = EBIT / revenue; two-year compound growth = (end / start)^(1/2) - 1; interest cover = EBIT / interest; days
outstanding = receivables * 360 / revenue (or payables and inventory over cost of sales); current ratio = current
assets / current liabilities; debt to equity = (short-term + long-term debt) / equity.
Not covered: averages of opening and closing balances, 365-day years, tax, negative figures, and compound growth
from a start that is not round.
"""

from __future__ import annotations

import random
from fractions import Fraction

from bridge_edge.recipes._steps import ASKED, Facts, Kind, Work, beside, product, show, upward
from bridge_edge.recipes.finance.statement import fill, look_up, pose, years

GROWING = ("Revenue", "Cost of sales", "Net income", "Operating expenses")
DAYS = {"Receivables": "Revenue", "Inventory": "Cost of sales", "Payables": "Cost of sales"}
PERIODS = {30: 12, 45: 8, 60: 6, 90: 4}  # usual terms in days: how many of them make 360 days


def _ask(rng: random.Random, asked: str) -> str:
    return rng.choice(ASKED[asked])


def _rules(name: str, limit: str, left: str, right: str) -> tuple[str, ...]:
    """What is asked for and what will be compared: the plan comes before the figures, so that each is used at once.

    Every compared number also stands close before the comparison, which says "more" before it says more than what.
    """
    return tuple(f"{name} of {limit}: {how}." for how in (
        f"{left} against {right}", f"compare {left} with {right}", f"set {left} beside {right}",
    ))  # fmt: skip


def _steps(given: str, *sums: str) -> tuple[str, ...]:
    return (" ".join((given, *sums)),)


def draw_growth(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, row = years(rng), rng.choice(GROWING)
    i, percent, asked = rng.randrange(1, len(span)), rng.choice((10, 10, 20, 20, 30, 40, 50)), "above"
    old = rng.choice((rng.randint(20, 99), rng.randint(100, 640)))
    new = beside(rng, Fraction(old * (100 + percent), 100), truth, 5, 980)
    facts = {"row": row, "old": old, "new": new, "year": span[i], "percent": percent, "ask": asked}
    rows = fill(rng, len(span), {row: {i: new, i - 1: old}})
    name, more = row.lower(), _ask(rng, asked)
    question = rng.choice((
        f"Did {name} grow by more than {percent}% in {span[i]}?",
        f"Was the growth of {name} in {span[i]} {more} {percent}%?",
        f"From {span[i] - 1} to {span[i]}, did {name} rise by more than {percent}%?",
    ))  # fmt: skip
    return pose(rng, span, rows, question, facts)


def work_growth(f: Facts) -> Work:
    old, new, grown, limit = f["old"], f["new"], 10 + f["percent"] // 10, f"{f['percent']}%"
    given = look_up(f, (f["row"], f["year"]), (f["row"], f["year"] - 1))
    return Work(
        rules=_rules("Growth", limit, "new * 10", f"old * {grown}"),
        steps=_steps(given, product(new, 10), product(old, grown)),
        left=new * 10,
        right=old * grown,
        also=((new, old),) if new <= old else (((new - old) * 100, old * f["percent"]),),
        subject="growth",
        ask=f["ask"],
        limit=limit,
    )


def draw_gross(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, asked, percent = years(rng), rng.choice(("above", "below", "at least")), rng.choice((20, 30, 40, 50, 60))
    i, revenue = rng.randrange(len(span)), rng.choice((rng.randint(40, 99), rng.randint(100, 900)))
    profit = beside(rng, Fraction(revenue * percent, 100), upward(asked, truth), 2, revenue - 1)
    facts = {"revenue": revenue, "cost": revenue - profit, "year": span[i], "percent": percent, "ask": asked}
    rows = fill(rng, len(span), {"Revenue": {i: revenue}, "Cost of sales": {i: revenue - profit}})
    question = rng.choice((
        f"Was the gross margin in {span[i]} {_ask(rng, asked)} {percent}%?",
        f"Is the gross margin of {span[i]} {_ask(rng, asked)} {percent}%?",
    ))  # fmt: skip
    return pose(rng, span, rows, question, facts)


def work_gross(f: Facts) -> Work:
    revenue, cost, rest, limit = f["revenue"], f["cost"], 10 - f["percent"] // 10, f"{f['percent']}%"
    given = look_up(f, ("Revenue", f["year"]), ("Cost of sales", f["year"]))
    return Work(
        rules=_rules("Gross margin", limit, f"revenue * {rest}", "cost * 10"),
        steps=_steps(given, product(revenue, rest), product(cost, 10)),
        left=revenue * rest,
        right=cost * 10,
        also=(((revenue - cost) * 100, revenue * f["percent"]),),
        subject="the margin",
        ask=f["ask"],
        limit=limit,
    )


def draw_operating(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, asked, percent = (
        years(rng),
        rng.choice(("above", "below", "at least")),
        rng.choice((4, 5, 6, 8, 10, 20, 30)),
    )
    i, revenue = rng.randrange(len(span)), rng.choice((rng.randint(40, 99), rng.randint(100, 900)))
    ebit = beside(rng, Fraction(revenue * percent, 100), upward(asked, truth), 1, revenue // 2)
    facts = {"revenue": revenue, "ebit": ebit, "year": span[i], "percent": percent, "ask": asked}
    rows = fill(rng, len(span), {"Revenue": {i: revenue}, "EBIT": {i: ebit}})
    question = rng.choice((
        f"Was the operating margin in {span[i]} {_ask(rng, asked)} {percent}%?",
        f"Is the operating margin of {span[i]} {_ask(rng, asked)} {percent}%?",
        f"Is the EBIT margin in {span[i]} {_ask(rng, asked)} {percent}%?",
    ))  # fmt: skip
    return pose(rng, span, rows, question, facts)


def work_operating(f: Facts) -> Work:
    revenue, ebit, percent = f["revenue"], f["ebit"], f["percent"]
    given = look_up(f, ("EBIT", f["year"]), ("Revenue", f["year"]))
    return Work(
        rules=_rules("EBIT margin", f"{percent}%", "EBIT * 100", f"revenue * {percent}"),
        steps=_steps(given, product(ebit, 100), product(revenue, percent)),
        left=ebit * 100,
        right=revenue * percent,
        subject="the margin",
        ask=f["ask"],
        limit=f"{percent}%",
    )


def draw_cagr(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, row, percent, asked = years(rng, least=3), rng.choice(GROWING), rng.choice((10, 10, 20, 30)), "above"
    start = rng.choice((20, 30, 40, 50, 60, 70, 80, 90, 100, 200, 300, 400))
    end = beside(rng, Fraction(start * (100 + percent) ** 2, 10_000), truth, 5, 990)
    facts = {"row": row, "start": start, "end": end, "year": span[0], "percent": percent, "ask": asked}
    rows = fill(rng, 3, {row: {0: start, 2: end}})
    name = row.lower()
    question = rng.choice((
        f"Was the CAGR of {name} from {span[0]} to {span[2]} {_ask(rng, asked)} {percent}%?",
        f"Did {name} grow by more than {percent}% a year from {span[0]} to {span[2]}?",
    ))  # fmt: skip
    return pose(rng, span, rows, question, facts)


def work_cagr(f: Facts) -> Work:
    start, end, grown, limit = f["start"], f["end"], 10 + f["percent"] // 10, f"{f['percent']}%"
    given = look_up(f, (f["row"], f["year"]), (f["row"], f["year"] + 2))
    return Work(
        rules=_rules("CAGR", limit, "end * 100", f"start * {grown} * {grown}"),
        steps=_steps(given, product(start, grown), product(start * grown, grown), product(end, 100)),
        left=end * 100,
        right=start * grown * grown,
        subject="the CAGR",
        ask=f["ask"],
        limit=limit,
    )


def draw_cover(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, asked, limit = years(rng), rng.choice(("above", "below", "at least")), rng.choice((2, 3, 4, 5, 6, 8))
    i, interest = rng.randrange(len(span)), rng.randint(4, 99)
    ebit = beside(rng, interest * limit, upward(asked, truth), 2, 990)
    facts = {"ebit": ebit, "interest": interest, "limit": limit, "year": span[i], "ask": asked}
    rows = fill(rng, len(span), {"EBIT": {i: ebit}, "Interest": {i: interest}})
    question = rng.choice((
        f"Was the interest cover in {span[i]} {_ask(rng, asked)} {limit}?",
        f"Is interest cover (EBIT / interest) in {span[i]} {_ask(rng, asked)} {limit} times?",
    ))  # fmt: skip
    return pose(rng, span, rows, question, facts)


def work_cover(f: Facts) -> Work:
    ebit, interest, limit = f["ebit"], f["interest"], f["limit"]
    given = look_up(f, ("EBIT", f["year"]), ("Interest", f["year"]))
    return Work(
        rules=_rules("Cover", str(limit), "EBIT", f"interest * {limit}"),
        steps=_steps(given, product(interest, limit), f"EBIT {ebit}."),
        left=ebit,
        right=interest * limit,
        subject="the cover",
        ask=f["ask"],
        limit=str(limit),
    )


def draw_days(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, asked, limit = years(rng), rng.choice(("above", "below")), rng.choice(list(PERIODS))
    i, row = rng.randrange(len(span)), rng.choice(list(DAYS))
    amount = rng.randint(8, 99)
    base = beside(rng, amount * PERIODS[limit], not upward(asked, truth), 20, 990)
    facts = {"row": row, "amount": amount, "base": base, "limit": limit, "year": span[i], "ask": asked}
    rows = fill(rng, len(span), {row: {i: amount}, DAYS[row]: {i: base}})
    kinds = {"Receivables": "days sales outstanding", "Inventory": "days of inventory", "Payables": "days payable"}
    question = rng.choice((
        f"With a 360-day year, are the {kinds[row]} in {span[i]} {_ask(rng, asked)} {limit}?",
        f"In {span[i]}, were the {kinds[row]} (360-day year) {_ask(rng, asked)} {limit}?",
    ))  # fmt: skip
    return pose(rng, span, rows, question, facts)


def work_days(f: Facts) -> Work:
    amount, base, limit, periods = f["amount"], f["base"], f["limit"], PERIODS[f["limit"]]
    row, beneath = f["row"], DAYS[f["row"]]
    given = look_up(f, (row, f["year"]), (beneath, f["year"]))
    return Work(
        rules=_rules("Days", f"{limit}, {limit} * {periods} = 360", f"{row.lower()} * {periods}", beneath.lower()),
        steps=_steps(given, product(amount, periods), f"{beneath} {base}."),
        left=amount * periods,
        right=base,
        subject="the number of days",
        ask=f["ask"],
        limit=str(limit),
    )


def draw_current(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, asked, halves = years(rng), rng.choice(("above", "below", "at least")), rng.choice((2, 3, 3, 4, 5, 6))
    i, liabilities = rng.randrange(len(span)), rng.randint(15, 300)
    assets = beside(rng, Fraction(liabilities * halves, 2), upward(asked, truth), 5, 990)
    facts = {"assets": assets, "liabilities": liabilities, "halves": halves, "year": span[i], "ask": asked}
    rows = fill(rng, len(span), {"Current assets": {i: assets}, "Current liabilities": {i: liabilities}})
    question = rng.choice((
        f"Was the current ratio in {span[i]} {_ask(rng, asked)} {show(Fraction(halves, 2))}?",
        f"Is the current ratio of {span[i]} {_ask(rng, asked)} {show(Fraction(halves, 2))}?",
    ))  # fmt: skip
    return pose(rng, span, rows, question, facts)


def work_current(f: Facts) -> Work:
    assets, liabilities, halves, limit = f["assets"], f["liabilities"], f["halves"], show(Fraction(f["halves"], 2))
    given = look_up(f, ("Current assets", f["year"]), ("Current liabilities", f["year"]))
    return Work(
        rules=_rules("Current ratio", limit, "assets * 2", f"liabilities * {halves}"),
        steps=_steps(given, product(assets, 2), product(liabilities, halves)),
        left=assets * 2,
        right=liabilities * halves,
        subject="the ratio",
        ask=f["ask"],
        limit=limit,
    )


def draw_debt(rng: random.Random, truth: bool) -> tuple[str, Facts]:
    span, asked, halves = years(rng), rng.choice(("above", "below", "at most")), rng.choice((1, 2, 3, 4))
    i, equity = rng.randrange(len(span)), rng.randint(30, 400)
    debt = beside(rng, Fraction(equity * halves, 2), upward(asked, truth), 8, 950)
    short = rng.randint(1, max(1, debt // 2))
    facts = {"short": short, "long": debt - short, "equity": equity, "halves": halves, "year": span[i], "ask": asked}
    known = {"Short-term debt": {i: short}, "Long-term debt": {i: debt - short}, "Equity": {i: equity}}
    question = rng.choice((
        f"Was debt to equity in {span[i]} {_ask(rng, asked)} {show(Fraction(halves, 2))}?",
        f"Is the debt-to-equity ratio of {span[i]} {_ask(rng, asked)} {show(Fraction(halves, 2))}?",
    ))  # fmt: skip
    return pose(rng, span, fill(rng, len(span), known), question, facts)


def work_debt(f: Facts) -> Work:
    debt, equity, halves, limit = f["short"] + f["long"], f["equity"], f["halves"], show(Fraction(f["halves"], 2))
    given = look_up(f, *((name, f["year"]) for name in ("Equity", "Short-term debt", "Long-term debt")))
    total = f"Debt {f['short']} + {f['long']} = {debt}."
    return Work(
        rules=_rules("Debt to equity", limit, "debt * 2", f"equity * {halves}"),
        steps=_steps(given, total, product(debt, 2), product(equity, halves)),
        left=debt * 2,
        right=equity * halves,
        subject="the ratio",
        ask=f["ask"],
        limit=limit,
    )


KINDS = (
    Kind("growth", draw_growth, work_growth),
    Kind("gross_margin", draw_gross, work_gross),
    Kind("operating_margin", draw_operating, work_operating),
    Kind("cagr_two_years", draw_cagr, work_cagr),
    Kind("interest_cover", draw_cover, work_cover),
    Kind("days_outstanding", draw_days, work_days),
    Kind("current_ratio", draw_current, work_current),
    Kind("debt_to_equity", draw_debt, work_debt),
)
