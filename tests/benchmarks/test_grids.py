"""The commands that check the bench's own claims: memory as predicted, and two runs that agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge_edge.benchmarks import memory_grid, repeat

TINY = {"vocab_size": 1_600, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}  # fmt: skip


def test_the_grid_measures_every_cell_and_sets_the_prediction_beside_it(tmp_path: Path) -> None:
    rows = memory_grid.cells(tmp_path, ["gguf"], [64, 256], {"tiny": TINY}, 1)
    assert [(r["format"], r["size"], r["context"]) for r in rows] == [("gguf", "tiny", 64), ("gguf", "tiny", 256)]
    for row in rows:
        assert row["measured_peak_bytes"] > row["libraries_bytes"] > 10 << 20
        assert row["error"] == pytest.approx(row["predicted_peak_bytes"] / row["measured_peak_bytes"] - 1)
        assert abs(row["error"]) < 0.5
    said = memory_grid.table([*rows, {**rows[0], "error": -0.3}])
    assert "of 3 within 5%, worst 30.0%" in said


def test_the_shapes_have_the_sizes_that_they_are_called() -> None:
    for name, s in memory_grid.SHAPES.items():
        head = s["hidden_size"] // s["num_attention_heads"]
        attention = s["hidden_size"] * head * 2 * (s["num_attention_heads"] + s["num_key_value_heads"])
        layer = attention + 3 * s["hidden_size"] * s["intermediate_size"]
        count = s["num_hidden_layers"] * layer + s["vocab_size"] * s["hidden_size"]
        assert count == pytest.approx(float(name.removesuffix("M")) * 1e6, rel=0.02), name


def test_agreement_counts_neighbours() -> None:
    found = repeat.agreement([(10.0, 1.0), (10.5, 0.2), (11.6, 0.3), (20.0, 0.1)])
    assert found == {"pairs": 3, "within_larger": pytest.approx(1 / 3), "within_both": pytest.approx(1 / 3)}
    assert repeat.agreement([(1.0, 0.5), (1.9, 0.5)]) == {"pairs": 1, "within_larger": 0.0, "within_both": 1.0}
    reports = [{"decode": {"tps": {"mean": m, "sd": 1.0}}, "ttft_s": None, "answer_s": None} for m in (5.0, 6.0)]
    assert repeat.spreads(reports) == {"decode, tokens/s": [(5.0, 1.0), (6.0, 1.0)]}
    assert "100%" in repeat.table({"x": repeat.agreement([(5.0, 1.0), (6.0, 1.0)])})
