"""Ask the student in this folder:  python ask.py "QUESTION"   (without a question, a prompt loop)

It needs Python 3.11 and what requirements.txt names, and no network. Every file is compared with SHA256SUMS before any
is loaded; with --key PUBLIC_KEY the signature of the model is checked too (needs: pip install model-signing).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge_edge.student import Student

HERE = Path(__file__).resolve().parent
SUMS, RUNNER, HISTORY, SIGNATURE = "SHA256SUMS", "runner.zip", "VERSIONS.json", "model.sig"


def problem(folder: Path) -> str | None:
    """What is not as SHA256SUMS says, if anything."""
    try:
        rows = [line.split("  ", 1) for line in (folder / SUMS).read_text("utf-8").splitlines()]
        for digest, name in rows:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} was changed (its SHA-256 is another)"
    except (OSError, ValueError) as error:
        return f"{SUMS} cannot be checked: {error}"
    named = {name for _, name in rows}
    there = {RUNNER, *(p.relative_to(folder).as_posix() for p in (folder / "model").rglob("[!.]*") if p.is_file())}
    strange = min(there - named, default=None)
    return f"{SUMS} does not name {strange}" if strange else None


def signature_problem(key: Path) -> str | None:
    """Why the signature of the model does not hold, if it does not."""
    try:
        from model_signing import hashing, verifying
    except ImportError:
        return "--key needs model-signing: python -m pip install model-signing"
    try:
        config = verifying.Config().set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE]))
        config.use_elliptic_key_verifier(public_key=key).verify(HERE / "model", HERE / "model" / SIGNATURE)
    except Exception as error:  # the library raises what it likes; whatever it is, nothing was verified
        return f"the signature does not hold: {str(error).strip()[:120]}"
    return None


def load(threads: int | None) -> Student:
    """The student, by the runtime of its format."""
    sys.path.insert(0, str(HERE / RUNNER))
    from bridge_edge.runtimes.base import Runtime
    from bridge_edge.student import Student
    from bridge_edge.waiting import wait_briefly

    wait_briefly()

    model = HERE / "model"
    runtime: Runtime
    if (model / "genai_config.json").exists():
        from bridge_edge.runtimes.genai import BareONNX

        runtime = BareONNX(model, threads)
    else:
        from bridge_edge.runtimes.gguf_runtime import GGUFRuntime

        runtime = GGUFRuntime(next(model.glob("*.gguf")), threads)
    return Student(runtime)


def tell(student: Student, question: str, words: argparse.Namespace) -> None:
    """Stream the reply, or print it as one JSON object."""
    writing = student.write(question, words.think, words.max_new_tokens)
    for piece in writing:
        print("" if words.json else piece, end="", flush=True)
    reply = writing.reply()
    if words.json:
        print(json.dumps(vars(reply), ensure_ascii=False))
        return
    thought = "" if reply.thought is None else f", thought {reply.thought} of {reply.think}"
    first = f"first after {reply.ttft_s * 1000:.0f} ms"
    print(f"\n{reply.tokens} tokens, {first}, {reply.tokens_per_s:.0f} tokens/s{thought}", file=sys.stderr)


def versions() -> str:
    """The versions of this folder and what each changed, the newest first."""
    try:
        past = json.loads((HERE / HISTORY).read_text("utf-8"))
    except (OSError, ValueError) as error:
        return f"{HISTORY} cannot be read: {error}"
    return "\n".join(f"{entry['version']}: {'; '.join(entry['changed'])}" for entry in past)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("question", nargs="*")
    parser.add_argument("--think", type=int, help="tokens of reasoning at most; then it must answer")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="one JSON object a reply")
    parser.add_argument("--key", type=Path, help="public key of the signer")
    parser.add_argument("--versions", action="store_true", help="show the versions and their changes")
    words = parser.parse_args()
    for name in ("think", "max_new_tokens", "threads"):
        if getattr(words, name) is not None and getattr(words, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return words


def main() -> int:
    words = arguments()
    if words.versions:
        print(versions())
        return 0
    found = problem(HERE) or (signature_problem(words.key) if words.key else None)
    if found:
        print(f"ask.py: {found}; nothing was loaded. Copy the folder again, or go back to the version before it "
              f"({HERE.name}.previous)", file=sys.stderr)  # fmt: skip
        return 1
    try:
        with load(words.threads) as student:
            if words.question:
                tell(student, " ".join(words.question), words)
                return 0
            while question := input("? ").strip():
                tell(student, question, words)
    except ImportError as error:
        print(f"ask.py: {error.name} is missing: python -m pip install -r requirements.txt", file=sys.stderr)
        return 2
    except (EOFError, KeyboardInterrupt):
        print()
    except Exception as error:
        print(f"ask.py: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
