"""An exported folder as something to hand on: which files belong to it, that they are whole, and whose they are.

`SHA256SUMS` names the files; with a key of your own a signature (`model.sig`, in the format of model-signing) says who
vouches for them. Anything that the sums do not name is left behind, as the local record of the export. Not covered:
keyless signing, which needs an identity service, and certificates.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from bridge_edge.errors import UserError, first_line
from bridge_edge.run import latest, sha256_file

SUMS, SIGNATURE, REJECTED = "SHA256SUMS", "model.sig", "REJECTED.txt"
WEIGHTS = {".gguf", ".onnx", ".safetensors"}  # what a runtime would find in a folder by itself
LOCAL = "export.json"  # where the export lies on this machine: of no use elsewhere, and nobody's business


class CheckError(UserError):
    """Files are not what was exported or signed; the command line exits with 1."""

    exit_code = 1


@dataclass(frozen=True)
class Parcel:
    """The files of an export by name with their digests, and what else lies in its folder."""

    folder: Path
    files: dict[str, str]
    others: tuple[str, ...]

    @property
    def signed(self) -> bool:
        return (self.folder / SIGNATURE).is_file()

    def names(self) -> list[str]:
        """Everything that belongs to it, the sums and the signature last."""
        return [*sorted(self.files), SUMS, *([SIGNATURE] if self.signed else [])]

    def bytes(self) -> int:
        return sum((self.folder / name).stat().st_size for name in self.names())


def find(model: str | None, runs_dir: Path) -> Path:
    """The exported folder that was named: itself, a file in it, or the only one of a run (default: the latest)."""
    place = Path(model) if model else latest(runs_dir).path
    if not place.exists():
        raise UserError(f"there is nothing at {str(place)!r}", "name a run or a folder that bridge-edge export made")
    folder = place if place.is_dir() else place.parent
    if (folder / SUMS).is_file():
        return folder
    found = sorted(p.parent for p in (folder / "export").glob(f"*/{SUMS}") if not (p.parent / REJECTED).exists())
    if len(found) > 1:
        raise UserError(f"{folder} has {len(found)} exports", f"name one: {', '.join(map(str, found))}")
    if not found:
        raise UserError(f"{folder} holds no export (there is no {SUMS})", "make one with bridge-edge export")
    return found[0]


def open_parcel(folder: Path) -> Parcel:
    """Read and check `SHA256SUMS`: each file is there, a plain file inside the folder, and of the digest."""
    if (folder / REJECTED).exists():
        raise CheckError(f"{folder} was rejected by its own checks", "see REJECTED.txt; export in a finer type")
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{folder} has no readable {SUMS}", "make the folder with bridge-edge export") from None
    files: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        if not match:
            raise CheckError(f"{folder / SUMS} has the line {line[:80]!r}", "export the model again")
        files[match[2]] = match[1]
    for name, digest in files.items():
        _check_file(folder, name, digest)
    present = (p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    kept = {*files, SUMS, SIGNATURE}
    others = (p.relative_to(folder).as_posix() for p in present)
    return Parcel(folder, files, tuple(sorted(name for name in others if name not in kept)))


def write_sums(folder: Path) -> None:
    """SHA256SUMS over every other file, as `sha256sum --check` reads it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / SUMS)
    lines = [f"{sha256_file(p)}  {p.relative_to(folder).as_posix()}" for p in files]
    (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or any((folder / Path(*parts[:i])).is_symlink() for i in range(1, 99)):
        raise CheckError(f"{SUMS} names {name!r}, which is a link or not in the folder", "export the model again")
    if not path.is_file():
        raise CheckError(f"{folder} lacks {name!r}, which {SUMS} names", "copy it again, or export the model again")
    if sha256_file(path) != digest:
        raise CheckError(f"{path} is not the file that was exported: its SHA-256 differs", "copy it again, or export")


def _library() -> tuple[ModuleType, ModuleType]:
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise UserError(
            f"signatures need the package {error.name!r}", "pip install -c constraints.txt 'bridge-edge[sign]'"
        ) from None
    return signing, verifying


@contextlib.contextmanager
def _refusing(action: str, hint: str) -> Iterator[None]:
    """Errors of the signing library as a CheckError of one line; what it prints is dropped."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except UserError:
        raise
    except Exception as error:
        raise CheckError(f"{action}: {first_line(error)}", hint) from None


def _key(path: Path, kind: str) -> Path:
    if not path.is_file():
        raise UserError(f"there is no {kind} key at {str(path)!r}", "openssl ecparam -genkey -name prime256v1 -noout")
    return path


def sign(folder: Path, key: Path, password_env: str | None = None) -> Parcel:
    """Sign an export with an elliptic-curve key (PEM); the signature replaces an older one."""
    parcel = open_parcel(folder)
    signing, _ = _library()
    from model_signing import hashing

    _key(key, "private")
    password = os.environ.get(password_env) if password_env else None
    if password_env and not password:
        raise UserError(f"the variable {password_env} is empty", "set it to the password of the key")
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE, *parcel.others])
    with _refusing("the key cannot sign", "give an elliptic-curve key in PEM, and --password-env where it has one"):
        signer = signing.Config().set_hashing_config(config)
        signer.use_elliptic_key_signer(private_key=key, password=password.encode() if password else None)
        signer.sign(folder, folder / SIGNATURE)
    return open_parcel(folder)


def verify(folder: Path, key: Path | None) -> Parcel:
    """Check the sums, and with a public key the signature; a changed, missing or added file is a CheckError."""
    parcel = open_parcel(folder)
    if key is None:
        return parcel
    _, verifying = _library()
    from model_signing import hashing

    _key(key, "public")
    if not parcel.signed:
        raise CheckError(f"{folder} is not signed", "sign it with bridge-edge sign, or verify it without --key")
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE, LOCAL])
    with _refusing(f"the signature of {folder} does not hold", "the files or the signer are not what you expect"):
        verifier = verifying.Config().set_hashing_config(config)
        verifier.use_elliptic_key_verifier(public_key=key).verify(folder, folder / SIGNATURE)
    return parcel


def check_beside(model: Path, key: Path | None = None) -> None:
    """Check the sums that lie in the folder of a model, if any, and with a public key the signature: before it is
    loaded, from whatever place it was copied to. A model that the sums do not name was checked by nobody."""
    folder = model if model.is_dir() else model.parent
    if key is None and not (folder / SUMS).is_file():
        return
    files = verify(folder, key).files
    weights = [model] if model != folder else [p for p in folder.rglob("*") if p.suffix in WEIGHTS]
    for path in weights:
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            raise CheckError(f"{path} is not named by {folder / SUMS}", "move it elsewhere, or export the model again")
