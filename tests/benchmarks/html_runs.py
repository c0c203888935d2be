"""A run's folder written by hand, as small as a report can be made of, with text in it that means harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bridge_edge.data.samples import Sample, write_jsonl

HOSTILE = "<script>alert(1)</script><img src=http://example.org/x onerror=alert(2)>\"'&amp; $\\frac{1}{2}$"
ITEMS = 12


def scores(right: list[bool]) -> dict[str, Any]:
    """As the evaluation stores them, of items named by their place."""
    share = sum(right) / len(right)
    records = [{"id": f"item{i}", "correct": mark} for i, mark in enumerate(right)]
    part = {"n": len(right), "accuracy": share, "ci95": [share / 2, (1 + share) / 2], "balanced_accuracy": share,
            "majority": 0.5, "parse_failure_rate": 0.0, "mean_completion_tokens": 7.0}  # fmt: skip
    return {**part, "per_task": {HOSTILE: part, "plain": part}, "records": records}


def stage(name: str, start: float, **metrics: Any) -> dict[str, Any]:
    return {"key": "a" * 64, "output": "b" * 64, "version": 1, "started": start, "seconds": 2.0, "metrics": metrics}


def parity(path: str, size: int = 3) -> dict[str, Any]:
    accuracy = {"n": 9, "accuracy_a": 0.9, "accuracy_b": 0.8, "difference": 0.1, "ci95": [-0.2, 0.3]}
    found = {"mean_kl": 0.004, "top1": 0.99, "greedy_equal": 0.95, "accuracy": accuracy, "passed": False,
             "failures": ["mean KL is too large"]}  # fmt: skip
    return {"path": path, "fmt": "gguf", "quant": "Q8_0", "bytes": size << 20, "bits_per_weight": 8.5,
            "fallbacks": ["t"], "parity": found}  # fmt: skip


def curve(first: float) -> dict[str, Any]:
    return {"steps": 40, "tokens": 900, "loss": first / 10, "examples": 5, "tokens_per_second": 30.0,
            "curve": [[1, first], [20, first / 5], [40, first / 10]]}  # fmt: skip


def make_run(folder: Path, right: list[bool], usd: float = 0.25, finished: bool = True) -> Path:
    """A run whose student has these test items right."""
    for part in ("data", "score", "select", "teach", "evaluate", "export/gguf-q8_0"):
        (folder / part).mkdir(parents=True)
    pool = [Sample(f"question {i}", "yes") for i in range(ITEMS)]
    write_jsonl(folder / "data" / "pool.jsonl", pool)
    write_jsonl(folder / "teach" / "taught.jsonl", [Sample(HOSTILE, HOSTILE, HOSTILE)])
    np.save(folder / "score" / "difficulty.npy", np.linspace(0, 1, ITEMS))
    np.save(folder / "score" / "embeddings.npy", np.random.default_rng(0).normal(size=(ITEMS, 5)).astype(np.float16))
    chosen = [{"id": pool[i].id, "rank": k, "difficulty": 0.5, "round": k + 1} for k, i in enumerate((3, 7))]
    (folder / "select" / "selected.json").write_text(json.dumps(chosen))
    for name in ("ta", "student", "baseline"):
        (folder / "evaluate" / f"{name}.json").write_text(json.dumps(scores(right)))
    (folder / "export" / "gguf-q8_0" / "export.json").write_text(json.dumps(parity("/gone/m.gguf")))
    teach = {"teacher": HOSTILE, "queries": 2, "tokens": 300, "usd": usd, "usable": 2, "unparsed": 0}
    stages = {
        "teach": stage("teach", 2, **teach),
        "data": stage("data", 1, pool=ITEMS, dev=3, test=len(right), source=HOSTILE, sha256={"test": "c" * 64}),
        "apprentice": stage("apprentice", 3, **curve(3.0), dev={"accuracy": 0.75}, gate_passed=False),
        "annotate": stage("annotate", 4, kept=9, pool=ITEMS, filters=[{"name": HOSTILE, "removed": 3}]),
        "tutor": stage("tutor", 5, **curve(2.0)),
    }
    manifest = {"schema": 1, "recipe": HOSTILE, "scale": "embedded", "digest": "d" * 10, "version": "0", "created": 1e9,
                "environment": {"cores": 2, "packages": {"numpy": "2"}}, "stages": stages,
                "status": "finished" if finished else "running"}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    recipe = {"name": "toy", "description": f"{HOSTILE} {usd}", "seed": 0, "task": {"answers": ["yes", HOSTILE]},
              "teacher": {"kind": "replay", "model": "m"}, "ta": {"model": "t"}, "student": {"model": "s"},
              "select": {"strategy": "bridge", "difficulty": "loss"}, "gate": {"accuracy": 0.9},
              "budget": {"usd": 2 * usd, "queries": 4, "tokens": None}}  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return folder
