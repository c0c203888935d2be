"""The pretraining command: it resumes, it shares Muon's work between processes, and what it writes loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from bridge_edge.embedded import pretrain
from bridge_edge.embedded.training import config
from bridge_edge.train.models import locate

BASE = locate("embedded:student")


def run(out: Path, *words: str) -> str:
    common = ["--tokenizer", BASE, "--out", str(out), "--micro", "512", "--lr", "1e-3"]
    done = CliRunner().invoke(pretrain.main, ["train", "student", *common, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_stopped_training_goes_on_where_it_was_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    words = ("--tokens", "2048", "--workers", "1", "--save-every", "1")
    run(tmp_path / "whole", *words)
    run(tmp_path / "halves", *words, "--until", "2")
    assert torch.load(tmp_path / "halves" / "state.pt", weights_only=True)["state"]["step"] == 2
    run(tmp_path / "halves", *words)
    record = json.loads((tmp_path / "halves" / "pretraining.json").read_text())
    assert (record["step"], record["tokens"]) == (4, 2048)
    whole, halves = (AutoModelForCausalLM.from_pretrained(tmp_path / d).state_dict() for d in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_it_starts_from_a_base_and_counts_its_tokens(tmp_path: Path) -> None:
    run(tmp_path, "--tokens", "512", "--workers", "1", "--init", BASE)
    record = json.loads((tmp_path / "pretraining.json").read_text())
    former = json.loads((Path(BASE) / "pretraining.json").read_text())
    assert record["former_tokens"] == former["tokens"] + former.get("former_tokens", 0)
    assert record["loss"] < 3  # a base that was trained, not noise, which starts at log(1536) = 7.3


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_workers_hand_each_other_weights_and_momentum(tmp_path: Path) -> None:
    run(tmp_path, "--tokens", "3072", "--workers", "2", "--save-every", "3")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["state"]["step"] == 3
    for half in saved["optimizer"][:2]:
        buffers = [state["momentum_buffer"] for state in half["state"].values()]
        assert buffers
        assert all(buffer.abs().sum() > 0 for buffer in buffers)
    fresh = Qwen2ForCausalLM(config(3))
    fresh.load_state_dict(saved["model"])


def test_a_grown_model_computes_what_the_small_one_does(tmp_path: Path) -> None:
    run(tmp_path / "student", "--tokens", "512", "--workers", "1")
    done = CliRunner().invoke(pretrain.main, ["grow", str(tmp_path / "student"), str(tmp_path / "ta")])
    assert done.exit_code == 0, done.output
    small, large = Qwen2ForCausalLM(config(3)), Qwen2ForCausalLM(config(6))
    small.load_state_dict(torch.load(tmp_path / "student" / "state.pt", weights_only=True)["model"])
    large.load_state_dict(torch.load(tmp_path / "ta" / "state.pt", weights_only=True)["model"])
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        assert torch.allclose(small(ids).logits, large(ids).logits, atol=1e-4)
