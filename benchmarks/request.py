"""The words of `bridge-edge bench`: which go together, and what they mean as options of a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError

FIELD_PP, FIELD_TG = (512,), (128,)  # what a test that is not given alone falls back to, as in llama-bench


@dataclass(frozen=True)
class Request:
    """The words of `bridge-edge bench`; lists are comma-separated, empty for none."""

    models: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    columns: str = ""
    limit: int = 200
    repetitions: int = 5
    threads: str = ""
    prompt_tokens: str = ""
    generate_tokens: str = ""
    depth: str = ""
    sustained: int = 0
    retries: int = 2
    wait: float = 0.0
    pin: bool = False
    memory_cap: str = ""
    context: bool = False
    device: str = ""
    constrained: bool = False
    think: str = ""
    lm_eval: str = ""
    host: str = ""
    adb: str = ""
    host_python: str = "python3"
    llama_bench: str = ""
    keep: bool = True
    runs_dir: Path = Path("runs")

    @property
    def away(self) -> str:
        """The option that names another machine, if one is given."""
        return "--host" if self.host else "--adb" if self.adb else ""


def numbers(text: str, option: str, least: int = 1) -> tuple[int, ...]:
    """A comma-separated list of numbers, in the order given."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    bad = [word for word in words if not word.isdigit() or int(word) < least]
    if bad:
        raise UserError(f"{option} {text!r} holds {bad[0]!r}", f"give numbers from {least} on, e.g. {option} 128,512")
    return tuple(dict.fromkeys(int(word) for word in words))


def refuse_mixtures(request: Request) -> None:
    """Options that do not go together, said before anything is opened or measured."""
    cap_of(request)
    if request.context and not request.memory_cap:
        raise UserError("--context looks for the largest context within a cap", "add --memory-cap, e.g. 512M")
    if request.constrained and not request.device:
        raise UserError("--constrained needs a device whose cores and memory to take", "add --device, e.g. pi5")
    here = {"--device": request.device, "--pin": request.pin, "--context": request.context, "--think": request.think}
    if request.host and request.adb:
        raise UserError("--host and --adb are two machines", "bench them one after the other")
    if request.away and (wrong := [name for name, given in here.items() if given]):
        raise UserError(
            f"{wrong[0]} does not go with {request.away}", "leave it out, or run bench on that machine itself"
        )
    if request.llama_bench and not request.away:
        raise UserError("--llama-bench is a program of another machine", "add --adb SERIAL or --host USER@HOST")
    if request.lm_eval and (request.away or request.files):
        raise UserError("--lm-eval goes with neither --host, --adb nor --data", "leave these out")


def cap_of(request: Request) -> int | None:
    """The cap of memory in bytes."""
    from bridge_edge.benchmarks.capacity import bytes_of

    return bytes_of(request.memory_cap, "--memory-cap") if request.memory_cap else None


def options_of(request: Request) -> Any:
    """The request as `BenchOptions`. Any of the field's lengths brings the field's other defaults along."""
    from bridge_edge.benchmarks.options import BenchOptions

    prompt = numbers(request.prompt_tokens, "--prompt-tokens")
    generate = numbers(request.generate_tokens, "--generate-tokens")
    depths = numbers(request.depth, "--depth", least=0)
    if depths and not prompt and not generate:
        prompt, generate = FIELD_PP, FIELD_TG
    return BenchOptions(
        repetitions=request.repetitions,
        sweep=numbers(request.threads, "--threads"),
        prompt_tokens=prompt,
        generate_tokens=generate,
        depths=depths or (0,),
        sustained=request.sustained,
        retries=request.retries,
        wait_s=request.wait,
    )


def words_of(request: Request) -> list[str]:
    """The request's other options, as the command line would take them."""
    words = [f"--data={file}" for file in request.files]
    words += [f"--columns={request.columns}", f"--limit={request.limit}", f"--repetitions={request.repetitions}"]
    words += [f"--prompt-tokens={request.prompt_tokens}", f"--generate-tokens={request.generate_tokens}"]
    words += [f"--depth={request.depth}", f"--sustained={request.sustained}", f"--retries={request.retries}"]
    return [*words, f"--wait={request.wait:g}", f"--runs-dir={request.runs_dir}", "--no-keep"]
