"""The bare loops do the same work as our sessions, and llama-bench's figures are read by name; no time is asserted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bridge_edge.benchmarks import field, reference
from bridge_edge.errors import UserError
from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.export.onnx_export import make_onnx
from bridge_edge.runtimes.load import load_runtime
from tests import tiny


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reference")
    write_gguf(tiny.checkpoint(place / "m"), place / "m.gguf", "F16", "toy")
    return place / "m.gguf"


def test_the_bare_loop_of_llama_cpp_ends_in_the_same_logits(gguf: Path) -> None:
    from bridge_edge.runtimes.llama_native import native

    runtime: Any = load_runtime(gguf, 1)
    ids = runtime.encode(reference.WORDS)[:40]
    wanted = runtime.logits(ids)[-1]
    session = reference.BareGGUF(runtime, 64)
    session.feed(ids[:30])
    for token in ids[30:]:
        session.feed([token])
    rows = native.llama_get_logits_ith(runtime._context, -1)
    found = np.ctypeslib.as_array(rows, shape=(runtime.vocab_size,))
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    assert found.argmax() == wanted.argmax()
    assert session.length == 40


def test_the_bare_loop_of_genai_generates_what_stream_does(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m")
    (tmp_path / "out").mkdir()
    make_onnx(folder, tmp_path / "out", "fp32")
    runtime: Any = load_runtime(tmp_path / "out", 1)
    ids = runtime.encode(reference.WORDS)[:20]
    session = reference.BareONNX(runtime, 28)
    session.feed(ids)
    for _ in range(8):
        session.feed([0])
    generated = session.generator.get_sequence(0)[20:].tolist()
    streamed = list(runtime.stream(ids, 8))  # ends at an end token, which the bare loop may not choose
    assert streamed
    assert generated[: len(streamed)] == streamed
    assert len(generated) == 8
    rows = reference.compare(runtime, field.tests([16], [4], [0]), 1)
    assert rows.keys() == {"pp16@d0", "tg4@d0"}
    assert all(set(by) == {"ours", "bare"} for by in rows.values())


def program(place: Path, text: str, code: int = 0) -> Path:
    path = place / "llama-bench"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_the_command_shows_all_three(gguf: Path, tmp_path: Path) -> None:
    rows = [{"n_prompt": 16, "n_gen": 0, "avg_ts": 800.0}, {"n_prompt": 0, "n_gen": 4, "avg_ts": 100.5}]
    words = [str(gguf), "--llama-bench", str(program(tmp_path, json.dumps(rows)))]
    words += ["--prompt-tokens", "16", "--generate-tokens", "4", "--repetitions", "1"]
    done = CliRunner().invoke(reference.main, words)
    assert done.exit_code == 0, done.output
    last = json.loads(done.output.splitlines()[-1])
    assert last["tests"]["tg4@d0"]["llama-bench"] == 100.5
    assert last["tests"]["pp16@d0"].keys() == {"ours", "bare", "llama-bench"}


@pytest.mark.parametrize(("text", "code"), [("not JSON", 0), ('[{"n_gen": 4}]', 0), ("[]", 3), ("7", 0)])
def test_a_program_without_figures_is_named(text: str, code: int, gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="llama-bench gave no figures"):
        reference.llama_bench(program(tmp_path, text, code), gguf, field.tests([16], [4], [0]), 1, 1)
