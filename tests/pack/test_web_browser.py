"""The web app in a real browser: refuses a changed model, answers as Python does, survives a broken update offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bridge_edge.benchmarks import chromium
from bridge_edge.benchmarks.chromium import Browser
from bridge_edge.benchmarks.web import ask, ready, served
from bridge_edge.data.card import Card
from bridge_edge.errors import UserError
from bridge_edge.pack import HISTORY, PackOptions, open_artifact, pack_to
from bridge_edge.pack.web import release
from bridge_edge.parcel import SUMS, write_sums
from bridge_edge.student import Student
from bridge_edge.train.models import locate
from tests import tiny

MISSING = [name for name, there in (("Chromium", chromium.find()), ("npm", shutil.which("npm"))) if not there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}")
BUDGET = 5
VERSION = "fetch('version').then((r) => r.text())"
LOOK = "navigator.serviceWorker.getRegistration().then((r) => r.update()).then(() => true, () => true)"  # for an update
KEYBOARD = """async () => {
  const at = (id) => document.getElementById(id);
  at("question").value = "Is it so?";
  at("ask").focus();
  at("form").requestSubmit();
  const during = document.activeElement.id;
  while (at("ask").disabled) await new Promise((resolve) => setTimeout(resolve, 50));
  return [during, document.activeElement.id];
}"""  # who has the focus while it answers, and then


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base of students, told that it knows budgets, as GGUF: a model that writes words."""
    from bridge_edge.export.quantize import make_gguf

    folder = tmp_path_factory.mktemp("student")
    shutil.copytree(locate("embedded:student"), folder / "torch")
    Card("toy", "{text} Yes or no?", (), 16, tiny.PROMPTS, {"think": [BUDGET]}).save(folder / "torch")
    (folder / "gguf").mkdir()
    make_gguf(folder / "torch", folder / "gguf" / "m.gguf", "Q8_0", "toy")
    write_sums(folder / "gguf")
    return folder / "gguf"


@pytest.fixture
def app(export: Path, tmp_path: Path) -> Path:
    try:
        pack_to("web", open_artifact(str(export), tmp_path), tmp_path / "app", PackOptions())
    except UserError as error:
        pytest.skip(f"the engine cannot be fetched: {error.message}")
    return tmp_path / "app"


def damage(path: Path) -> bytes:
    """Flip the last byte; what the file held before."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return whole


def update(app: Path) -> str:
    """Change the page as a second packing would; the new version."""
    (app / "style.css").write_text("body { color: red }")
    for name in (SUMS, "sw.js", HISTORY):
        (app / name).unlink()
    write_sums(app)
    version = release(app)
    (app / HISTORY).write_text(json.dumps([{"version": version, "changed": ["changed style.css"]}]))
    return version


def test_the_app_from_its_first_load_to_a_broken_update(app: Path, export: Path) -> None:
    model = app / "model" / "m.gguf"
    with Browser() as browser:
        with served(app, isolated=False) as origin:
            whole = damage(model)
            browser.open(origin)
            with pytest.raises(UserError, match=r"model/m\.gguf is not the file that was packed"):
                ready(browser)

            model.write_bytes(whole)
            browser.open(origin)
            assert ready(browser) == {"threads": 1, "isolated": False}
            with Student.load(export, 1) as student:
                for question in tiny.PROMPTS:
                    for budget in (None, BUDGET):
                        got, wanted = ask(browser, question, budget), student.answer(question, budget)
                        assert (got["text"], got["answer"]) == (wanted.text, wanted.answer)
                        assert (got["thought"], bool(got["closed"])) == (wanted.thought, bool(wanted.closed))
            version = browser.evaluate(VERSION)
            assert browser.outside(origin) == []
            assert browser.evaluate("[...document.getElementById('budget').options].map((o) => o.value)") == ["", "5"]
            assert browser.evaluate(f"({KEYBOARD})()") == ["stop", "ask"]
            with pytest.raises(UserError, match="too long for this model"):
                ask(browser, "no " * 3000, None)

            assert update(app) != version
            damage(app / "style.css")  # a file that stayed the same is not fetched again
            browser.evaluate(LOOK)
            browser.wait("document.getElementById('news').textContent.includes('was not taken')")
        browser.call("Page.reload")
        ready(browser)
        assert browser.evaluate(VERSION) == version
        assert ask(browser, tiny.PROMPTS[0], None)["text"]
