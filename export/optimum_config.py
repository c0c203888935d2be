"""A checkpoint's config as transformers 4 reads it, which knows nothing of names that came with transformers 5.

Version 5 keeps all of RoPE in `rope_parameters`. Version 4 takes such a file without a word and computes with its usual
base of 10,000. So what version 5 has made of the file is written out in full, also where a value is the usual one,
which may be another in version 4, and RoPE goes back to the names of each family. Not covered: RoPE by layer type other
than Gemma 3's.
"""

from __future__ import annotations

from typing import Any

from bridge_edge.errors import UserError

# Keys that name code or the place of a file; nothing is computed with them.
LEFT_OUT = ("_name_or_path", "auto_map", "transformers_version")
# model_type -> names that its config has in version 4, where they are not the usual ones
NAMES = {"gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}}
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def older(config: dict[str, Any]) -> dict[str, Any]:
    """config.json for transformers 4 from the dictionary of a config of transformers 5."""
    told = {key: value for key, value in config.items() if key not in LEFT_OUT}
    if "dtype" in told:
        told["torch_dtype"] = told.pop("dtype")
    rope = told.pop("rope_parameters", None)
    return {**told, **_rope(str(told.get("model_type")), rope)} if rope else told


def _rope(kind: str, rope: dict[str, Any]) -> dict[str, Any]:
    """The older, flat keys."""
    flat: dict[str, Any] = {}
    if GLOBAL in rope:
        local = rope.get(LOCAL, rope[GLOBAL])
        if set(rope) - {GLOBAL, LOCAL} or local.get("rope_type", "default") != "default":
            raise _untold(kind)
        flat["rope_local_base_freq"] = local["rope_theta"]
        rope = rope[GLOBAL]
    if any(isinstance(value, dict) for value in rope.values()):
        raise _untold(kind)
    names = NAMES.get(kind, {})
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            flat[names.get(key, key)] = rope[key]
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    flat["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    return flat


def _untold(kind: str) -> UserError:
    return UserError(f"transformers 4 has no words for the RoPE of this {kind} model", "leave --backend out")
