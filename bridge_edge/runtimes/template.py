"""Render a chat template the way transformers does: sandboxed Jinja, blocks trimmed, the same helper functions.

A template comes with a model and is code by another name, so it runs in Jinja's immutable sandbox and sees
nothing but the messages and the special tokens.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge_edge.errors import UserError, first_line


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(fmt: str) -> str:
    return datetime.datetime.now().strftime(fmt)


def render(template: str, prompt: str, special: Mapping[str, str]) -> str:
    """One user message framed for generation; `special` holds bos_token, eos_token and their like."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise, strftime_now=_now)
    context = {"tools": None, "documents": None, **special}
    messages = [{"role": "user", "content": prompt}]
    try:
        compiled = environment.from_string(template)
        return compiled.render(messages=messages, add_generation_prompt=True, **context)
    except Exception as error:  # a template is code of the model's maker and may raise anything
        raise UserError(
            f"the chat template of the model fails: {first_line(error)}", "mend the template and export again"
        ) from None
