"""The key of a stage: what its output depends on, as one digest.

The key is the SHA-256 of canonical JSON: the stage's name, its code version, the slice of the recipe that it reads, and
the digests of what it reads: outputs of other stages, base models, the user's files, a domain's code. Equal keys mean
equal work. Values of a method that is off are no part of it, so that a run from before the method has the same keys.
Not covered: versions of torch and the processor, by which sums are rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge_edge.data.swaps import swaps_of
from bridge_edge.recipe import METHODS, NEUTRAL, Recipe, settings
from bridge_edge.recipe_models import OWN_EMBEDDINGS
from bridge_edge.run import canonical, digest_tree, sha256_file, sha256_text, source_digest
from bridge_edge.train.models import locate

if TYPE_CHECKING:
    from bridge_edge.stages import Stage


def slice_of(recipe: Recipe, reads: Sequence[str]) -> dict[str, Any]:
    """The values of the dotted names in `reads`, without methods that are off."""
    whole = settings(recipe)
    found: dict[str, Any] = {}
    for dotted in reads:
        if dotted.startswith("-"):  # read by another stage only, though it stands among values that this one reads
            part, last = dotted[1:].split(".")
            whole.get(part, {}).pop(last, None)  # a method that is off has no values
            continue
        if dotted in METHODS and dotted not in whole:
            continue
        value: Any = whole
        *parts, last = dotted.split(".")
        for part in parts:
            value = value[part]
        if last in value or dotted not in NEUTRAL:  # a neutral value is as good as none
            found[dotted] = value[last]
    return found


def _base_digest(recipe: Recipe, reads: Sequence[str]) -> dict[str, str]:
    """Digests of models on disk: another base model under the same name is another input."""
    digests = {}
    for part, spec in (("ta", recipe.ta), ("student", recipe.student)):
        where = Path(locate(spec.model))
        if (part in reads or f"{part}.model" in reads) and where.is_dir():
            digests[part] = digest_tree(where)
    teacher = Path(recipe.teacher.model)
    if "teacher" in reads and recipe.teacher.kind == "local" and teacher.exists():
        digests["teacher"] = digest_tree(teacher)
    named = recipe.select.embeddings
    if "select.embeddings" in reads and named != OWN_EMBEDDINGS and Path(named).is_dir():
        digests["select.embeddings"] = digest_tree(Path(named))
    return digests


def _file_digests(recipe: Recipe, reads: Sequence[str]) -> dict[str, str]:
    """Digests of the user's own files, of a domain's code and of its words: the same name with other content is another
    input."""
    files = {"data": (recipe.data.path, recipe.data.test_path), "teacher": (recipe.teacher.path,)}
    named = [path for part, paths in files.items() if part in reads for path in paths if path]
    found = {path: sha256_file(Path(path)) for path in named if Path(path).is_file()}
    if "swap" in reads and not recipe.swap.words and (swaps := swaps_of(recipe)) is not None:
        found["words"] = sha256_text(canonical(swaps.lists))
    by_code = "data" in reads or ("teacher" in reads and recipe.teacher.kind == "expert")
    return {**found, "domain": source_digest(recipe)} if by_code else found


def stage_key(stage: Stage, recipe: Recipe, outputs: dict[str, str]) -> str:
    """Key of `stage` for `recipe`, given the digests of the outputs it reads."""
    recipe, places = stage.sees(recipe), stage.places or [(name, name) for name in stage.needs]
    read = slice_of(recipe, stage.reads)
    places = [*places, *((place, name) for part, place, name in stage.also if part in read)]
    parts = {
        "stage": stage.kind or stage.name,
        "version": stage.version,
        "recipe": read,
        "inputs": {place: outputs[name] for place, name in places},
        "bases": _base_digest(recipe, stage.reads),
        "files": _file_digests(recipe, stage.reads),
    }
    return sha256_text(canonical(parts))
