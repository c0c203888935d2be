"""The schema of a benchmark report, one for all runtimes: unknown and missing fields are errors.

    python -m bridge_edge.benchmarks.schema                  print it as JSON Schema
    python -m bridge_edge.benchmarks.schema report.json ...  check reports (what `bridge-edge bench --json` printed)

`SCHEMA` in `bench` is its version and rises when a field is taken away or changes its meaning. `bench` documents the
fields. Parts that other modules own and document (quality, memory, contention) are open here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bridge_edge.errors import UserError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Summary(Strict):
    """Of repeated measurements: percentiles are linear between neighbours."""

    n: int
    mean: float
    sd: float
    p50: float
    p95: float
    p99: float


class ArtifactFacts(Strict):
    path: str
    bytes: int
    weight_bytes: int
    runtime: str
    context_length: int | None


class Protocol(Strict):
    repetitions: int
    warmup: int
    prompts: int
    prompt_tokens: float
    max_new_tokens: int
    threads: int
    compared_with: list[str]


class Load(Strict):
    first_s: float
    again_s: float


class Prefill(Strict):
    tps: Summary
    seconds: Summary


class Decode(Strict):
    tps: Summary | None
    tokens: int
    at_once: int


class FieldTest(Strict):
    """pp or tg at a length and a depth; `inter_token_s` is null for pp."""

    test: str
    kind: Literal["pp", "tg"]
    tokens: int
    depth: int
    tps: Summary
    seconds: Summary
    inter_token_s: Summary | None


class Sustained(Strict):
    runs: int
    prompt_tokens: int
    generate_tokens: int
    seconds: float
    pp_tps: Summary
    tg_tps: Summary
    tg_by_run: list[float]
    burst_tg_tps: float
    sustained_tg_tps: float
    kept_share: float


class Report(Strict):
    """One artifact with one thread count."""

    # "schema" is a name that pydantic's own base class uses.
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    artifact: ArtifactFacts
    protocol: Protocol
    load: Load | None
    prefill: dict[str, Prefill]
    prefill_skipped: list[int]
    decode: Decode
    ttft_s: Summary | None
    inter_token_s: Summary | None
    answer_s: Summary | None
    answer_tokens: Summary | None
    field: list[FieldTest]
    field_skipped: list[str]
    sustained: Sustained | None
    memory: dict[str, Any] | None
    quality: dict[str, Any] | None
    thinking: dict[str, Any] | None = None  # only where budgets of reasoning were asked for
    environment: dict[str, Any]
    contention: dict[str, Any]
    publishable: bool
    reasons: list[str]


def json_schema() -> dict[str, Any]:
    """The JSON Schema, version included."""
    from bridge_edge.benchmarks.bench import SCHEMA

    found = Report.model_json_schema()
    found["properties"]["schema"] = {"const": SCHEMA, "type": "integer"}
    found["required"] = ["schema", *found["required"]]
    return found


def check(report: dict[str, Any], name: str = "report") -> Report:
    """The report as a typed object; a UserError that names every field which is wrong."""
    from bridge_edge.benchmarks.bench import SCHEMA

    version = report.get("schema")
    if version != SCHEMA:
        raise UserError(f"{name} has schema {version!r}, not {SCHEMA}", "measure again with this version")
    try:
        return Report.model_validate({k: v for k, v in report.items() if k != "schema"})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"{name} is no benchmark report: {wrong}", "measure again with `bridge-edge bench`") from None


def main(arguments: Sequence[str]) -> int:
    """Print the schema, or check files of reports."""
    if not arguments:
        print(json.dumps(json_schema(), indent=2))
        return 0
    try:
        for name in arguments:
            found = _read(name)
            for report in found.get("reports", [found]):
                check(report, name)
            print(f"{name}: sound")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _read(name: str) -> dict[str, Any]:
    """The JSON object that is a file's last line, or the whole file."""
    try:
        text = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {name}: {error}", "name a file that `bridge-edge bench --json` wrote") from None
    for part in (text, text.splitlines()[-1] if text else ""):
        try:
            found = json.loads(part)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise UserError(f"{name} holds no JSON object", "name a file that `bridge-edge bench --json` wrote")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
