"""The repository around the code: what README, packaging and pins say is so.

Not covered: that `make demo` runs, which takes minutes; the commands of the README are checked for existence only.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bridge_edge.ablate.arms import narrowed
from bridge_edge.ablate.grid import FIRST, experiments
from bridge_edge.cli import cli
from bridge_edge.recipe_io import load_recipe, recipe_names, scale_names

ROOT = Path(__file__).parent.parent
MAPPED = ("export", "benchmarks", "recipes")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/RESULTS.md",
    "export/README.md",
    "bridge_edge/embedded/models/README.md",
)

pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="runs in a source tree only")


def sources() -> Iterator[tuple[str, Path]]:
    """(installed package, file) of every module that ships."""
    for top in ("bridge_edge", *MAPPED):
        for file in sorted((ROOT / top).rglob("*.py")):
            folder = ".".join(file.relative_to(ROOT).parts[:-1])
            yield (folder if top == "bridge_edge" else f"bridge_edge.{folder}"), file


def test_every_package_is_listed_for_the_wheel() -> None:
    assert {package for package, _ in sources()} == set(PROJECT["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("scale", scale_names())
def test_shipped_recipes_load_at_every_scale(recipe: str, scale: str) -> None:
    assert load_recipe([f"recipe={recipe}", f"scale={scale}"]).scale == scale


def test_recipes_are_found_where_they_are_installed() -> None:
    assert (resources.files("bridge_edge.recipes") / "legal" / "recipe.yaml").is_file()
    assert {"legal", "medical", "finance"} <= set(recipe_names())


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 and "+" not in pin[1] for pin in found)
    return {name: version for name, version in found}


def test_constraints_pin_what_the_project_asks_for() -> None:
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    pinned = pins()
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_signing_brings_what_model_signing_imports() -> None:
    """model-signing 1.1.1 imports OpenSSL and does not ask for it, so that nothing could be signed."""
    asked = {re.split(r"[<>=]", line)[0].lower() for line in PROJECT["project"]["optional-dependencies"]["sign"]}
    assert {"model-signing", "pyopenssl"} <= asked


def test_constraints_are_closed_under_what_is_installed() -> None:
    """Whatever a pinned package needs on this machine is pinned too."""
    pinned = pins()
    for name in pinned:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                key = canonicalize_name(need.name)
                # A CUDA build of torch brings packages that the CPU build does not have.
                assert key in pinned or name == "torch" or key == "setuptools", f"{name} needs {need}"


def commands(text: str) -> Iterator[list[str]]:
    """Words of each `bridge-edge ...` in a document's code."""
    code = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`(bridge-edge [^`]+)`", text)
    for line in "\n".join(code).splitlines():
        if line.strip().startswith("bridge-edge "):
            yield re.sub(r'"[^"]*"', "QUOTED", line.partition("#")[0]).split()[1:]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_commands_and_options_that_exist(document: str) -> None:
    for words in commands((ROOT / document).read_text(encoding="utf-8")):
        if words[0] == "COMMAND":
            continue
        verb: click.Command | None = cli.get_command(click.Context(cli), words[0])
        assert verb is not None, words
        options = {name for parameter in verb.params for name in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_in_documents_lead_somewhere(document: str) -> None:
    file = ROOT / document
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target


def test_modules_named_in_documents_exist() -> None:
    present = {f"{package}.{file.stem}" for package, file in sources()}
    named = {m for d in DOCUMENTS for m in re.findall(r"python -m (bridge_edge[\w.]+)", (ROOT / d).read_text())}
    assert named
    assert named <= present


def test_overrides_in_the_readme_are_accepted() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tried = 0
    for words in commands(text):
        if words[0] == "distill" and "recipe=legal" in words:
            load_recipe([w for w in words[1:] if "=" in w and not w.startswith("--")])
            tried += 1
    assert tried >= 3


def grids(text: str) -> Iterator[list[str]]:
    """Words of each `ablate recipe=...` in a document, whose lines may be broken anywhere."""
    for said in re.findall(r"`(?:bridge-edge )?ablate (recipe=[^`]+)`", text):
        yield shlex.split(" ".join(said.split()))


def test_grids_behind_the_results_have_the_arms_that_are_named() -> None:
    text = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    found = list(grids(text))
    assert len(found) > 10
    for words in found:
        arms = [words[i + 1] for i, word in enumerate(words) if word == "--arm"]
        end = next(i for i, word in enumerate([*words, "--"]) if word.startswith("--"))
        values = [
            w.replace("=NAME", "=medical").replace("=my-task.yaml", "=medical").replace("=N", "=250")
            for w in words[:end]
            if "=" in w
        ]
        names = [word for word in words[:end] if "=" not in word] or list(FIRST)
        assert narrowed(experiments(names, load_recipe(values), "--ta-only" in words), arms), words
