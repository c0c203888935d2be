"""The area under the curve against counting pairs, and a run whose assistant missed what was hard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from bridge_edge.benchmarks.foretold import area, main
from bridge_edge.data.samples import Sample, write_jsonl


def test_the_area_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert area(scores, positive) == pytest.approx(float(np.mean(pairs)))
    assert area(scores, np.zeros(60, dtype=bool)) is None


def finished(run: Path) -> Path:
    """A run of two rounds over twelve items; the assistant missed the odd ones, and item 1 was asked."""
    pool = [Sample(f"Is {i} even?", "no" if i % 2 else "yes") for i in range(12)]
    for name in ("data", "draft", "select", "score-1", "score"):
        (run / name).mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump({
        "task": {"prompt": "{text}", "answers": ["yes", "no"]}, "data": {"path": "pool.jsonl"},
        "teacher": {"kind": "replay", "path": "said.jsonl"}, "ta": {"model": "a"}, "student": {"model": "b"},
    }))  # fmt: skip
    write_jsonl(run / "data" / "pool.jsonl", pool)
    drafts = [{"id": s.id, "text": "Answer: yes"} for s in reversed(pool)]
    more = [{"id": pool[1].id, "text": "Answer: no", "sample": 1}]  # only first drafts count
    (run / "draft" / "raw.jsonl").write_text("".join(json.dumps(d) + "\n" for d in [*drafts, *more]))
    (run / "select" / "selected.json").write_text(json.dumps([{"id": pool[1].id}]))
    np.save(run / "score-1" / "difficulty.npy", np.array([i % 2 for i in range(12)], dtype=np.float32))
    np.save(run / "score" / "difficulty.npy", np.array([0.1, 1.2, 1.1, 0.3]))
    np.save(run / "score" / "rows.npy", np.array([0, 1, 2, 5]))
    return run


def test_each_scoring_of_a_run_is_held_against_what_was_missed(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(finished(tmp_path / "run"))])
    assert done.exit_code == 0, done.output
    whole, part = json.loads(done.output.splitlines()[-1])
    assert whole == {"run": "run", "stage": "score-1", "items": 11, "missed": round(5 / 11, 4), "auc": 1.0}
    assert part == {"run": "run", "stage": "score", "items": 3, "missed": round(1 / 3, 4), "auc": 0.5}


def test_a_run_that_was_not_annotated_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    (run / "draft" / "raw.jsonl").unlink()
    done = CliRunner().invoke(main, [str(run)])
    assert done.exit_code == 2
    assert "has no draft/raw.jsonl" in done.output
