"""Export a checkpoint to ONNX with its cache by optimum-onnx: the one file here that runs in another environment.

    PYTHON -I optimum_runner.py                        the versions there, as one JSON line
    PYTHON -I optimum_runner.py CHECKPOINT CONFIG OUT  OUT/model.onnx from the weights of CHECKPOINT

optimum-onnx holds transformers below 4.58, so PYTHON belongs to an environment without this package, and nothing of it
may be imported here. CONFIG is a folder with a config.json that transformers 4 reads; the checkpoint's own is not
looked at. Weights are read from safetensors, no code of the checkpoint is run, nothing is asked of a network. What is
not as it should be is the last line of stderr; exit code 3 means that the environment is at fault, 1 that the export
is. Not covered: quantisation and checks, which are made of what comes back.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from typing import Any

UNFIT = 3  # exit code: the environment cannot do it
NAMED = ("optimum-onnx", "optimum", "transformers", "torch", "onnx")
TASK = "text-generation-with-past"


def fail(text: str, code: int) -> None:
    """End with one line."""
    print(" ".join(text.split())[:400], file=sys.stderr)
    sys.exit(code)


def packages() -> tuple[Any, Any, Any, dict[str, str]]:
    """torch, transformers and the exporter, with the versions of all; ends the process where they do not fit."""
    versions: dict[str, str] = {}
    for name in NAMED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            fail(f"it lacks {name}", UNFIT)
    major, minor = (int(part) for part in versions["transformers"].split(".")[:2])
    if (major, minor) >= (4, 58):
        fail(f"it has transformers {versions['transformers']}, and optimum-onnx needs one below 4.58", UNFIT)
    try:
        torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
        exporter = importlib.import_module("optimum.exporters.onnx")
    except Exception as error:
        fail(f"its optimum-onnx cannot be imported ({type(error).__name__}: {error})", UNFIT)
    return torch, transformers, exporter, versions


def load(torch: Any, transformers: Any, checkpoint: str, config: str) -> Any:
    """The model in float32; an error where a weight is missing or of another shape than the config's."""
    shape = transformers.AutoConfig.from_pretrained(config, local_files_only=True, trust_remote_code=False)
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint,
        config=shape,
        generation_config=transformers.GenerationConfig(),  # a newer one beside the weights may not be readable
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    wrong = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if wrong:
        raise ValueError(f"transformers {transformers.__version__} finds no tensor {wrong[0]} of the right shape")
    return model.eval()


def main(words: list[str]) -> None:
    torch, transformers, exporter, versions = packages()
    if words:
        checkpoint, config, out = words
        try:
            model = load(torch, transformers, checkpoint, config)
            exporter.onnx_export_from_model(model, out, task=TASK, do_validation=False)
        except Exception as error:
            fail(f"{type(error).__name__}: {error}", 1)
    print(json.dumps(versions))


if __name__ == "__main__":
    main(sys.argv[1:])
