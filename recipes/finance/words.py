"""Words that stand for one another in a statement (`swap.enabled`), so that each answer is seen in many tellings.

What: `ALIKE` lists the two parts of a company's name, units of the whole statement, and rows that no ratio of the
domain reads. Any word of a list may take the place of any other of it: ratio and answer stay as they are. Names and
rows that the generator never draws are among them, since a user's statements have others.
Why: what is looked up has to be found among rows of any name.
Not covered: rows that a ratio reads; years and figures, from which the sums follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from bridge_edge.recipes.finance.statement import FIRST, LAST, OTHERS, UNITS

NAMES = """Acorn Agate Anchor Anvil Ash Badger Basalt Beacon Beech Bison Bramble Bronze Canyon Cobalt Comet Condor Crane
Crystal Cypress Dawn Eagle Ember Falcon Fjord Garnet Granite Grove Harbor Heron Indigo Juniper Lagoon Larch Laurel
Lunar Meadow Meteor Mistral Moss Nimbus Orchid Osprey Otter Pebble Poplar Prairie Rowan Saffron Summit Tundra""".split()
TRADES = """Brewing Bakery Chemicals Cement Dairy Design Drinks Fashion Furniture Games Garden Jewels Leather
Lighting Optics Pharma Plastics Press Railways Robotics Rubber Seeds Toys Travel Water""".split()
MORE = """
Rent; Audit fees; Donations; Licences; Legal fees; Packaging; Security; Cleaning; Freight; Royalties; Pensions; Bonuses;
Recruitment; Utilities; Maintenance; Consulting; Fuel; Fines; Grants; Hosting; Samples; Sponsorship; Postage; Land;
Vehicles; Machinery; Deposits; Prepayments; Provisions; Warranties
"""
ROWS = tuple(" ".join(row.split()) for row in MORE.split(";"))
ALIKE: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "companies": (*FIRST, *NAMES),
        "rows": (*OTHERS, *ROWS),
        "trades": (*LAST, *TRADES),
        "units": UNITS,
    }
)
