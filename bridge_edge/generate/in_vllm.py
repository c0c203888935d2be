"""The assistant in vLLM, in this process, where the user has installed it (it is no dependency of this package).

Not covered: several GPUs (serve it instead and use annotate.engine=openai). vLLM needs a GPU for most models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.generate.drafts import Draft, Wish
from bridge_edge.progress import Advance
from bridge_edge.train.models import load_tokenizer


class VLLMWriter:
    """See `bridge_edge.generate.drafts.Writer`."""

    def __init__(self, folder: str, wish: Wish) -> None:
        from vllm import LLM, SamplingParams

        self.wish, self.tokenizer = wish, load_tokenizer(folder)
        self._parameters = SamplingParams
        self._model: Any = LLM(model=folder, seed=wish.seed)

    def write(self, items: Sequence[Sample], advance: Advance) -> Iterator[tuple[int, Draft]]:
        wish = self.wish
        prompts = [{"prompt_token_ids": ids} for ids in prompt_ids(self.tokenizer, [s.prompt for s in items])]
        asked = [
            self._parameters(
                n=wish.samples, temperature=wish.temperature, max_tokens=wish.bound, logprobs=0,
                seed=wish.entropy(item)[1] % (1 << 31) + wish.seed,
            )
            for item in items
        ]  # fmt: skip
        for place, found in enumerate(self._model.generate(prompts, asked, use_tqdm=False)):
            for sample, output in enumerate(found.outputs):
                ids, ended = list(output.token_ids), output.finish_reason == "stop"
                logprob = round(output.cumulative_logprob / len(ids), 5) if ids else None
                said = ids[:-1] if ended and ids and ids[-1] == self.tokenizer.eos_token_id else ids
                text = str(self.tokenizer.decode(said, skip_special_tokens=True))
                yield place, Draft(text, len(said), logprob, ended, sample)
            advance(1, "")

    def close(self) -> None:
        self._model = None
