"""What the verbs on a finished student share: find it, its run and its data, score it on files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bridge_edge.data.card import ANSWER_TASK, Card
from bridge_edge.data.files import parse_columns, read_rows, to_samples
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.errors import UserError
from bridge_edge.evaluate import Scores
from bridge_edge.parcel import REJECTED
from bridge_edge.progress import say, track
from bridge_edge.run import ASSISTANTS, STUDENT, Run, latest
from bridge_edge.runtimes.load import load_runtime

BACKENDS = {"gguf": "llama_cpp", "onnx": "onnxruntime_genai"}
ITEM = {"prompt", "answer", "kind", "provenance"}  # what a row of a run's own items has


@dataclass(frozen=True)
class Exam:
    """Files to score on and how to read them: a column map, and what stands in for a task card that says too little."""

    files: tuple[Path, ...]
    columns: str = ""
    prompt: str | None = None
    answers: str | None = None
    limit: int | None = None


def chosen_model(model: str | None, runs_dir: Path) -> Path:
    """The named model, or the student of the latest finished run (which is said on stderr)."""
    if model is None:
        run = latest(runs_dir)
        say(f"using the student of {run.path}")
        return run.path / STUDENT
    path = Path(model)
    if (path / "manifest.json").is_file():
        run = Run(path)
        if not (path / STUDENT).is_dir():
            raise UserError(f"the run {path} has no student yet", "finish it by running its distill command again")
        return run.path / STUDENT
    return path


def run_of(model: Path) -> Path | None:
    """The run folder that a model lies in, if any."""
    for folder in (model, *model.resolve().parents):
        if (folder / "manifest.json").is_file() and (folder / "recipe.yaml").is_file():
            return folder
    return None


def held_out(model: Path, name: str) -> list[Sample]:
    """Dev or test samples of the model's run; an empty list outside a run."""
    folder = run_of(model)
    path = folder / "data" / f"{name}.jsonl" if folder else None
    if folder is None or path is None or not path.is_file():
        return []
    card = Card.load(folder / STUDENT)
    asked_short = card is not None and card.prompt.endswith(ANSWER_TASK) and model.name not in ASSISTANTS
    suffix = ANSWER_TASK if asked_short else ""
    return [replace(s, prompt=s.prompt + suffix) for s in read_jsonl(path)]


def named_card(card: Card | None, prompt: str | None, answers: str | None) -> Card:
    """The model's card, with a prompt and answers from the command line in the place of what it lacks."""
    base = card or Card("task")
    return Card(
        base.recipe,
        prompt or base.prompt,
        tuple(a.strip() for a in answers.split(",")) if answers else base.answers,
        base.max_new_tokens,
        base.examples,
        base.extra,
    )


def file_samples(files: Sequence[Path], columns: str, card: Card, limit: int | None) -> list[Sample]:
    """Samples of several files, each file a task of its own; the items of a run (`RUN/data/*.jsonl`) keep their
    prompts and kinds."""
    chosen = parse_columns(columns)
    suffix = ANSWER_TASK if card.prompt.endswith(ANSWER_TASK) else ""
    samples: list[Sample] = []
    for file in files:
        rows = read_rows(file)
        if not chosen and rows[0].keys() >= ITEM and not rows[0].keys() & set(card.columns()):
            as_it_is = replace(card, prompt=f"{{prompt}}{suffix}")
            samples += to_samples(rows, as_it_is, {"kind": "kind"}, file.stem)[:limit]
        else:
            samples += to_samples(rows, card, chosen, file.stem)[:limit]
    return samples


def evaluate_files(model: Path, exam: Exam, threads: int | None) -> Scores:
    """Score a model on files, with progress."""
    from bridge_edge.evaluate import evaluate

    runtime = load_runtime(model, threads)
    try:
        card = named_card(runtime.card, exam.prompt, exam.answers)
        samples = file_samples(exam.files, exam.columns, card, exam.limit)
        with track(f"{model.name} ({runtime.name})", len(samples)) as advance:
            shown = 0

            def tell(done: int, total: int) -> None:
                nonlocal shown
                advance(done - shown, f"{done} of {total}")
                shown = done

            return evaluate(runtime, samples, card, progress=tell)
    finally:
        runtime.close()


def place_of(file: Path, record: dict[str, Any]) -> Path:
    """Where the artifact of an export's record, `file`, lies now: beside it, since a run may have been moved."""
    return file.parent if record.get("fmt") == "onnx" else file.parent / Path(str(record.get("path", ""))).name


def student_digest(run: Run) -> str | None:
    """The digest that an export of the run's present student names as its `student`."""
    digest: str | None = run.manifest["stages"].get(STUDENT, {}).get("output")
    return digest


def delivered(runs_dir: Path) -> Path:
    """What answers for the latest finished run: the newest sound export of its present student, GGUF before ONNX, which
    is what ships and loads at once; the student itself where there is none. Which it is, is said on stderr."""
    run = latest(runs_dir)
    digest = student_digest(run)
    found: list[tuple[bool, float, Path]] = []
    for file in (run.path / "export").glob("*/export.json"):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            place, fmt, of, made = place_of(file, record), record["fmt"], record.get("student"), file.stat().st_mtime
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            continue  # `export` and `bench` say what is wrong with it
        sound = digest and of == digest and place.exists() and not (file.parent / REJECTED).exists()
        if sound and fmt in BACKENDS and find_spec(BACKENDS[fmt]):
            found.append((fmt == "gguf", made, place))
    path = max(found)[2] if found else run.path / STUDENT
    say(f"using {path}" if found else f"using the student of {path.parent}")
    return path


def artifacts(runs_dir: Path) -> list[Path]:
    """The student of the latest finished run and everything exported from it; exports of a former student are left out,
    which is said on stderr."""
    run = latest(runs_dir)
    digest = student_digest(run)
    found = [run.path / STUDENT]
    for file in sorted((run.path / "export").glob("*/export.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            place, of = place_of(file, record), record.get("student")
        except (OSError, ValueError, AttributeError):
            raise UserError(f"{file} cannot be read", "export again") from None
        if digest and of and of != digest:
            say(f"left out: {place} is of a former student; `bridge-edge export` makes it anew")
            continue
        found.append(place)
    say(
        f"using the student of {run.path}"
        + ("" if len(found) > 1 else "; `bridge-edge export` makes artifacts to compare")
    )
    return [p for p in found if p.exists()]
