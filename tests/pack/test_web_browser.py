"""The web app in a real browser: refuses a changed model, answers as Python does, survives a broken update offline."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bridge_edge.benchmarks import chromium
from bridge_edge.benchmarks.chromium import Browser
from bridge_edge.benchmarks.web import ask, ready, served
from bridge_edge.data.card import Card
from bridge_edge.errors import UserError
from bridge_edge.pack import PackOptions, open_artifact, pack_to
from bridge_edge.pack.web import release
from bridge_edge.parcel import write_sums
from bridge_edge.student import Student
from bridge_edge.train.models import locate
from tests import tiny

MISSING = [name for name, there in (("Chromium", chromium.find()), ("npm", shutil.which("npm"))) if not there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}")
BUDGET = 5


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
            version = browser.evaluate("fetch('version').then((r) => r.text())")
            assert browser.outside(origin) == []

            (app / "style.css").write_text("body { color: red }")
            write_sums(app)
            assert release(app) != version
            damage(model)
            browser.evaluate("navigator.serviceWorker.getRegistration().then((r) => r.update()).then(() => true)")
            browser.wait("document.getElementById('news').textContent.includes('was not taken')")
        browser.call("Page.reload")
        ready(browser)
        assert browser.evaluate("fetch('version').then((r) => r.text())") == version
        assert ask(browser, tiny.PROMPTS[0], None)["text"]
