"""k sampled replies a prompt, for the measures that ask how far a model agrees with itself.

The prompt is read once and its cache repeated k times. Each row draws with random numbers of its own, made from the
seed and its place in the list, so batches, threads and their order change nothing but rounding. Not covered: top-k and
nucleus cuts (they would hide the disagreement that is looked for), and long rationales over a whole pool, for which
generate/engine.py is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from bridge_edge.generate.draw import drawn
from bridge_edge.memory import trim
from bridge_edge.parallel import side_by_side
from bridge_edge.train.batches import bucket
from bridge_edge.train.precision import use_bf16


def draw(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    samples: int,
    bound: int,
    ends: frozenset[int],
    seed: int = 0,
    temperature: float = 1.0,
    advance: Callable[[float, str], None] = lambda *_: None,
) -> list[list[list[int]]]:
    """`samples` replies of at most `bound` tokens for each prompt, without the end token; temperature 0 is greedy."""
    found: list[list[list[int]]] = [[] for _ in prompts]
    model.eval()
    bf16 = use_bf16("auto", model.device)

    def work(rows: list[int]) -> list[int]:
        chances = np.stack([np.random.default_rng([seed, i]).random((samples, bound)) for i in rows])
        chosen = torch.from_numpy(chances.reshape(-1, bound)) if temperature else None  # (B * k, bound)
        ids = _sample([prompts[i] for i in rows], samples, bound, chosen)
        for place, i in enumerate(rows):
            found[i] = [_until(reply, ends) for reply in ids[place * samples : (place + 1) * samples]]
        return rows

    def _sample(some: list[Sequence[int]], k: int, length: int, chances: torch.Tensor | None) -> list[list[int]]:
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            return _replies(model, some, k, length, ends, temperature, chances)

    lengths = [(len(p) + bound) * samples for p in prompts]
    with side_by_side(model) as run:
        for rows in run(work, bucket(lengths, 16_384, range(len(prompts)))):
            advance(len(rows), "")
            trim()
    return found


def _until(ids: list[int], ends: frozenset[int]) -> list[int]:
    """What stands before the first end token."""
    return ids[: next((k for k, token in enumerate(ids) if token in ends), len(ids))]


def _replies(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    samples: int,
    bound: int,
    ends: frozenset[int],
    temperature: float,
    chances: torch.Tensor | None,
) -> list[list[int]]:
    """The replies of one batch, prompt after prompt: left padding, so that all go on in the same column."""
    width, device = max(map(len, prompts)), model.device
    pads = torch.tensor([width - len(p) for p in prompts], device=device)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    columns = torch.arange(width + bound, device=device)
    mask = (columns >= pads[:, None]).long()  # (B, width + bound)
    positions = (columns[None, :width] - pads[:, None]).clamp(min=0)
    cache = DynamicCache(config=model.config.get_text_config())
    stop = torch.tensor(sorted(ends), device=device)
    made: list[torch.Tensor] = []
    for step in range(bound):
        seen = mask[:, : width + step]
        out = model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=None if bool(seen.all()) else seen,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = out.logits[:, -1].float()
        if step == 0:
            cache.batch_repeat_interleave(samples)
            logits, mask, pads = (x.repeat_interleave(samples, 0) for x in (logits, mask, pads))  # (B * k, ...)
        made.append(_pick(logits, temperature, None if chances is None else chances[:, step].to(device)))
        if bool(torch.isin(torch.stack(made), stop).any(0).all()):
            break
        ids = made[-1][:, None]
        positions = (width + step - pads)[:, None]
    return torch.stack(made, 1).tolist()


def _pick(logits: torch.Tensor, temperature: float, chance: torch.Tensor | None) -> torch.Tensor:
    """One token a row: the one on whose stretch of the summed probabilities the random number falls."""
    if chance is None:
        return logits.argmax(-1)
    return drawn(logits, temperature, chance)
