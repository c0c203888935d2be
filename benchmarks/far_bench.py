"""pp and tg of GGUF files by llama.cpp's llama-bench, on a machine that has it and no Python, such as a phone.

    adb push llama-bench /data/local/tmp/ && adb shell chmod 755 /data/local/tmp/llama-bench
    bridge-edge bench MODEL.gguf --adb SERIAL --llama-bench /data/local/tmp/llama-bench

The program is built for the machine from llama.cpp's source, linked statically (its `docs/android.md`). Its lines
become reports of the one schema that hold what llama-bench measures and null for the rest: no answers, no accuracy, no
memory. It measures file after file, not in turns, and does not watch the machine, so its figures are never publishable.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_edge.benchmarks.bench import SCHEMA, sizes
from bridge_edge.benchmarks.field import Test, Timed
from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.benchmarks.request import FIELD_PP, FIELD_TG
from bridge_edge.errors import Failures, UserError
from bridge_edge.runtimes.load import kind_of

WHY = ("llama-bench does not say how busy the machine was", "files were measured one after another")


def files(names: dict[str, Path], failures: Failures) -> dict[str, Path]:
    """The GGUF files among the artifacts, by their names there."""
    found = {}
    for name, path in names.items():
        with failures.of(path):
            kind, file = kind_of(path)
            if kind != "gguf":
                raise UserError(f"llama-bench cannot run {kind}", "bench a .gguf: bridge-edge export --format gguf")
            found[name if file == path else f"{name}/{file.name}"] = file
    return found


def script(program: str, names: Sequence[str], options: BenchOptions) -> str:
    """Shell lines that measure each file; what fails is a line of JSON as well."""
    lists = {
        "-p": options.prompt_tokens or FIELD_PP,
        "-n": options.generate_tokens or FIELD_TG,
        "-d": options.depths,
        "-t": options.sweep,  # where none are named, its own default: this machine's cores say nothing of that one's
    }
    words = [word for name, values in lists.items() if values for word in (name, ",".join(map(str, values)))]
    command = shlex.join([program, "-o", "jsonl", "-r", str(options.repetitions), *words])
    return "\n".join(
        f'{command} -m {shlex.quote(name)} || echo "{{\\"failed\\": {k}, \\"code\\": $?}}"'
        for k, name in enumerate(names)
    )


def answer(lines: Sequence[str], names: dict[str, Path], options: BenchOptions, where: str) -> dict[str, Any]:
    """llama-bench's lines as the runner would answer: reports, and what failed."""
    rows, failed = [], []
    for line in lines:
        try:
            row = json.loads(line)
            if "failed" in row:
                name, why = list(names)[row["failed"]], f"llama-bench ended with {row['code']}"
                failed.append({"artifact": name, "error": why, "hint": f"run it on {where} to see why"})
            else:
                rows.append((row["model_filename"], row["n_threads"], timed(row), row["cpu_info"]))
        except (ValueError, KeyError, TypeError, IndexError):
            continue  # a line of a library
    subjects = dict.fromkeys((name, threads) for name, threads, _, _ in rows if name in names)
    reports = []
    for name, threads in subjects:
        tests = [test.report() for n, t, test, _ in rows if (n, t) == (name, threads)]
        cpu = next(cpu for n, _, _, cpu in rows if n == name)
        others = [n for n, t in subjects if (n, t) != (name, threads)]
        reports.append(report(name, names[name], {"threads": threads, "others": others, "cpu": cpu}, tests, options))
    return {"reports": reports, "failed": failed}


def timed(row: dict[str, Any]) -> Timed:
    """A line as one of our tests with its repetitions."""
    kind, tokens = ("tg", row["n_gen"]) if row["n_gen"] else ("pp", row["n_prompt"])
    return Timed(Test(kind, tokens, row["n_depth"]), [ns / 1e9 for ns in row["samples_ns"]])


def report(
    name: str, file: Path, setting: dict[str, Any], tests: list[dict[str, Any]], options: BenchOptions
) -> dict[str, Any]:
    """A report of the schema of `bench` with pp and tg alone."""
    protocol = {"repetitions": options.repetitions, "warmup": 1, "prompts": 0, "prompt_tokens": 0.0,
                "max_new_tokens": 0, "threads": setting["threads"],
                "compared_with": list(dict.fromkeys(setting["others"]))}  # fmt: skip
    nothing = dict.fromkeys(
        ("load", "ttft_s", "inter_token_s", "answer_s", "answer_tokens", "sustained", "memory", "quality")
    )
    return {
        "schema": SCHEMA,
        "artifact": {**sizes(file), "path": name, "runtime": "gguf", "context_length": None},
        "protocol": protocol,
        **nothing,
        "prefill": {},
        "prefill_skipped": [],
        "decode": {"tps": None, "tokens": 0, "at_once": 0},
        "field": tests,
        "field_skipped": [],
        "environment": {"cpu": setting["cpu"], "usable_cores": None, "measured_by": "llama-bench"},
        "contention": {"reasons": list(WHY), "repeated": []},
        "publishable": False,
        "reasons": list(WHY),
    }
