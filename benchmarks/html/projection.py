"""Where the pool's items lie in the plane, and which of them were chosen: the two directions of most variance (PCA).

Read from what scoring and selection have kept (embeddings, ids), so nothing is stored twice and runs that were made
before have a map too. Only a sample of a large pool is read and shown; the chosen ones are shown all. Not covered:
t-SNE and the like, which draw clusters that are not there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge_edge.data.samples import read_jsonl

SHOWN = 1_500  # points of the pool in the drawing; each takes about 80 bytes
FITTED = 6_000  # rows that the directions are computed from


@dataclass(frozen=True)
class Map:
    """Points (n, 2) of the pool that are shown, points (m, 2) chosen by round, and the share of the variance."""

    pool: np.ndarray
    chosen: dict[int, np.ndarray]
    explained: float
    total: int
    hard: float
    hard_chosen: float


def selection_map(folder: Path) -> Map | None:
    """The map of a run; None where selection has not happened yet."""
    first = folder / "score-1"  # later rounds look at a part of the pool
    score = first if first.is_dir() else folder / "score"
    vectors, selected = score / "embeddings.npy", folder / "select" / "selected.json"
    if not vectors.is_file() or not selected.is_file():
        return None
    place = {sample.id: i for i, sample in enumerate(read_jsonl(folder / "data" / "pool.jsonl"))}
    rounds: dict[int, list[int]] = {}
    for row in json.loads(selected.read_text(encoding="utf-8")):
        rounds.setdefault(int(row.get("round", 1)), []).append(place[row["id"]])
    chosen = {i for rows in rounds.values() for i in rows}
    saved = np.load(vectors, mmap_mode="r")
    draw = np.random.default_rng(0)
    fitted = np.sort(draw.choice(len(saved), min(FITTED, len(saved)), replace=False))
    centre, axes, explained = principal(unit(saved[fitted]))
    rest = np.array([i for i in fitted if i not in chosen], dtype=np.int64)
    shown = np.sort(draw.choice(rest, min(SHOWN, len(rest)), replace=False))
    hard = np.load(score / "difficulty.npy", mmap_mode="r")

    def project(rows: np.ndarray) -> np.ndarray:
        return (unit(saved[rows]) - centre) @ axes  # (n, 2)

    by_round = {k: project(np.array(rows)) for k, rows in sorted(rounds.items())}
    means = float(hard.mean()), float(hard[sorted(chosen)].mean())
    return Map(project(shown), by_round, explained, len(saved), *means)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, as selection sees them."""
    wide = rows.astype(np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def principal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Centre (d,), the two directions of most variance (d, 2), and their share of it."""
    centre = rows.mean(axis=0)
    moved = rows - centre
    values, directions = np.linalg.eigh(moved.T @ moved)  # ascending
    axes = directions[:, :-3:-1]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, [0, 1]])  # the sign of a direction is arbitrary: make it repeatable
    whole = float(values.sum())
    return centre, axes, float(values[-2:].sum()) / whole if whole > 0 else 1.0
