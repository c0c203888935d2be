"""The command line: which verbs there are, what stands before any of them runs, and how a failure is told.

The verbs themselves lie in bridge_edge/verbs/; a new one is a function there and a line in VERBS. The module of a verb
is imported when the verb is wanted, and what is heavy inside the verb, so that `--help` answers at once.

Every verb takes `--json` (one JSON object, the last line of stdout); people's text and progress go to stderr, except
the tables that a verb exists to print. Exit codes: 0 done, 1 a check failed (parity, doctor), 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

import click

from bridge_edge import __version__
from bridge_edge.errors import UserError
from bridge_edge.verbs.options import Group

VERBS = {  # verb -> module of bridge_edge.verbs, and its command there
    "distill": "making:distill",
    "plan": "making:plan",
    "ablate": "making:ablate",
    "ledger": "making:ledger",
    "export": "sending:export",
    "push": "sending:push",
    "sign": "sending:sign",
    "verify": "sending:verify",
    "pack": "packing:pack",
    "serve": "packing:serve",
    "bench": "trying:bench",
    "eval": "trying:evaluate",
    "run": "trying:run",
    "report": "trying:report",
    "recipes": "starting:recipes",
    "init": "starting:init",
    "doctor": "starting:doctor",
}


def quiet_environment() -> None:
    """Set what must stand before torch is imported: a wait policy that does not starve a busy machine, no telemetry.

    oneDNN keeps the compiled kernels of the last 1,024 shapes; with batches of ever other shapes that is 400 MB which
    nothing comes back to, and with 16 training is as fast.
    """
    from bridge_edge.waiting import wait_briefly

    wait_briefly()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if own := os.environ.get("BRIDGE_EDGE_HOME"):
        os.environ.setdefault("HF_HOME", str(Path(own) / "huggingface"))


class Verbs(Group):
    """The group of all verbs; the module of one is imported when the verb is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].partition(":")
        found: click.Command = getattr(import_module(f"bridge_edge.verbs.{module}"), name)
        return found


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bridge-edge")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Distil an expensive teacher into a model small enough to run offline."""


def main() -> None:
    """Entry point: run the command line and turn errors into one line and an exit code."""
    quiet_environment()
    debug = "--debug" in sys.argv[1:]
    args = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        code = cli.main(args=args, prog_name="bridge-edge", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"bridge-edge: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 2))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nbridge-edge: stopped; what was finished is kept, run the same command to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        click.echo(f"bridge-edge: {error.format_message()}", err=True)
        sys.exit(2)
    except Exception as error:
        if debug:
            traceback.print_exc()
        full = isinstance(error, OSError) and error.errno == 28
        hint = (
            "the disk is full: free some space and run the same command again"
            if full
            else "run it again with --debug for the details"
        )
        click.echo(f"bridge-edge: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}; {hint}", err=True)
        sys.exit(2 if full else 1)


if __name__ == "__main__":
    main()
