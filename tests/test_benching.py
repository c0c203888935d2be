from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bridge_edge.bench_store import keep
from bridge_edge.benching import bench_models, pinned
from bridge_edge.benchmarks import report
from bridge_edge.benchmarks.devices import device
from bridge_edge.benchmarks.request import Request, numbers, options_of
from bridge_edge.cli import cli
from bridge_edge.errors import UserError
from bridge_edge.reporting import write_report
from tests import tiny
from tests.benchmarks.html_runs import make_run


def test_lists_of_numbers() -> None:
    assert numbers("512, 128,512", "--depth") == (512, 128)
    assert numbers("", "--depth") == ()
    assert numbers("0,4", "--depth", least=0) == (0, 4)
    for text in ("0", "a", "1.5", "-3"):
        with pytest.raises(UserError, match="--threads"):
            numbers(text, "--threads")


def test_a_depth_alone_brings_the_fields_lengths() -> None:
    assert options_of(Request()).prompt_tokens == ()
    found = options_of(Request(depth="0,256", threads="1,2"))
    assert (found.prompt_tokens, found.generate_tokens, found.depths) == ((512,), (128,), (0, 256))
    assert found.thread_counts == (1, 2)
    assert options_of(Request(generate_tokens="16")).prompt_tokens == ()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_pinning_ends_with_the_work() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
    with pytest.raises(UserError, match="cannot pin 4096"), pinned(4096):
        pass


def test_what_makes_no_sense_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for request, said in (
        (Request(context=True), "add --memory-cap"),
        (Request(memory_cap="much"), "--memory-cap is 'much'"),
        (Request(constrained=True), "add --device"),
        (Request(host="pi@board", think="16"), "--think does not go with --host"),
        (Request(adb="0123", pin=True), "--pin does not go with --adb"),
        (Request(adb="0123", host="pi@board"), "two machines"),
        (Request(llama_bench="/data/local/tmp/llama-bench"), "add --adb SERIAL"),
        (Request(lm_eval="task", host="pi@board"), "neither --host, --adb nor --data"),
        (Request(device="pi-5"), "did you mean 'pi5'"),
        (Request(device="pi5", models=(str(tmp_path / "none"),)), "no model at"),
    ):
        with pytest.raises(UserError, match=said):
            bench_models(request)


def test_a_device_is_predicted_from_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.checkpoint(tmp_path / "model")
    monkeypatch.setattr("bridge_edge.benching.load_runtime", None)  # nothing may be loaded
    found, text = bench_models(Request(models=(str(model),), device="pi5", depth="0,256"))
    assert [f["depth"] for f in found] == [0, 256]
    assert {f["label"] for f in found} == {"predicted"}
    assert "predicted" in text
    with pytest.raises(UserError, match="beyond the context"):
        bench_models(Request(models=(str(model),), device="pi5", depth="257"))


def test_what_fails_beside_others_is_a_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tiny.checkpoint(tmp_path / "good"), tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    items = tmp_path / "items.jsonl"
    items.write_text('{"text": "Is 7 odd?", "answer": "yes"}\n', encoding="utf-8")
    words = [f"--data={items}", "--repetitions=1", "--threads=1", "--retries=0", "--json", "--think=4"]
    code = cli.main(["bench", str(bad), str(good), *words], standalone_mode=False)
    printed = capsys.readouterr()
    found = json.loads(printed.out.splitlines()[-1])
    assert code == 2
    assert [r["artifact"]["path"] for r in found["reports"]] == [str(good)]
    assert found["reports"][0]["thinking"]["budgets"][0]["n"] == 1
    assert [r["artifact"] for r in found["failed"]] == [str(bad)]
    (line,) = [line for line in printed.err.splitlines() if line.startswith("bridge-edge: ")]
    assert line == f"bridge-edge: {bad}: {found['failed'][0]['error']}"
    code = cli.main(["bench", str(bad), str(good), "--device=pi5", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 2
    assert ([r["artifact"] for r in found["reports"]], found["failed"][0]["artifact"]) == ([str(good)], str(bad))
    with pytest.raises(UserError, match=re.escape(str(bad))):  # alone it is an error
        cli.main(["bench", str(bad), *words], standalone_mode=False)


def test_a_model_beyond_the_cap_is_a_line_and_keeps_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was said nowhere but in the JSON, with exit code 0."""
    model, items = tiny.checkpoint(tmp_path / "good"), tmp_path / "items.jsonl"
    items.write_text('{"text": "Is 7 odd?", "answer": "yes"}\n', encoding="utf-8")
    words = [f"--data={items}", "--repetitions=1", "--threads=1", "--retries=0", "--json", "--memory-cap"]
    assert not cli.main(["bench", str(model), *words, "8G"], standalone_mode=False)
    capsys.readouterr()
    assert cli.main(["bench", str(model), *words, "20M"], standalone_mode=False) == 2
    printed = capsys.readouterr()
    (found,) = json.loads(printed.out.splitlines()[-1])["reports"]
    assert (found["memory"]["within_cap"], found["memory"]["cap_bytes"]) == (False, 20 << 20)
    assert found["memory"]["predicted"]["predicted_peak_bytes"] > 0
    (line,) = [line for line in printed.err.splitlines() if line.startswith("bridge-edge: ")]
    assert re.search(r"its peak of \d+\.\d MiB is beyond the cap of 20\.0 MiB; raise --memory-cap, or ", line)


def test_a_device_that_is_too_small_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, items = tmp_path / "model", tmp_path / "items.jsonl"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    items.write_text('{"prompt": "Is 7 odd?", "answer": "yes"}\n', encoding="utf-8")
    small = replace(device("pi5"), app_memory_gb=0.2)
    monkeypatch.setattr("bridge_edge.benchmarks.devices.device", lambda name: small)
    monkeypatch.setattr("bridge_edge.benchmarks.constrained.make_group", lambda limits: None)
    request = Request(models=(str(model),), files=(items,), device="pi5", constrained=True)
    found, text = bench_models(request)  # importing torch alone takes more than 200 MB
    assert found[0]["oom"], found[0]["said"]
    assert found[0]["report"] is None
    assert "OUT OF MEMORY under 200 MB" in text


def test_figures_are_kept_in_the_run_that_was_measured(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("manifest.json", "recipe.yaml"):
        (run / name).write_text("{}", encoding="utf-8")
    inside, outside = ({"artifact": {"path": str(where / "m.gguf")}} for where in (run / "export", tmp_path))
    keep("this machine", [inside, outside])
    keep("a board", [inside])
    keep("a board", [outside])  # nothing of this run: what it has stays
    kept = json.loads((run / "bench.json").read_text(encoding="utf-8"))
    assert {place: entry["reports"] for place, entry in kept.items()} == {"this machine": [inside], "a board": [inside]}
    assert not (tmp_path / "bench.json").exists()


def test_a_measured_run_tells_of_it_in_its_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "toy-1", [True, False])
    shutil.rmtree(run / "export")
    model = tiny.checkpoint(run / "tutor")
    items = tmp_path / "items.jsonl"
    items.write_text('{"text": "Is 7 odd?", "answer": "yes"}\n', encoding="utf-8")
    request = Request(models=(str(model),), files=(items,), repetitions=1, threads="1", retries=0, think="4,8")
    bench_models(replace(request, keep=False))
    assert not (run / "bench.json").exists()
    reports, _ = bench_models(request)
    text = write_report([run], tmp_path).read_text(encoding="utf-8")
    assert "Measured on this machine" in text
    assert "At budgets of reasoning, on this machine" in text  # which it refused
    assert "Not measured yet" not in text
    assert str(report.spread(reports[0]["decode"]["tps"])) in text
    kept = json.loads((run / "bench.json").read_text(encoding="utf-8"))
    kept["this machine"]["reports"][0]["schema"] = 1
    (run / "bench.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(UserError, match="measure again"):
        write_report([run], tmp_path)
