"""The report: it asks for nothing, runs nothing, can be read without seeing it, and says what the run's files say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bridge_edge import chart
from bridge_edge.benchmarks.html import several, single
from bridge_edge.benchmarks.html.facts import read_facts
from bridge_edge.benchmarks.html.method import trainings
from bridge_edge.benchmarks.html.page import Page, Section, Table, render
from bridge_edge.benchmarks.html.projection import principal, selection_map
from bridge_edge.chart import Point, front
from bridge_edge.errors import UserError
from bridge_edge.evaluate import paired
from bridge_edge.reporting import keep_report, write_report
from tests.benchmarks.html_runs import HOSTILE, ITEMS, make_run, parity

RIGHT = [True, True, False, True, True, False, True, True]
WORSE = [True, False, False, True, False, False, True, True]
ADDRESSES = ("src", "href", "xlink:href", "action", "data", "srcset", "poster", "background")
VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.broken: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "toy-1", RIGHT)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return make_run(tmp_path / "toy-2", WORSE, usd=0.5)


def test_a_page_fetches_nothing_runs_nothing_and_shows_hostile_text_as_text(run: Path, other: Path) -> None:
    for page in (single.page_of(read_facts(run)), several.page_of([read_facts(run), read_facts(other)])):
        html = render(page)
        read = Reader(html)
        assert not read.broken
        assert not read.open
        assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in read.tags}
        for tag, attributes in read.tags:
            assert not [name for name in attributes if name.startswith("on")], tag
            for name in ADDRESSES:
                assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
        assert "url(" not in html.replace("url(#", "")
        assert "@import" not in html
        policy = [a["content"] for a in read.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy
        assert "default-src 'none'" in str(policy[0])
        assert HOSTILE in read.text


def test_tables_have_headers_and_figures_have_words(run: Path) -> None:
    read = Reader(render(single.page_of(read_facts(run))))
    assert len(read.of("caption")) == len(read.of("thead")) == len(read.of("table")) > 8
    scopes = Counter(attributes.get("scope") for attributes in read.of("th"))
    assert set(scopes) == {"col", "row"}
    assert scopes["row"] == len(read.of("tr")) - len(read.of("table"))
    drawings = [a for a in read.of("div") if a.get("role") == "img"]
    assert len(drawings) == len(read.of("svg")) == 3
    assert all(len(str(a["aria-label"])) > 40 for a in drawings)
    ids = [a["id"] for _, a in read.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    anchors = [str(a["href"])[1:] for a in read.of("a")]
    assert anchors
    assert set(anchors) <= set(ids)


def test_the_page_says_what_the_files_say(run: Path) -> None:
    text = " ".join(Reader(render(single.page_of(read_facts(run)))).text.split())
    for said in (
        "75.0% 37.5% to 87.5%, 8 test items",
        "2 queries of a pool of 12, $0.2500",
        "Gate of the TA: 75.0% on dev, 90% wanted: not passed.",
        "2 of 12 items were chosen (all shown, beside 10 others)",
        "TA, apprenticeship from 3 to 0.3; Student, tutoring from 2 to 0.2",
        "Annotation: 9 of 12 items kept",
        "gguf Q8_0: mean KL is too large",
        "-10.0 (-30.0 to +20.0)",
        "Not measured yet: bridge-edge bench",
    ):
        assert said in text, said
    assert "queries 4 2 50%" in text
    assert "not finished" not in text


def test_a_page_is_made_anew_only_where_the_run_has_changed(run: Path) -> None:
    page = keep_report(run, changed=False)
    assert page is not None
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    page.write_text("as it was", encoding="utf-8")
    assert keep_report(run, changed=False) == page
    assert page.read_text(encoding="utf-8") == "as it was"
    assert keep_report(run, changed=True) == page
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (run / "manifest.json").write_text("{", encoding="utf-8")
    assert keep_report(run, changed=True) is None  # and no error, since the run itself has ended well


def test_without_the_library_the_words_and_tables_remain(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Reader(render(single.page_of(read_facts(run))))
    monkeypatch.setattr(chart, "available", lambda: False)
    bare = Reader(render(single.page_of(read_facts(run))))
    assert not bare.of("svg")
    assert "bridge-edge[report]" in bare.text
    assert len(bare.of("table")) == len(whole.of("table"))
    assert "beside 10 others" in bare.text


def test_a_run_that_has_just_begun_has_a_page_too(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running", "stages": {}}))
    for part in ("score", "select", "teach", "evaluate", "export"):
        shutil.rmtree(run / part)
    text = Reader(render(single.page_of(read_facts(run)))).text
    for said in ("not finished", "Nothing has been selected yet", "The teacher has not been asked yet"):
        assert said in text


def test_exports_stand_by_size_and_accuracy(run: Path) -> None:
    (run / "export" / "onnx-int8").mkdir()
    record = {**parity("/gone/onnx-int8", size=5), "fmt": "onnx", "quant": "int8"}
    (run / "export" / "onnx-int8" / "export.json").write_text(json.dumps(record))
    text = " ".join(Reader(render(single.page_of(read_facts(run)))).text.split())
    assert "gguf Q8_0: 80.0 % at 3; onnx int8: 80.0 % at 5 (file size, MiB). Not beaten in both: gguf Q8_0." in text


def test_a_model_that_learns_often_has_a_row_for_each_time(run: Path) -> None:
    facts = read_facts(run)
    assert "apprentice-1" not in trainings(facts)
    often = {**facts.recipe, "select": {"rounds": 2}, "refine": {"rounds": 3}, "turns": {"count": 2}}
    found = list(trainings(replace(facts, recipe=often)).items())
    assert found[1:6] == [
        ("apprentice-1", "TA, apprenticeship, round 1"),
        ("apprentice", "TA, apprenticeship, round 2"),
        ("refine-1", "TA, on what it explained rightly, round 1"),
        ("refine-2", "TA, on what it explained rightly, round 2"),
        ("refine", "TA, on what it explained rightly, round 3"),
    ]
    assert ("tutor-1", "Student, tutoring, turn 1") in found


def test_scores_of_the_harness_have_their_table(run: Path) -> None:
    metrics = {"acc": {"value": 0.75, "ci95": [0.5, 0.9]}}
    report = {"artifact": {"path": "/x/m.gguf", "runtime": "gguf"}, "tasks": {"odd": {"n": 4, "metrics": metrics}}}
    (run / "lm_eval.json").write_text(json.dumps({HOSTILE: {"reports": [report]}}))
    text = " ".join(Reader(render(single.page_of(read_facts(run)))).text.split())
    assert "task metric n gguf: m.gguf odd acc 4 0.75 (0.5 to 0.9)" in text


def test_runs_are_compared_on_the_same_items(run: Path, other: Path, tmp_path: Path) -> None:
    path = write_report([run, other], tmp_path)
    assert path == tmp_path / "comparison.html"
    text = " ".join(Reader(path.read_text(encoding="utf-8")).text.split())
    found = paired(WORSE, RIGHT)
    low, high = (100 * bound for bound in found["ci95"])
    assert f"toy-2 8 {100 * found['difference']:+.1f} {low:+.1f} to {high:+.1f} 0 2" in text
    assert "budget.usd 0.5 1.0" in text
    assert "task.answers" not in text  # the same in both
    facts = read_facts(other)
    strange = replace(facts, tests={"student": {**facts.tests["student"], "records": [{"id": "x", "correct": True}]}})
    assert "other items" in Reader(render(several.page_of([read_facts(run), strange]))).text


def test_what_cannot_be_reported_is_said_in_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run at"):
        write_report([tmp_path / "none"], tmp_path)
    with pytest.raises(UserError, match="name a file in a folder that exists"):
        write_report([run], tmp_path, tmp_path / "none" / "x.html")
    (run / "evaluate" / "ta.json").write_text("{cut")
    with pytest.raises(UserError, match=r"ta\.json cannot be read"):
        write_report([run], tmp_path)
    (run / "evaluate" / "ta.json").write_text("{}")
    (run / "select" / "selected.json").write_text('[{"id": "of another pool"}]')
    with pytest.raises(UserError, match="select cannot be read"):
        write_report([run], tmp_path)


def test_the_projection_is_the_principal_plane(run: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 4)) * [3, 1, 0.1, 2]
    centre, axes, explained = principal(rows)
    moved = (rows - centre) @ axes
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(moved), np.abs(left[:, :2] * values[:2]))
    assert explained == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())
    found = selection_map(run)
    assert found is not None
    assert {k: len(points) for k, points in found.chosen.items()} == {1: 1, 2: 1}
    assert (len(found.pool), found.total) == (ITEMS - 2, ITEMS)
    assert found.hard_chosen == pytest.approx((3 + 7) / 2 / 11)


def test_only_what_no_other_beats_is_on_the_front() -> None:
    costs = {"small": (80, 1), "worse": (70, 2), "large": (90, 4), "same": (90, 5), "equal size": (85, 4)}
    points = [Point(name, value, 0, 0, x) for name, (value, x) in costs.items()]
    assert [p.label for p in front(points)] == ["small", "large"]


def test_drawings_take_the_pages_colours_and_read_no_label_as_a_formula() -> None:
    points = [Point(HOSTILE, 50, 40, 60, 1), Point("b", 70, 65, 75, 100)]
    drawings = [
        chart.intervals("i", "label", points, ("mark", 50)),
        chart.trade("t", "x", "y", points),
        chart.curves("c", "x", "y", {"$a$": [(0, 9.0), (1, 0.5)], "b": [(0, 1.0), (1, 1.0)]}),
        chart.cloud("p", np.zeros((3, 2)), {"chosen": np.ones((2, 2))}),
    ]
    for svg in drawings:
        assert not [c for c in chart.VARIABLES if c in svg]
        assert "var(--ink)" in svg
        assert "<script" not in svg
    assert "var(--c0)" in drawings[0]
    assert "1}{2}$" in "".join(Reader(drawings[1]).text)  # the end of the label, as it is
    assert chart.trade("t", "x", "y", points) == drawings[1]  # the same input, the same bytes


def test_tables_without_rows_and_sections_without_content_are_left_out() -> None:
    sections = [Section("a", "A", [Table("none", ("x",), [])]), Section("b", "B", [Table("some", ("x",), [("1",)])])]
    read = Reader(render(Page("t", "s", [], sections)))
    assert [a["id"] for a in read.of("section")] == ["b"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on the path")
def test_a_browser_has_nothing_to_say_about_it(run: Path, tmp_path: Path) -> None:
    path, log = write_report([run], tmp_path), tmp_path / "net.json"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom", path.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "var(--c0)" in done.stdout
    assert "example.org" not in re.sub(r"\s", "", log.read_text(encoding="utf-8", errors="replace"))
