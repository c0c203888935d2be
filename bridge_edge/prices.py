"""Money and counts: what a teacher charges, what a run may spend, and what it has spent.

Money is an integer number of nano-dollars (one thousand-millionth of a dollar) wherever it is stored or added, and a
`Decimal` of dollars where a person reads it; floats are read digit by digit (`0.1` means 0.1) and never summed. A cost
is rounded up to the next nano-dollar and a cap down, so rounding can never hide an overspend.

Not covered: prices that depend on caching, on the time of day or on the length of the prompt; give the highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation

from bridge_edge.errors import UserError

NANO = 10**9
NANO_PER_TOKEN = 1000  # one dollar per million tokens is 1000 nano-dollars per token
MOST = 2**62  # SQLite integers are signed and 64 bits wide; with the two bounds below no sum can pass that
MOST_TOKENS = 10**8  # of one query
MOST_PRICE = 10**6  # dollars per million tokens

Amount = int | float | str | Decimal


def dollars(value: Amount, name: str) -> Decimal:
    """`value` as an exact, finite, non-negative number of dollars; UserError naming it otherwise."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise UserError(f"{name} is {value!r}", "give a number of dollars that is not negative, such as 0.15")
    if amount * NANO > MOST:
        raise UserError(f"{name} is {value!r}", f"the most that can be counted is ${MOST // NANO}")
    return amount


def to_usd(nano: int) -> Decimal:
    return Decimal(nano) / NANO


def show_usd(nano: int) -> str:
    """Dollars for people: cents for large amounts, every digit that matters for small ones."""
    usd = to_usd(nano)
    return f"${usd:.2f}" if usd == usd.quantize(Decimal("0.01")) else f"${usd.normalize():f}"


@dataclass(frozen=True)
class Price:
    """Dollars per million prompt and completion tokens."""

    prompt: Amount = 0
    completion: Amount = 0

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            if dollars(getattr(self, name), f"price.{name}") > MOST_PRICE:
                raise UserError(f"price.{name} is {getattr(self, name)!r}", "give dollars per million tokens")

    def nano(self, prompt_tokens: int, completion_tokens: int) -> int:
        """The cost of one query in nano-dollars, rounded up."""
        cost = Decimal(str(self.prompt)) * prompt_tokens + Decimal(str(self.completion)) * completion_tokens
        return int((cost * NANO_PER_TOKEN).to_integral_value(ROUND_CEILING))


@dataclass(frozen=True)
class Caps:
    """The most that may be spent, each None for no cap; `tokens` counts prompt and completion together."""

    queries: int | None = None
    usd: Amount | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("queries", "tokens"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise UserError(f"budget.{name} is {value!r}", "give a whole number that is not negative, or null")
        if self.usd is not None:
            dollars(self.usd, "budget.usd")

    @property
    def nano(self) -> int | None:
        if self.usd is None:
            return None
        return int((Decimal(str(self.usd)) * NANO).to_integral_value(ROUND_FLOOR))


@dataclass(frozen=True)
class Usage:
    """The tokens that a teacher says it billed."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Totals:
    """What counts against the caps; the `unsettled_` part of it may still turn out smaller, of which the `doubtful_`
    part does only where the user closes it by the provider's bill."""

    queries: int
    tokens: int
    nano: int
    unsettled_queries: int
    unsettled_tokens: int
    unsettled_nano: int
    doubtful_nano: int = 0

    @property
    def usd(self) -> Decimal:
        return to_usd(self.nano)
