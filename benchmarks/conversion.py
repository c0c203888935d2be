"""What does it take to export half a billion parameters: time, peak memory, size, beside llama.cpp's own converter?

    python -m bridge_edge.benchmarks.conversion --folder FOLDER [--llama-cpp SOURCE] [--parity 200] [--only onnx]

The checkpoint has the shape of Qwen2.5-0.5B with random weights in bfloat16 and the tokenizer of the embedded student,
so nothing is downloaded; sizes depend on the shape alone. Each conversion runs in a fresh process, which gives its own
peak memory and processor time; the latter is what to compare on a machine with other work. llama.cpp's converter knows
tokenizers by a hash and is told the name of ours. `--parity` exports again with the usual checks on so many short
prompts, two new tokens each, since random weights have nothing to say. Not covered: accuracy, which they do not have.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError

SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4_864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}
# Children import what they measure; this package imports nothing of export.
GGUF = "from bridge_edge.export.gguf_writer import write_gguf as f; f(Path(a[0]), Path(a[1]), 'F16', 'bench')"
ONNX = """
from bridge_edge.export.onnx_export import make_onnx as f
from bridge_edge.export.wish import Blocks
Path(a[1]).mkdir()
f(Path(a[0]), Path(a[1]), "int4", Blocks(algorithm=a[2] or None))
"""
PARITY = """
from bridge_edge.export.api import export_student as f
asked = [f"Is {n} more than {(n * 37) % 200}?" for n in range(int(a[4]))]
made = f(Path(a[0]), Path(a[1]), a[2], a[3], asked, 1)
shown = ("prompts", "tokens", "mean_kl", "max_abs_diff", "top1", "greedy_equal", "passed")
print(json.dumps({k: made.parity[k] for k in shown}))
"""
THEIRS = """
import runpy, types
sys.path[:0] = [a[0], a[0] + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.modules["sentencepiece"] = types.SimpleNamespace(SentencePieceProcessor=None, __spec__=None)
sys.argv = ["convert", *a[1:]]
runpy.run_path(a[0] + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def make_checkpoint(folder: Path, shape: dict[str, Any] = SHAPE) -> None:
    """Write the random checkpoint, unless it stands there whole."""
    if (folder / "config.json").is_file():
        return
    from importlib import resources

    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    from bridge_edge.data.card import Card
    from bridge_edge.runtimes.torch_runtime import load_tokenizer

    torch.manual_seed(0)
    tokenizer = load_tokenizer(Path(str(resources.files("bridge_edge.embedded") / "models" / "student")))
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = AutoModelForCausalLM.from_config(Qwen2Config(**shape, **ends), dtype=torch.bfloat16)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    Card("bench", max_new_tokens=2).save(partial)
    partial.replace(folder)


def measure(code: str, words: Sequence[str]) -> dict[str, Any]:
    """Run a conversion in a fresh process: seconds, processor seconds, peak memory in bytes, its last line."""
    head = "import json, sys\nfrom pathlib import Path\na = sys.argv[1:]\n"
    before = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", head + code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise UserError(f"a conversion ended with {child.returncode}: {printed.strip()[-400:]}", "see its message")
    return {
        "seconds": round(time.perf_counter() - before, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(used.ru_maxrss / 1024),
        "last": (printed.strip().splitlines() or [""])[-1],
    }


def size_of(path: Path) -> int:
    """Bytes of a file, or of the graph and its data in an ONNX folder."""
    files = [path] if path.is_file() else list((path / "onnx").iterdir())
    return sum(file.stat().st_size for file in files)


def run(folder: Path, llama_cpp: Path | None, parity: int, only: str | None, algorithm: str) -> list[dict[str, Any]]:
    """All measurements, or those of one format, each in its turn."""
    checkpoint = folder / "checkpoint"
    make_checkpoint(checkpoint)
    work = folder / "out"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    todo: list[tuple[str, str, list[str], Path | None]] = [
        ("GGUF F16", GGUF, [str(checkpoint), str(work / "ours.gguf")], work / "ours.gguf"),
        ("ONNX int4", ONNX, [str(checkpoint), str(work / "onnx"), algorithm], work / "onnx"),
    ]
    if llama_cpp is not None:
        target = work / "theirs.gguf"
        words = [str(llama_cpp), str(checkpoint), "--outfile", str(target), "--outtype", "f16"]
        todo.insert(1, ("GGUF F16, llama.cpp's converter", THEIRS, words, target))
    for fmt, quant in (("gguf", "F16"), ("onnx", "int4")) if parity else ():
        words = [str(checkpoint), str(work / f"parity-{fmt}"), fmt, quant, str(parity)]
        todo.append((f"{fmt} {quant}, with its checks", PARITY, words, None))
    rows = []
    for name, code, words, made in todo:
        if only and not name.lower().startswith(only):
            continue
        row = {"name": name, **measure(code, words)}
        if made is not None:
            row["mib"] = round(size_of(made) / 2**20, 1)
        rows.append(row)
        click.echo(
            f"{name:<34} {row['seconds']:>8.1f} s {row['cpu_seconds']:>8.1f} CPU s "
            f"{row['peak_mib']:>6} MiB peak {row.get('mib', ''):>8}{' MiB' if 'mib' in row else row['last']}"
        )
    shutil.rmtree(work, ignore_errors=True)
    return rows


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Room for 4 GB; the checkpoint stays.")
@click.option("--llama-cpp", type=click.Path(exists=True, path_type=Path), default=None, help="Its source folder.")
@click.option(
    "--parity", type=click.IntRange(0, 200), default=0, show_default=True, help="Short prompts for the checks."
)
@click.option("--only", type=click.Choice(["gguf", "onnx"]), default=None, help="One format.")
@click.option("--algorithm", default="", help="Of ONNX int4, e.g. k_quant.  [default: by size]")
def main(folder: Path, llama_cpp: Path | None, parity: int, only: str | None, algorithm: str) -> None:
    """Print a line for each conversion and one JSON line last."""
    quiet_environment()
    rows = run(folder.absolute(), llama_cpp.absolute() if llama_cpp else None, parity, only, algorithm)
    click.echo(json.dumps({"shape": SHAPE, "load": os.getloadavg()[0], "rows": rows}))


if __name__ == "__main__":
    main()
