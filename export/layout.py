"""What lies beside an exported file: a model card, Ollama's files, checksums.

The card states where the data came from, what the teacher cost and what was measured, each with its count and interval;
what was not tried says so. Ollama renders prompts with templates of its own kind, so the student's chat template is
rendered once around a mark and written as what stands before and after the user's message. A system message that the
template puts in by itself is Ollama's `system`. Not covered: conversations of several turns and system messages of the
user's own, for which the students are not trained.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from bridge_edge.data.card import Card
from bridge_edge.export.gguf_tokenizer import adds_bos
from bridge_edge.parcel import write_sums
from bridge_edge.runtimes.torch_runtime import end_tokens, load_tokenizer

README, MODELFILE = "README.md", "Modelfile"
MARK, SYSTEM_MARK = "@@bridge-edge-prompt@@", "@@bridge-edge-system@@"
QUOTES = '"""'
BACKENDS = {
    "builder": "the model builder of onnxruntime-genai",
    "exporters": "transformers.exporters",
    "optimum": "optimum-onnx",
}


def write_layout(folder: Path, source: Path, report: Mapping[str, Any], facts: Mapping[str, Sequence[str]]) -> None:
    """Write the card, for a GGUF also Ollama's files, and last the checksums of everything."""
    if report["fmt"] == "gguf":
        ollama(folder, source, report["path"])
    (folder / README).write_text(model_card(folder, source, report, facts), encoding="utf-8")
    write_sums(folder)


def around(tokenizer: Any) -> tuple[str, str] | None:
    """The text before and after a user's message, or None where the template does more than to frame it."""
    if not tokenizer.chat_template:
        return None
    message = [{"role": "user", "content": MARK}]
    text = str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
    before, mark, after = text.partition(MARK)
    if not mark or MARK in after or "{{" in text or QUOTES in text:
        return None
    return _without_bos(tokenizer, before), after


def _without_bos(tokenizer: Any, text: str) -> str:
    """Less the BOS that the runtime adds."""
    return text.removeprefix(tokenizer.bos_token) if adds_bos(tokenizer) else text


def default_system(tokenizer: Any, before: str) -> tuple[str, str, str] | None:
    """`before` as (lead, message, rest) where the template brings a system message of its own, as Qwen2.5's does."""
    messages = [{"role": "system", "content": SYSTEM_MARK}, {"role": "user", "content": MARK}]
    try:
        text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except Exception:  # a template may refuse the role, and raises what it likes
        return None
    lead, mark, rest = _without_bos(tokenizer, text.partition(MARK)[0]).partition(SYSTEM_MARK)
    message = before[len(lead) : len(before) - len(rest)]
    return (lead, message, rest) if mark and message and lead + message + rest == before else None


def ollama(folder: Path, source: Path, file: str) -> None:
    """`Modelfile` for `ollama create`, and `template`, `system` and `params`, which the hub hands to Ollama."""
    tokenizer = load_tokenizer(source)
    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    card = Card.load(source)
    stops = [tokenizer.convert_ids_to_tokens(i) for i in sorted(end_tokens(source, config, tokenizer))]
    params: dict[str, Any] = {
        "temperature": 0,
        "repeat_penalty": 1.0,
        "num_ctx": min(int(getattr(config, "max_position_embeddings", 0) or 4096), 4096),
        "stop": [s for s in stops if s],
    }
    if card:
        params["num_predict"] = card.max_new_tokens
    lines = [f"FROM ./{file}"]
    parts = around(tokenizer)
    if parts:
        before, after = parts
        system = default_system(tokenizer, before)
        if system:
            before = f"{system[0]}{{{{ .System }}}}{system[2]}"
            lines.append(f"SYSTEM {QUOTES}{system[1]}{QUOTES}")
            (folder / "system").write_text(system[1], encoding="utf-8")
        template = f"{before}{{{{ .Prompt }}}}{after}"
        lines.append(f"TEMPLATE {QUOTES}{template}{QUOTES}")
        (folder / "template").write_text(template, encoding="utf-8")
    for key, value in params.items():
        for item in value if isinstance(value, list) else [value]:
            lines.append(f"PARAMETER {key} {json.dumps(item, ensure_ascii=False)}")
    (folder / MODELFILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "params").write_text(json.dumps(params, ensure_ascii=False) + "\n", encoding="utf-8")


def model_card(folder: Path, source: Path, report: Mapping[str, Any], facts: Mapping[str, Sequence[str]]) -> str:
    """README.md: front matter for the hub, what it is, what was measured, how to run it."""
    card = Card.load(source)
    title = f"{card.recipe if card else source.name} student, {report['quant']}"
    licence = "".join(f"license: {line}\n" for line in facts.get("license", ()))
    parts = [f"---\n{licence}tags: [bridge-edge, {report['fmt']}]\npipeline_tag: text-generation\n---\n\n# {title}\n"]
    parts.append("A small language model distilled with bridge-edge for one task; it runs offline.\n")
    for heading, lines in facts.items():
        if heading != "license":
            parts.append(f"## {heading}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    if not licence:
        parts.append("## Licence\n\n- not stated; the base model's licence and the terms of the teacher apply\n")
    parts.append("## This file\n\n" + "\n".join(f"- {line}" for line in measured(report)) + "\n")
    parts.append(how_to_run(report, card))
    return "\n".join(parts)


def measured(report: Mapping[str, Any]) -> list[str]:
    """Sizes and parity in words; nothing that was not measured during this export."""
    p = report["parity"]
    lines = [
        f"`{report['path']}`: {report['bytes'] / 2**20:.2f} MiB, {report['bits_per_weight']:.2f} bits per weight "
        f"({report['quant']}; {len(report['fallbacks'])} tensors in another type)",
        f"against the checkpoint in torch, {p['prompts']} prompts and {p['tokens']} tokens read by both: mean KL "
        f"{p['mean_kl']:.2g}, equal top token {p['top1']:.1%}, largest logit difference {p['max_abs_diff']:.2g}",
        f"greedy completions equal token for token: {p['greedy_equal']:.1%}",
        f"checked through {p['through']}",
    ]
    if p.get("accuracy"):
        a = p["accuracy"]
        change, high, low = (0.0 - 100 * x for x in (a["difference"], *a["ci95"]))  # a loss is a fall
        lines.append(
            f"accuracy on {a['n']} dev items: {a['accuracy_b']:.1%}, the checkpoint {a['accuracy_a']:.1%}; "
            f"{change:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f} (paired)"
        )
    else:
        lines.append("accuracy of this file: not measured here")
    if report.get("importance"):
        lines.append(f"importance matrix from the task's own texts for {report['importance']} tensors")
    if report.get("backend"):
        lines.append(f"graph made by {BACKENDS[report['backend']]}")
    return lines


def how_to_run(report: Mapping[str, Any], card: Card | None) -> str:
    """Commands; which of them were tried."""
    file = report["path"]
    question = (card.examples[0] if card and card.examples else "YOUR QUESTION").replace("\n", " ")
    asked = shlex.quote(question)
    if report["fmt"] != "gguf":
        return how_to_run_onnx(question)
    checked = ", the runtime of the check above" if report["parity"]["through"] == "llama.cpp" else ""
    return f"""## How to run

With bridge-edge{checked}:

```sh
bridge-edge run {file} {asked}
```

The other ways were not tested here. llama.cpp:

```sh
llama-cli -m {file} --jinja --temp 0 --single-turn -p {asked}
```

Ollama (in this folder; the template stands in `Modelfile`):

```sh
ollama create student -f Modelfile && ollama run student {asked}
```

LM Studio: `lms import {file}`, then set the temperature to 0. Python, with llama-cpp-python:

```python
from llama_cpp import Llama
model = Llama("{file}", n_ctx=0)
reply = model.create_chat_completion([{{"role": "user", "content": {question!r}}}], temperature=0)
print(reply["choices"][0]["message"]["content"])
```
"""


def how_to_run_onnx(question: str) -> str:
    """The same for an ONNX folder."""
    return f"""## How to run

With bridge-edge, the runtime of the check above (onnxruntime-genai, by `genai_config.json`):

```sh
bridge-edge run . {shlex.quote(question)}
```

The other ways were not tested here. transformers.js 4, in Node or a browser, with this folder under
`env.localModelPath` (the type and the data files stand in `config.json`):

```js
const ask = await pipeline("text-generation", "NAME-OF-THIS-FOLDER");
const messages = [{{ role: "user", content: {json.dumps(question, ensure_ascii=False)} }}];
const reply = await ask(messages, {{ max_new_tokens: 256 }});
```

Plain onnxruntime takes the graph in `onnx/`: `input_ids`, `attention_mask` over all tokens so far, and an empty
`past_key_values.*` (1, key heads, 0, head size) at first; feed each `present.*` back.
"""
