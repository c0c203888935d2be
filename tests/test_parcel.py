"""An export as a parcel: what is not as it was exported is refused; signatures hold only over what was signed."""

import json
import os
from pathlib import Path

import pytest

from bridge_edge.errors import UserError
from bridge_edge.parcel import CheckError, find, open_parcel, sign, verify, write_sums


def parcel(folder: Path) -> Path:
    """An export as far as its files go; the weights are any bytes."""
    (folder / "onnx").mkdir(parents=True)
    (folder / "toy-Q8_0.gguf").write_bytes(bytes(range(256)) * 64)
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    (folder / "README.md").write_text("# A student\n")
    (folder / "parity.json").write_text(json.dumps({"quant": "Q8_0"}))
    write_sums(folder)
    (folder / "export.json").write_text(json.dumps({"source": "/home/me/runs"}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return parcel(tmp_path / "gguf-q8_0")


def test_a_whole_parcel_opens(folder: Path) -> None:
    found = verify(folder, None)
    assert found.names() == ["README.md", "onnx/model.onnx", "parity.json", "toy-Q8_0.gguf", "SHA256SUMS"]
    assert found.others == ("export.json",)
    assert found.bytes() == sum((folder / name).stat().st_size for name in found.names())


def test_damage_is_refused(folder: Path) -> None:
    weights = folder / "toy-Q8_0.gguf"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"x")
    with pytest.raises(CheckError, match="SHA-256 differs"):
        open_parcel(folder)
    weights.unlink()
    with pytest.raises(CheckError, match=r"lacks 'toy-Q8_0\.gguf'"):
        open_parcel(folder)
    weights.symlink_to(folder / "README.md")
    with pytest.raises(CheckError, match="is a link"):
        open_parcel(folder)


def test_a_folder_behind_a_link_is_refused(folder: Path) -> None:
    (folder / "onnx").rename(folder.parent / "real")
    (folder / "onnx").symlink_to(folder.parent / "real")
    with pytest.raises(CheckError, match="is a link"):
        open_parcel(folder)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (f"{'0' * 64}  ../secret", "not in the folder"),
        (f"{'0' * 64}  /etc/hostname", "not in the folder"),
        ("0123 README.md", "has the line"),
        ("", "has the line"),
    ],
)
def test_strange_sums_are_refused(folder: Path, line: str, match: str) -> None:
    (folder.parent / "secret").write_text("mine")
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{line}\n{sums.read_text()}")
    with pytest.raises(CheckError, match=match):
        open_parcel(folder)


def test_a_rejected_export_is_refused(folder: Path) -> None:
    (folder / "REJECTED.txt").write_text("too different")
    with pytest.raises(CheckError, match="rejected"):
        open_parcel(folder)


def test_the_only_export_of_a_run_is_found(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="nothing at"):
        find(str(run), tmp_path)
    (run / "tutor").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no export"):
        find(str(run), tmp_path)
    first = parcel(run / "export" / "a")
    assert find(str(run), tmp_path) == first
    assert find(str(first / "toy-Q8_0.gguf"), tmp_path) == first
    second = parcel(run / "export" / "b")
    with pytest.raises(UserError, match="2 exports") as caught:
        find(str(run), tmp_path)
    assert str(second) in caught.value.hint


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A pair of elliptic-curve keys as PEM files; the private one with the password "canary-pass" if named so."""
    pytest.importorskip("model_signing", reason="model-signing is not installed: pip install 'bridge-edge[sign]'")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    locked = form.BestAvailableEncryption(b"canary-pass") if name == "locked" else form.NoEncryption()
    secret = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    public = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(secret)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem", folder / f"{name}.pub"


def test_a_signature_holds_until_something_changes(folder: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    with pytest.raises(CheckError, match="not signed"):
        verify(folder, public)
    assert sign(folder, private).names()[-1] == "model.sig"
    assert verify(folder, public).signed
    folder = folder.rename(tmp_path / "elsewhere")
    (folder / "export.json").unlink()  # stays behind when the parcel is sent
    verify(folder, public)
    (folder / "README.md").write_text("# Another student\n")
    with pytest.raises(CheckError, match="SHA-256 differs"):
        verify(folder, public)
    (folder / "SHA256SUMS").unlink()
    write_sums(folder)  # whoever changes the file can change the sums, but not the signature
    lines = [line for line in (folder / "SHA256SUMS").read_text().splitlines() if "model.sig" not in line]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    verify(folder, None)
    with pytest.raises(CheckError, match=r"does not hold.*README\.md"):
        verify(folder, public)


def test_an_added_file_breaks_a_signature(folder: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    sign(folder, private)
    (folder / "evil.py").write_text("print()")
    with pytest.raises(CheckError, match=r"does not hold.*evil\.py"):
        verify(folder, public)


def test_another_key_does_not_verify(folder: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    _, other = keys(tmp_path, "other")
    sign(folder, private)
    with pytest.raises(CheckError, match="does not hold"):
        verify(folder, other)
    (folder / "model.sig").write_text("{}")
    with pytest.raises(CheckError, match="does not hold"):
        verify(folder, public)


def test_keys_that_cannot_be_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys(tmp_path, "locked")
    monkeypatch.delenv("KEY_PASSWORD", raising=False)
    with pytest.raises(UserError, match="no private key"):
        sign(folder, tmp_path / "none.pem")
    with pytest.raises(CheckError, match="cannot sign"):
        sign(folder, public)
    with pytest.raises(CheckError, match="cannot sign"):
        sign(folder, private)
    with pytest.raises(UserError, match="KEY_PASSWORD is empty"):
        sign(folder, private, "KEY_PASSWORD")
    assert not (folder / "model.sig").exists()
    monkeypatch.setitem(os.environ, "KEY_PASSWORD", "canary-pass")
    sign(folder, private, "KEY_PASSWORD")
    verify(folder, public)
