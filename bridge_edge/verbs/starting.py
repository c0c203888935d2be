"""The verbs to begin with: recipes, init, doctor."""

from __future__ import annotations

import sys

import click

from bridge_edge.verbs.options import Group, emit, json_option


@click.group(invoke_without_command=True, cls=Group)
@json_option
@click.pass_context
def recipes(ctx: click.Context, as_json: bool) -> None:
    """List the shipped recipes; `recipes show NAME` prints one in full."""
    from bridge_edge.listing import recipe_rows, recipe_table

    if ctx.invoked_subcommand is None:
        rows = recipe_rows()
        emit(as_json, {"recipes": rows}, recipe_table(rows))


@recipes.command("show")
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[key=value ...]")
@json_option
def show_recipe(name: str, words: tuple[str, ...], as_json: bool) -> None:
    """Print a resolved recipe as YAML."""
    from bridge_edge.recipe_io import dump, load_recipe

    recipe = load_recipe([f"recipe={name}", *words])
    emit(as_json, recipe.model_dump(mode="json"), dump(recipe).rstrip())


@click.command()
@click.argument("name")
@json_option
def init(name: str, as_json: bool) -> None:
    """Write a commented recipe for a task of your own, with a small data file and recorded answers."""
    from bridge_edge.listing import write_template

    files = write_template(name)
    first = next(f for f in files if f.suffix == ".yaml")
    emit(
        as_json,
        {"files": [str(f) for f in files]},
        "\n".join([*(f"wrote {f}" for f in files), f"next: bridge-edge distill recipe={first}"]),
    )


@click.command()
@click.option("--no-hub", is_flag=True, help="Do not try to reach the model hub.")
@json_option
def doctor(no_hub: bool, as_json: bool) -> None:
    """Look at this machine and name the fix for each trouble."""
    from bridge_edge import doctor as checks

    found = checks.diagnose(probe_hub=not no_hub)
    emit(as_json, checks.to_json(found), checks.table(found))
    if any(c.status == "fail" for c in found):
        sys.exit(1)
