"""YAML, a scale overlay and key=value overrides, merged by OmegaConf and validated by pydantic.

Later wins: scale, recipe file, its `scales` part for this scale, overrides. YAML is read with YAML 1.2's idea of
booleans and numbers, so that `No`, `12:30` and `2024-01-31` stay words and `1e-4` is a number. OmegaConf's `${...}` is
not resolved: a prompt may say `${amount}` and mean a dollar sign, and no environment variable can end up in a recipe.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from bridge_edge.errors import UserError, unknown
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_models import OWN_EMBEDDINGS
from bridge_edge.recipe_task import TeacherSpec

SELECTORS = ("recipe", "scale", "teacher")


TAG = "tag:yaml.org,2002:"
FLOAT = re.compile(
    r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?|\.(?:inf|nan))$"
)


class Loader(yaml.SafeLoader):
    """SafeLoader whose only booleans are true and false, and which reads 1e-4 as a float."""


class Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes the words that `Loader` would read as numbers (1e-4)."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, p) for tag, p in rules if tag.removeprefix(TAG) not in ("bool", "float", "int", "timestamp")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(TAG + "bool", re.compile(r"^(?:true|false|True|False)$"), list("tTfF"))
Loader.add_implicit_resolver(TAG + "int", re.compile(r"^[-+]?(?:0|[1-9][\d_]*)$"), list("-+0123456789"))
Loader.add_implicit_resolver(TAG + "float", FLOAT, list("-+0123456789."))
Dumper.add_implicit_resolver(TAG + "float", FLOAT, list("-+0123456789."))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; raises UserError with the line of a syntax error."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path} is no valid YAML{where}", "check its indentation and quotes") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}", "give a readable YAML file") from error
    if not isinstance(data, dict):
        raise UserError(
            f"{path} holds no mapping", "write `key: value` lines; `bridge-edge init NAME` makes a template"
        )
    return data


def shipped(folder: str = "") -> Path:
    """The folder of the shipped recipes (or one inside it)."""
    return Path(str(resources.files("bridge_edge.recipes"))) / folder


def recipe_names() -> list[str]:
    return sorted(p.parent.name for p in shipped().glob("*/recipe.yaml"))


def scale_names() -> list[str]:
    return sorted(p.stem for p in shipped("scale").glob("*.yaml"))


def _find(kind: str, value: str, choices: list[str], path_of: Path) -> Path:
    if value in choices:
        return path_of
    as_path = Path(value).expanduser()
    if as_path.suffix in (".yaml", ".yml") or "/" in value:
        if as_path.is_file():
            return as_path
        raise UserError(f"no file {value!r} for {kind}=", f"give a path to a YAML, or one of: {', '.join(choices)}")
    raise unknown(kind, value, choices)


def _leaf_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                keys.extend(_leaf_keys(part, f"{prefix}{name}."))
    return keys


def explain(error: ValidationError) -> UserError:
    """All problems of a recipe in one line, unknown keys with the nearest known one."""
    known = _leaf_keys(Recipe)
    parts = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, known, n=1, cutoff=0.5)
            siblings = [k for k in known if k.rpartition(".")[0] == where.rpartition(".")[0]]
            parts.append(
                f"unknown key {where!r}"
                + (f", did you mean {near[0]!r}?" if near else f", choices: {', '.join(siblings)}")
            )
        else:
            text = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], (dict, BaseModel)) else f"={item['input']!r}"
            parts.append(f"{where}{shown}: {text}" if where else text)
    return UserError("; ".join(parts), "`bridge-edge recipes show NAME` prints every key")


def parse_overrides(words: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, Any]]]:
    """Split `key=value` words into selectors (recipe, scale, teacher) and typed dotted values."""
    selectors: dict[str, str] = {}
    values: list[tuple[str, Any]] = []
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise UserError(
                f"cannot read {word!r}", "write overrides as key=value, e.g. recipe=legal budget.queries=300"
            )
        if key in SELECTORS:
            selectors[key] = text
            continue
        try:
            values.append((key, yaml.load(text, Loader)))
        except yaml.YAMLError as error:
            raise UserError(
                f"cannot read the value of {word!r}", 'quote it as YAML, e.g. \'task.answers=["Yes","No"]\''
            ) from error
    return selectors, values


def load_recipe(words: Sequence[str]) -> Recipe:
    """The resolved recipe of a command line such as `recipe=legal scale=embedded budget.queries=200`."""
    selectors, values = parse_overrides(words)
    if "recipe" not in selectors:
        raise UserError("no recipe named", f"add recipe=NAME, one of: {', '.join(recipe_names())}, or recipe=PATH.yaml")
    name = selectors["recipe"]
    path = _find("recipe", name, recipe_names(), shipped(name) / "recipe.yaml")
    body = read_yaml(path)
    body.setdefault("name", path.stem if path.name != "recipe.yaml" else path.parent.name)
    _anchor_paths(body, path)
    scale = selectors.get("scale", body.get("scale", "embedded"))
    overlay_path = _find("scale", str(scale), scale_names(), shipped("scale") / f"{scale}.yaml")
    overlay = read_yaml(overlay_path)
    own = _own_scales(body).get(scale) or {}
    overlay["scale"] = body["scale"] = scale if scale in scale_names() else str(overlay_path.resolve())
    parts: list[Any] = [overlay, body, own]
    if "teacher" in selectors:
        parts.append(_teacher(selectors["teacher"]))
    try:
        merged = OmegaConf.merge(*[OmegaConf.create(p) for p in parts])
        for key, value in values:
            OmegaConf.update(merged, key, _from_here(key, value), merge=True)
        plain: Any = OmegaConf.to_container(merged, resolve=False)
    except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"cannot merge the recipe: {str(error).splitlines()[0]}", "check the dotted keys") from error
    _find_local_teacher(plain)
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        raise explain(error) from error


def _own_scales(body: dict[str, Any]) -> dict[str, Any]:
    """Take `scales` out of a recipe file: by the name of a shipped scale, what the recipe sets at that scale only."""
    own = body.pop("scales", None) or {}
    if not isinstance(own, dict) or not all(isinstance(part, dict) for part in own.values()):
        raise UserError("scales must map names of scales to keys of a recipe", "e.g. scales: {embedded: {seed: 1}}")
    for name in own:
        if name not in scale_names():
            raise unknown("scale", str(name), scale_names())
    return own


def _find_local_teacher(plain: dict[str, Any]) -> None:
    """The model of a local teacher as a whole path where it is one; the name of a model at an API stays as it is."""
    teacher = plain.get("teacher")
    if isinstance(teacher, dict) and teacher.get("kind") == "local" and isinstance(teacher.get("model"), str):
        path = Path(teacher["model"]).expanduser()
        if path.exists():
            teacher["model"] = str(path.resolve())


def _teacher(value: str) -> dict[str, Any]:
    kinds = get_args(TeacherSpec.model_fields["kind"].annotation)
    if value in kinds:
        return {"teacher": {"kind": value}}
    path = _find("teacher", value, list(kinds), Path(value))
    overlay = {"teacher": read_yaml(path)}
    _anchor_paths(overlay, path)
    return overlay


PATHS = ("data.path", "data.test_path", "teacher.path")
MODELS = ("ta.model", "student.model", "teacher.tokenizer", "select.embeddings")


def _anchor_paths(body: dict[str, Any], path: Path) -> None:
    """Paths inside a recipe file are relative to that file, wherever the command is run.

    A model is a path only if it starts with a dot: `owner/name` is a hub id.
    """
    for dotted in (*PATHS, *MODELS, "teacher.model"):
        part, _, key = dotted.partition(".")
        section = body.get(part)
        if not isinstance(section, dict):
            continue
        given = section.get(key)
        if dotted == "teacher.model" and section.get("kind") != "local":
            continue
        if isinstance(given, str) and (dotted in PATHS or given.startswith(".")):
            section[key] = str((path.parent / Path(given).expanduser()).resolve())
    if isinstance(swap := body.get("swap"), dict) and "words" in swap:
        swap["words"] = _word_lists(swap["words"], path.parent)


def _word_lists(lists: Any, folder: Path) -> Any:
    """Lists of words, those read that are named as a file; what is no mapping is left for the recipe to refuse."""
    if not isinstance(lists, dict):
        return lists
    return {name: _word_list(name, words, folder) for name, words in lists.items()}


def _word_list(name: str, words: Any, folder: Path) -> Any:
    """A list as it is, or the lines of a file. The recipe keeps the words, so that a run holds all that shapes it."""
    if not isinstance(words, str):
        return words
    path = folder / Path(words).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"swap.words.{name}={words!r} is no file that can be read",
            "give a list, or a UTF-8 file of one word a line",
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _from_here(key: str, value: Any) -> Any:
    """Paths on the command line are relative to where it is run; stored whole, since recipe.yaml lies elsewhere."""
    if key == "select.embeddings" and value == OWN_EMBEDDINGS:
        return value
    if key == "swap" and isinstance(value, dict) and "words" in value:
        return {**value, "words": _word_lists(value["words"], Path())}
    if key == "swap.words":
        return _word_lists(value, Path())
    if key.startswith("swap.words."):
        return _word_list(key.removeprefix("swap.words."), value, Path())
    if isinstance(value, str) and value and (key in PATHS or (key in MODELS and Path(value).is_dir())):
        return str(Path(value).expanduser().resolve())
    return value


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    plain = recipe.model_dump(mode="json")
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
