"""The medical domain: eight clinical formulas and scores, asked as threshold questions over short vignettes.

What: `TASK` makes, answers and checks questions on Cockcroft-Gault clearance, BMI, anion gap, corrected calcium, mean
arterial pressure (`formulas.py`, with sources) and CHA2DS2-VASc, Wells DVT, CURB-65 (`scores.py`, with sources).
Why: the rules are exact, so every rationale can be checked, and they are the arithmetic of a ward round.
Not covered: diagnosis, doses and advice. The vignettes are generated; nothing here is meant for the care of patients.
"""

from __future__ import annotations

from bridge_edge.recipes._steps import FormulaTask
from bridge_edge.recipes.medical import formulas, scores
from bridge_edge.recipes.medical.words import ALIKE

TASK = FormulaTask("medical", (*formulas.KINDS, *scores.KINDS), ALIKE)
