"""A ledger at a price, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridge_edge.budget import Caps, Ledger, Price

PRICE = Price(0.15, 0.60)  # 150 and 600 nano-dollars a token


def open_ledger(folder: Path, price: Price = PRICE, **caps: Any) -> Ledger:
    return Ledger(folder / "ledger.sqlite", Caps(**caps), price)
