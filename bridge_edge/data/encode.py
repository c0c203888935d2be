"""From samples to token ids: the chat template frames the prompt, the completion is supervised.

The prompt is tokenised through the model's own template, exactly as it is at inference; the completion follows
it and ends with the end-of-turn token, so training and generation see the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from bridge_edge.data.card import ANSWER_TASK, completion
from bridge_edge.data.samples import Sample
from bridge_edge.train.batches import ANSWER, PROMPT, RATIONALE, Encoded

RATIONALE_TASK = "\nExplain."
"""With ANSWER_TASK the task suffixes of the prefix multi-task format (Distilling step-by-step, arXiv 2305.02301)."""


def chat_texts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """The prompts framed by the chat template, generation prompt included."""
    if not prompts:
        return []
    frame = tokenizer.apply_chat_template
    return [str(frame([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)) for p in prompts]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of framed prompts; the template brings its own special tokens, none is added."""
    framed = chat_texts(tokenizer, prompts)
    return tokenizer(framed, add_special_tokens=False)["input_ids"] if framed else []


def encode_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str, str]]) -> list[Encoded]:
    """Encode (prompt, rationale, answer) triples; an empty rationale or an empty answer is left out."""
    end = [tokenizer.eos_token_id]
    starts = prompt_ids(tokenizer, [p for p, _, _ in pairs])
    heads = [f"{r.strip()}\n" if r.strip() and a else r.strip() for _, r, a in pairs]
    tails = [completion(None, a) if a else "" for _, _, a in pairs]
    if not pairs:
        return []
    head_ids = tokenizer(heads, add_special_tokens=False)["input_ids"]
    tail_ids = tokenizer(tails, add_special_tokens=False)["input_ids"]
    rows = []
    for start, head, tail in zip(starts, head_ids, tail_ids, strict=True):
        last = end if tail else []
        ids = np.array([*start, *head, *tail, *(last or end)], dtype=np.int32)
        codes = [PROMPT] * len(start) + [RATIONALE] * (len(head) + (0 if tail else 1))
        codes += [ANSWER] * (len(tail) + len(last))
        rows.append(Encoded(ids, np.array(codes, dtype=np.int8)))
    return rows


def encode_samples(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample], form: str = "rationale_answer"
) -> list[Encoded]:
    """Encode answered samples: `rationale_answer`, `multitask` (two rows each) or `answer` (labels only)."""
    triples: list[tuple[str, str, str]] = []
    for sample in samples:
        answer, rationale = sample.answer or "", sample.rationale or ""
        if form == "answer":
            triples.append((sample.prompt, "", answer))
        elif form == "multitask":
            triples.append((sample.prompt + ANSWER_TASK, "", answer))
            triples.append((sample.prompt + RATIONALE_TASK, rationale, ""))
        else:
            triples.append((sample.prompt, rationale, answer))
    return encode_pairs(tokenizer, triples)
