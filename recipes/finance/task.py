"""The finance domain: eight ratios of a small company statement, asked as threshold questions.

What: `TASK` makes, answers and checks questions on growth, gross and operating margin, two-year compound growth,
interest cover, days outstanding, current ratio and debt to equity (`ratios.py`, with the definitions); `statement.py`
writes the statements.
Why: the rules are exact, so every rationale can be checked, and the figures have to be found in the right row and year.
Not covered: forecasts, valuation and advice. The companies and their figures are generated.
"""

from __future__ import annotations

from bridge_edge.recipes._steps import FormulaTask
from bridge_edge.recipes.finance import ratios
from bridge_edge.recipes.finance.words import ALIKE

TASK = FormulaTask("finance", ratios.KINDS, ALIKE)
