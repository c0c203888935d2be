"""A second reader of the assistant's drafts: how likely another model finds what the assistant wrote.

What: the mean log-probability of each rationale and answer under a model that has not seen the drafts: the student of
direct distillation, which has learnt the teacher's own answers and nothing else.
Why: an assistant is sure of what it misreads in the same way each time. Another model, from another base and of the
same lessons, misreads elsewhere, so that what both find likely is more often true; README.md has how much more, by each
domain's checker.
Not covered: reading several drafts of an item; the vote has chosen one by then.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bridge_edge.data.encode import encode_samples
from bridge_edge.data.samples import Sample
from bridge_edge.parallel import side_by_side
from bridge_edge.progress import track
from bridge_edge.train.batches import bucket, collate
from bridge_edge.train.hybrid import chosen
from bridge_edge.train.losses import supervised_states
from bridge_edge.train.models import load_model, load_tokenizer
from bridge_edge.train.precision import use_bf16


def read(
    folder: str, samples: Sequence[Sample], form: str, tokens: int, device: str = "cpu", precision: str = "auto"
) -> list[float]:
    """The mean log-probability of the rationale and answer of each sample, `tokens` at once; `form` as the reader
    learnt it (`tutor.format`)."""
    model = load_model(folder, device).eval()
    rows = encode_samples(load_tokenizer(folder), samples, form)
    each = len(rows) // max(1, len(samples))  # of multitask there are two to a sample
    sums, counts = [0.0] * len(samples), [0] * len(samples)
    bf16 = use_bf16(precision, model.device)

    def logs(places: list[int]) -> list[tuple[int, float, int]]:
        batch = collate([rows[i] for i in places], 0).to(model.device)
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            states = supervised_states(model, batch)
            found = chosen(states)
        total = torch.zeros(len(places), device=found.device).index_add_(0, states.rows, found.float())
        size = torch.bincount(states.rows, minlength=len(places))
        return [(i // each, float(t), int(n)) for i, t, n in zip(places, total, size, strict=True)]

    with track("second reader", len(rows)) as advance, side_by_side(model) as run:
        for part in run(logs, bucket([len(row) for row in rows], tokens, range(len(rows)))):
            for place, total, size in part:
                sums[place] += total
                counts[place] += size
            advance(len(part), "")
    return [total / max(1, count) for total, count in zip(sums, counts, strict=True)]
