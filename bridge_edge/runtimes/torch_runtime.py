"""A student in a Hugging Face folder, run by torch in float32 on the CPU: the reference for every other runtime.

Decoding is our own greedy loop, since a checkpoint's generation_config may ask for sampling or a repetition
penalty, and a reference must not depend on that. Only safetensors are read and no code from the folder is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError, first_line

ROWS = 32  # prompts a batch
transformers_logging.disable_progress_bar()  # loading a small model is no work worth a bar


def end_tokens(folder: Path, config: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a generation: from the generation config, the model config and the tokenizer. A UserError for
    one that the model can never give."""
    from transformers import GenerationConfig

    found = [getattr(config, "eos_token_id", None), tokenizer.eos_token_id]
    if (folder / "generation_config.json").exists():
        try:
            found.append(GenerationConfig.from_pretrained(folder).eos_token_id)
        except Exception as error:
            raise UserError(
                f"cannot read {folder / 'generation_config.json'}: {first_line(error)}", "mend the file, or remove it"
            ) from None
    ids = [i for item in found if item is not None for i in (item if isinstance(item, list | tuple) else [item])]
    most = getattr(config, "vocab_size", None) or 1 << 31
    odd = [i for i in ids if type(i) is not int or not 0 <= i < most]
    if odd:
        raise UserError(
            f"{folder} names the end token {odd[0]!r}; the vocabulary has {most}",
            "mend eos_token_id in config.json and generation_config.json",
        )
    return frozenset(ids)


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; anything unreadable becomes a UserError."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"cannot read the tokenizer in {folder}: {first_line(error)}", "save it there in hub layout"
        ) from None


class HubText:
    """Text to token ids and back by the tokenizer of a hub folder, for runtimes that have none of their own."""

    path: Path
    tokenizer: Any

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def framed(self, prompt: str) -> str:
        """One user message in the tokenizer's chat template; the template alone places a BOS."""
        if not self.tokenizer.chat_template:
            raise UserError(f"the tokenizer in {self.path} has no chat template", "save it with a chat_template")
        message = [{"role": "user", "content": prompt}]
        try:
            return str(self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # a template is code of the model's maker and may raise anything
            raise UserError(f"the chat template in {self.path} fails: {first_line(error)}", "mend it") from None

    def chat(self, prompt: str) -> list[int]:
        return self.encode(self.framed(prompt))


class TorchRuntime(HubText):
    """See `bridge_edge.runtimes.base.Runtime`. `threads` sets torch's thread count for the whole process."""

    name = "torch"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.path = path
        self.card = Card.load(path)
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            said = f"cannot read {path / 'config.json'}: {first_line(error)}"
            raise UserError(said, "save the checkpoint again") from None
        self.tokenizer = load_tokenizer(path)
        try:
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                path, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True
            ).eval()
        except Exception as error:
            raise UserError(
                f"cannot load the model in {path}: {first_line(error)}", "it needs config.json and complete safetensors"
            ) from None
        self.vocab_size = int(self.model.get_output_embeddings().weight.shape[0])
        self.context_length = int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
        self.eos_ids = end_tokens(path, config, self.tokenizer)

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        if not ids:
            return np.zeros((0, self.vocab_size), dtype=np.float32)
        self._fits(len(ids))
        out = self.model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        return out.logits[0].float().numpy()  # (T, V)

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        for (token,) in self._greedy([list(ids)], max_new_tokens):
            if token in self.eos_ids:
                return
            yield token

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return [self.decode(ids) for ids in self.complete([self.chat(p) for p in prompts], max_new_tokens)]

    def complete(self, encoded: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy token ids, end tokens left out; prompts of like length share a left-padded batch."""
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        completions: list[list[int]] = [[] for _ in encoded]
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            done = [False] * len(rows)
            for tokens in self._greedy([list(encoded[i]) for i in rows], max_new_tokens):
                for r, token in enumerate(tokens):
                    done[r] = done[r] or token in self.eos_ids
                    if not done[r]:
                        completions[rows[r]].append(token)
                if all(done):
                    break
        return completions

    def close(self) -> None:
        self.model = None

    def _fits(self, length: int) -> None:
        if length > self.context_length:
            raise UserError(
                f"the prompt has {length} tokens; the model's context is {self.context_length}", "shorten it"
            )

    @torch.no_grad()
    def _step(self, tokens: torch.Tensor, mask: torch.Tensor, cache: Any) -> tuple[list[int], Any]:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]  # (B, T): padding takes no position
        out = self.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return out.logits[:, -1].argmax(-1).tolist(), out.past_key_values

    def _greedy(self, prompts: list[list[int]], max_new_tokens: int) -> Iterator[list[int]]:
        """Greedy tokens, one a row and step; rows run on after their end token and the caller drops the rest."""
        width = max(map(len, prompts))
        if min(map(len, prompts)) == 0:
            raise UserError("cannot generate from an empty prompt", "give at least one token")
        self._fits(width + 1)
        tokens = torch.tensor([[0] * (width - len(p)) + p for p in prompts])  # (B, T)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])  # (B, T)
        cache: Any = None
        for _ in range(min(max_new_tokens, self.context_length - width)):
            nxt, cache = self._step(tokens, mask, cache)
            yield nxt
            tokens = torch.tensor(nxt)[:, None]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
