"""Words that stand for one another in a vignette (`swap.enabled`), so that a student sees each answer in many tellings.

What: `ALIKE` lists surnames, circumstances, complaints that earn no points in any score, and the wordings of each sign
that does. Any word of a list may take the place of any other of it, in question and rationale: the points, the sums and
the answer stay as they are.
Why: of the eight kinds the scores are learnt worst, since a few dozen answers name each finding once or twice, and a
model then learns the findings in the place of what is done with them. Complaints that the generator never draws are
among them, since what is not in the score is without end.
Not covered: signs in the place of other signs (two wordings of one would then count twice), ages and measured values,
from which the sums follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from bridge_edge.recipes.medical.scores import CHADS, CHADS_NOISE, WELLS, WELLS_NOISE
from bridge_edge.recipes.medical.vignette import PLACES, SURNAMES

MORE = """
dizziness; sciatica; tinnitus; a sore throat; heartburn; eczema; insomnia; constipation; acne; hives; vertigo;
a stiff neck; toothache; a sprained wrist; cataracts; tonsillitis; a cold; earache; a sore knee; a dry mouth; rhinitis;
a hernia; a cut finger; sunburn; a frozen shoulder; dry eyes; a corn; a wart; deafness; hiccups; itching; a sore elbow;
a lump on the arm; a black eye; hoarseness; stomach ache; nosebleeds; a stye; lice; dandruff
"""
COMPLAINTS = tuple(" ".join(word.split()) for word in MORE.split(";"))
SIGNS = {name: words for name, (_, words) in (*CHADS.items(), *WELLS.items()) if len(words) > 1}
ALIKE: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "surnames": tuple(SURNAMES),
        "places": PLACES,
        "complaints": tuple(dict.fromkeys((*CHADS_NOISE, *WELLS_NOISE, *COMPLAINTS))),
        **SIGNS,
    }
)
