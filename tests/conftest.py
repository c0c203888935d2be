"""What several test files build: one student in every format, made once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bridge_edge.waiting import wait_briefly

wait_briefly()  # as the command line does; before any test loads torch or llama.cpp


@pytest.fixture(scope="session")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny student as torch, m.gguf and onnx; not to be changed."""
    from bridge_edge.export.onnx_export import make_onnx  # here, so that the other files need not load torch
    from bridge_edge.export.quantize import make_gguf
    from tests import tiny

    folder = tmp_path_factory.mktemp("formats")
    tiny.checkpoint(folder / "torch")
    make_gguf(folder / "torch", folder / "m.gguf", "F32", "toy")
    make_onnx(folder / "torch", folder / "onnx", "fp32")
    return folder


@pytest.fixture(scope="module")
def own_formats(formats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a folder of the file's own, which may add to it."""
    return Path(shutil.copytree(formats, tmp_path_factory.mktemp("own") / "formats"))
