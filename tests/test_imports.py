"""The direction of imports: the core knows nothing of export and benchmarks, and those two nothing of each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"bridge_edge": ROOT / "bridge_edge", "bridge_edge.export": ROOT / "export"}
FOLDERS |= {"bridge_edge.benchmarks": ROOT / "benchmarks", "bridge_edge.recipes": ROOT / "recipes"}
FILES = [(name, path) for name, folder in FOLDERS.items() for path in sorted(folder.rglob("*.py"))]
COMMAND_LINE = [ROOT / "bridge_edge" / "cli.py", *sorted((ROOT / "bridge_edge" / "verbs").glob("*.py"))]
WIRES = {"benching", "reporting", "shipping", "doctor", "ask", "listing"}  # they alone reach for both packages


def imports(path: Path, top_level: bool = False) -> set[str]:
    """Full names of the modules that a file imports; only those at its top, if so asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def reaches(found: set[str], *names: str) -> set[str]:
    return {f for f in found for n in names if f == n or f.startswith(n + ".")}


@pytest.mark.parametrize(("package", "path"), FILES, ids=lambda v: v if isinstance(v, str) else v.stem)
def test_imports_go_one_way(package: str, path: Path) -> None:
    found = imports(path)
    assert not reaches(found, "export", "benchmarks", "recipes"), "generic names are imported as bridge_edge.*"
    if package == "bridge_edge.export":
        assert not reaches(found, "bridge_edge.benchmarks", "bridge_edge.recipes")
    elif package == "bridge_edge.benchmarks":
        assert not reaches(found, "bridge_edge.export", "bridge_edge.recipes")
    elif package == "bridge_edge.recipes" or path.stem not in WIRES:
        assert not reaches(found, "bridge_edge.export", "bridge_edge.benchmarks")


LOWEST = ("errors", "recipe_task", "recipe_models", "recipe_methods", "recipe")


@pytest.mark.parametrize("name", LOWEST)
def test_the_lowest_layer_imports_nothing_above_it(name: str) -> None:
    inner = reaches(imports(ROOT / "bridge_edge" / f"{name}.py"), "bridge_edge")
    assert inner == reaches(inner, *(f"bridge_edge.{below}" for below in LOWEST[: LOWEST.index(name)]))


@pytest.mark.parametrize("path", COMMAND_LINE, ids=lambda path: path.stem)
def test_the_command_line_imports_nothing_heavy_at_its_top(path: Path) -> None:
    found = imports(path, top_level=True)
    assert not reaches(found, "torch", "transformers", "onnxruntime", "llama_cpp", "rich", "numpy", "pydantic")
    light = reaches(found, "bridge_edge.errors", "bridge_edge.verbs") | {"bridge_edge", "bridge_edge.__version__"}
    assert reaches(found, "bridge_edge") <= light


def test_nothing_is_unpickled_and_no_foreign_code_is_trusted() -> None:
    for _, path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not reaches(imports(path), "pickle", "dill", "joblib", "marshal"), path
        assert "trust_remote_code=True" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path
