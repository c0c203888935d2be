"""The assistant in transformers, with the library's own continuous batching (`generate_batch`).

What: paged attention over all drafts of a part of the pool at once; on a GPU the library sizes its cache by the memory
that is free, on a CPU it gets the pages that `annotate.batch_rows` drafts need, since it would else take more than half
of the machine's memory.
Why: models that this package's engine leaves to the library's modules (a TA of several billions) are batched better by
it on a GPU. On a CPU it is slower than the engine of this package.
Sampled drafts are drawn by the library: they are the same again for the same seed, batch size and device only, and
their log-probabilities are those at the temperature of the draw.
Not covered: several GPUs; models with recurrent states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError, first_line
from bridge_edge.generate.drafts import Draft, Wish
from bridge_edge.progress import Advance
from bridge_edge.train.models import load_model, load_tokenizer
from bridge_edge.train.precision import use_bf16

PAGE = 16  # positions a page of the cache on a CPU
HINT = "use annotate.engine=native, which decodes the same models"


class ContinuousWriter:
    """See `bridge_edge.generate.drafts.Writer`."""

    def __init__(self, folder: str, wish: Wish, rows: int, device: str = "cpu", precision: str = "auto") -> None:
        self.wish, self.rows = wish, rows
        self.tokenizer = load_tokenizer(folder)
        self.model: Any = load_model(folder, device)
        if use_bf16(precision, self.model.device) and self.model.device.type != "cpu":
            self.model = self.model.bfloat16()
        self.model.set_attn_implementation("sdpa")

    def write(self, items: Sequence[Sample], advance: Advance) -> Iterator[tuple[int, Draft]]:
        wish = self.wish
        ids = prompt_ids(self.tokenizer, [s.prompt for s in items])
        seed = hash_of([wish.entropy(s) for s in items])
        config = GenerationConfig(
            max_new_tokens=wish.bound,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            do_sample=wish.temperature > 0,
            num_return_sequences=wish.samples,
            **({"temperature": wish.temperature, "top_k": 0, "top_p": 1.0} if wish.temperature else {}),
        )
        settings = ContinuousBatchingConfig(return_logprobs=True, seed=seed, **self._pages(max(map(len, ids))))
        try:
            found = self.model.generate_batch(ids, config, settings, progress_bar=False)
        except Exception as error:  # the library raises many kinds, of which none is for users
            raise UserError(f"transformers cannot batch this model continuously: {first_line(error)}", HINT) from error
        advance(len(items), "")
        yield from self._drafts(list(found.values()), len(items))

    def _drafts(self, outputs: list[Any], items: int) -> Iterator[tuple[int, Draft]]:
        """Drafts of the outputs, which come item by item; a missing or failed one ends the stage."""
        broken = next((o.error for o in outputs if o.error), None)
        if broken or len(outputs) != items * self.wish.samples:
            lost = items * self.wish.samples - len(outputs)
            raise UserError(f"continuous batching failed: {broken or f'{lost} drafts did not come back'}", HINT)
        for place, output in enumerate(outputs):
            item, sample = divmod(place, self.wish.samples)
            ids, logs = list(output.generated_tokens), list(output.logprobs)
            ended = bool(ids) and ids[-1] == self.tokenizer.eos_token_id
            said = ids[:-1] if ended else ids
            text = str(self.tokenizer.decode(said, skip_special_tokens=True))
            logprob = round(sum(logs) / len(logs), 5) if logs else None
            yield item, Draft(text, len(said), logprob, ended, sample)

    def _pages(self, longest: int) -> dict[str, Any]:
        """The size of the cache: the library's choice on a GPU, enough for `batch_rows` drafts on a CPU."""
        if self.model.device.type != "cpu":
            return {}
        pages = math.ceil((longest + self.wish.bound) / PAGE) + 1
        tokens = max(longest, 4 * self.rows)
        return {
            "page_size": PAGE, "num_blocks": pages * max(self.rows, self.wish.samples), "max_batch_tokens": tokens,
            "use_async_batching": False, "auto_switch_to_flash": False,
        }  # fmt: skip

    def close(self) -> None:
        self.model = None


def hash_of(seeds: Sequence[tuple[int, int]]) -> int:
    """One seed of 32 bits for a whole part of the pool."""
    mixed = 0
    for pair in seeds:
        for number in pair:
            mixed = (mixed * 1_000_003 + number) % (1 << 32)
    return mixed
