"""The assistant in this package's own engine: the default, on CPU or GPU, greedy or sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.generate.drafts import Draft, Wish
from bridge_edge.generate.draw import Draw
from bridge_edge.generate.engine import generate
from bridge_edge.progress import Advance
from bridge_edge.train.models import load_model, load_tokenizer


class NativeWriter:
    """See `bridge_edge.generate.drafts.Writer`."""

    def __init__(self, folder: str, wish: Wish, rows: int, device: str = "cpu", precision: str = "auto") -> None:
        self.wish, self.rows, self.precision = wish, rows, precision
        self.tokenizer, self.model = load_tokenizer(folder), load_model(folder, device)
        self.ends = frozenset([self.tokenizer.eos_token_id])

    def write(self, items: Sequence[Sample], advance: Advance) -> Iterator[tuple[int, Draft]]:
        wish, draw = self.wish, None
        if wish.temperature:
            draw = Draw(wish.temperature, wish.samples, [wish.entropy(s) for s in items])
        ids = prompt_ids(self.tokenizer, [s.prompt for s in items])
        for row in generate(self.model, ids, wish.bound, self.ends, self.rows, self.precision, draw):
            text = str(self.tokenizer.decode(row.ids, skip_special_tokens=True))
            advance(1 / wish.samples, "")
            item, sample = divmod(row.index, wish.samples)
            yield item, Draft(text, len(row.ids), round(row.logprob, 5), row.ended, sample)

    def close(self) -> None:
        pass
