"""The verb push: upload an export to a model hub, after looking at what would be sent.

Without `--yes` nothing is sent: the files are listed with their sizes. What is sent is exactly what `SHA256SUMS` names
and confirms, searched for secrets first: names and contents that look like keys, and the values of the variables that
hold this run's own. New repositories are private. Not covered: other hubs than those that speak Hugging Face's
interface, deleting what an earlier upload left there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bridge_edge.deliver import run_of
from bridge_edge.errors import UserError, first_line
from bridge_edge.parcel import LOCAL, CheckError, Parcel, open_parcel, verify

CHUNK, OVERLAP = 1 << 22, 512  # bytes looked at together, and twice, so that no secret hides on a border
SHORTEST = 12  # characters of a variable's value that cannot be a coincidence
NAMES = (".env*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", ".netrc", ".npmrc", "*.sqlite*")
FOLDERS = {".git", ".ssh", ".aws", ".gnupg"}
PATTERNS = {
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}\b",
    "an OpenAI key": rb"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{40,}",
    "an Anthropic key": rb"\bsk-ant-[A-Za-z0-9_-]{40,}",
    "an AWS key": rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{40,}",
    "a Google key": rb"\bAIza[A-Za-z0-9_-]{35}\b",
    "a password in an address": rb"\bhttps?://[^\s/:@\"'<>]{1,64}:[^\s/:@\"'<>]{4,64}@[\w.-]+",
}
COMPILED = {kind: re.compile(pattern) for kind, pattern in PATTERNS.items()}
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY")


def variables(folder: Path) -> tuple[str, ...]:
    """Names of variables whose values must not be in an upload: the usual ones and the one of this run's teacher."""
    run = run_of(folder)
    named: tuple[str, ...] = ()
    if run is not None:
        text = (run / "recipe.yaml").read_text(encoding="utf-8")
        named = tuple(re.findall(r"^\s*api_key_env:\s*['\"]?(\w+)", text, re.MULTILINE))
    return tuple(dict.fromkeys([*VARIABLES, *named]))


def _pieces(path: Path) -> Iterator[bytes]:
    """A file in overlapping pieces."""
    kept = b""
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield kept + piece
            kept = (kept + piece)[-OVERLAP:]


def check_secrets(parcel: Parcel) -> None:
    """Refuse to send what looks like a secret; the message names the file and the kind, never the value."""
    own = {name: os.environ.get(name, "").strip().encode() for name in variables(parcel.folder)}
    for name in parcel.names():
        parts = Path(name).parts
        if FOLDERS & set(parts) or any(fnmatch(parts[-1].lower(), pattern) for pattern in NAMES):
            raise CheckError(f"{name!r} is the name of a secret or of private data", "remove it and export again")
        for piece in _pieces(parcel.folder / name):
            found = [kind for kind, pattern in COMPILED.items() if pattern.search(piece)]
            found += [f"the value of {key}" for key, value in own.items() if len(value) >= SHORTEST and value in piece]
            if found:
                raise CheckError(
                    f"{name!r} contains {found[0]}", "take it out, revoke it if it is real, and export again"
                )


def check_repo(repo: str) -> str:
    """The repository's name as the hub takes it."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(
            f"{repo!r} is no repository name: {first_line(error)}", "write OWNER/NAME, or NAME for your own"
        ) from None
    return repo


def push(
    folder: Path, repo: str, yes: bool, public: bool = False, key: Path | None = None, endpoint: str | None = None
) -> dict[str, Any]:
    """Look at the export in `folder` and, with `yes`, upload it; what was or would be sent."""
    check_repo(repo)
    parcel = verify(folder, key) if key else open_parcel(folder)
    check_secrets(parcel)
    told: dict[str, Any] = {
        "folder": str(folder),
        "repo": repo,
        "files": [{"name": n, "bytes": (folder / n).stat().st_size} for n in parcel.names()],
        "bytes": parcel.bytes(),
        "signed": parcel.signed,
        "left_out": [name for name in parcel.others if name != LOCAL],
        "private": not public,
        "sent": False,
    }
    report = folder / "parity.json"
    if report.is_file():
        told["quant"] = json.loads(report.read_text(encoding="utf-8")).get("quant")
    if yes:
        told["url"] = _upload(parcel, repo, public, endpoint)
        told["sent"] = True
    return told


def _upload(parcel: Parcel, repo: str, public: bool, endpoint: str | None) -> str:
    """Create the repository where it is missing and send everything as one commit."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi(endpoint=endpoint)
    hint = "log in with `hf auth login` or set HF_TOKEN to a token that may write there"
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        operations = [CommitOperationAdd(name, parcel.folder / name) for name in parcel.names()]
        api.create_commit(made.repo_id, operations, commit_message=f"Upload {parcel.folder.name}")
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        said = (error.server_message or "").strip().splitlines() or [first_line(error)]
        raise UserError(f"the hub refused ({status}): {said[0][:200]}", hint) from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set", "unset it to upload") from None
    except Exception as error:  # whatever the hub's HTTP client of the day raises for a broken line
        raise UserError(f"the upload failed: {type(error).__name__}: {str(error)[:200]}", hint) from None
    return f"{str(made.endpoint or '').rstrip('/')}/{made.repo_id}"


def size(count: int) -> str:
    return f"{count / 2**20:,.2f} MiB" if count >= 1 << 18 else f"{count:,} B"


def push_text(told: dict[str, Any]) -> str:
    """For people: the list, and what comes next."""
    width = max(len(f["name"]) for f in told["files"])
    lines = [f"{told['folder']} -> {told['repo']} ({'private' if told['private'] else 'public'})"]
    lines += [f"  {f['name']:<{width}}  {size(f['bytes']):>12}" for f in told["files"]]
    lines.append(f"  {len(told['files'])} files, {size(told['bytes'])}; sums hold, no secrets found")
    if told["left_out"]:
        lines.append(f"  left out, since the sums do not name them: {', '.join(told['left_out'])}")
    if not told["signed"]:
        lines.append("  not signed: bridge-edge sign FOLDER --key KEY.pem")
    lines.append(
        f"Sent to {told['url']}" if told["sent"] else "Nothing was sent; the same command with --yes uploads it"
    )
    return "\n".join(lines)
