"""What a model card may say of licences: only what something states."""

from pathlib import Path

import pytest

from bridge_edge.provenance import facts, licence, stated
from bridge_edge.recipe_io import dump, load_recipe


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# x\n", "mit"),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: 'evil\\nlicence'\n---\n", None),
        ('---\nlicense: "a\\n---\\nb"\n---\n', None),
        ("---\n- a\n---\n", None),
        ("---\n{\n---\n", None),
        ("# a README without front matter\nlicense: mit\n", None),
    ],
)
def test_the_licence_of_a_checkpoint_is_that_of_its_front_matter(text: str, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert stated(tmp_path) == found
    assert facts(tmp_path) == ({"license": (found,), "Licence": (f"base model: {found}",)} if found else {})


def test_a_folder_without_a_readme_states_nothing(tmp_path: Path) -> None:
    assert stated(tmp_path) is None
    assert licence(None, "a teacher") == {}


PAID = ["teacher=openai", "teacher.base_url=http://h", "teacher.price.prompt=1", "teacher.price.completion=2"]


@pytest.mark.parametrize(
    ("words", "named", "line"),
    [
        ([], ("apache-2.0",), None),
        ([*PAID, "teacher.model=big-1"], ("other",), "what big-1 wrote"),
    ],
)
def test_a_runs_recipe_tells_the_base_and_the_teacher(
    words: list[str], named: tuple[str, ...], line: str | None, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(dump(load_recipe(["recipe=legal", *words])))
    (tmp_path / "manifest.json").write_text('{"schema": 1, "recipe": "legal", "status": "finished", "stages": {}}')
    (tmp_path / "tutor").mkdir()
    found = facts(tmp_path / "tutor")
    assert found["license"] == named
    assert found["Licence"][0] == "base model: apache-2.0"
    assert len(found["Licence"]) == (2 if line else 1)
    assert not line or line in found["Licence"][1]
