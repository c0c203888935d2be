"""The verbs that bring a student to others: export, push, sign, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge_edge.errors import UserError
from bridge_edge.verbs.options import emit, json_option, runs_option, threads_option


class Format(click.Choice[str]):
    """The formats that are made; of the one that people look for too, why it is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "executorch":
            raise UserError(
                "executorch is not made here: its programs carry no tokenizer and no chat template, and no runtime "
                "here could check them",
                "on phones gguf runs in llama.cpp and onnx in onnxruntime; export/README.md says more",
            )
        return super().convert(value, param, ctx)


@click.command()
@click.argument("model", required=False)
@click.option("--format", "formats", type=Format(["gguf", "onnx", "all"]), default="gguf", show_default=True)
@click.option("--quant", default=None, help="Q8_0, Q4_K_M, auto ... (gguf), fp32, fp16, int8, int4 (onnx).")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder (default: export/ in the run).")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    default=None,
    help="Texts for the importance matrix, rows with prompt, rationale, answer (default: the run's rationales).",
)
@click.option("--imatrix/--no-imatrix", "importance", default=True, help="Use an importance matrix.  [default: yes]")
@click.option(
    "--tensor", "tensors", multiple=True, metavar="NAME=TYPE", help="Type of tensors, e.g. blk.*.ffn_down.weight=Q6_K."
)
@click.option("--minutes", type=click.FloatRange(0.1), default=15.0, show_default=True, help="Time for --quant auto.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Points of dev accuracy that --quant auto may lose.",
)
@click.option(
    "--items", type=click.IntRange(1), default=None, help="Dev items for the checks.  [default: 200; auto: 1000]"
)
@click.option("--block-size", type=int, default=None, help="ONNX: weights to a scale, 16 to 256.  [default: 32]")
@click.option(
    "--accuracy-level",
    type=int,
    default=None,
    help="ONNX: activations as 1 fp32, 2 fp16, 3 bf16, 4 int8.  [default: 4]",
)
@click.option("--algorithm", default=None, help="ONNX: rtn, k_quant, k_quant_mixed ...  [default: by type and size]")
@click.option(
    "--backend",
    type=click.Choice(["auto", "builder", "exporters", "optimum"]),
    default="auto",
    show_default=True,
    help="ONNX: onnxruntime-genai's builder, transformers.exporters or optimum-onnx.",
)
@click.option(
    "--optimum-python",
    type=click.Path(path_type=Path),
    default=None,
    help="Python of optimum-onnx, or its environment's folder.  [default: $BRIDGE_EDGE_OPTIMUM]",
)
@runs_option
@threads_option
@json_option
def export(
    model: str | None,
    formats: str,
    out: Path | None,
    runs_dir: Path,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Quantise and convert a student (default: the latest finished run's) and prove that it says the same."""
    from bridge_edge.deliver import chosen_model
    from bridge_edge.shipping import ExportOptions, export_text, export_to

    source = chosen_model(model, runs_dir)
    chosen = ["gguf", "onnx"] if formats == "all" else [formats]
    results = export_to(source, chosen, ExportOptions(**options), out, threads)
    emit(as_json, {"exports": results}, export_text(results))


@click.command()
@click.argument("model", required=False)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="Repository on the hub; made where it is missing.")
@click.option("--yes", is_flag=True, help="Upload; without it the files are only listed.")
@click.option("--public", is_flag=True, help="Make a new repository public.")
@click.option("--key", type=click.Path(path_type=Path), default=None, help="Public key: send only what it confirms.")
@runs_option
@json_option
def push(
    model: str | None, repo: str, yes: bool, public: bool, key: Path | None, runs_dir: Path, as_json: bool
) -> None:
    """Upload an export (a run with one, or its folder) to the hub; a dry run unless --yes is given."""
    from bridge_edge.parcel import find
    from bridge_edge.push import push as run_push
    from bridge_edge.push import push_text

    told = run_push(find(model, runs_dir), repo, yes, public, key)
    emit(as_json, told, push_text(told))


@click.command()
@click.argument("model", required=False)
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Private elliptic-curve key, PEM.")
@click.option("--password-env", default=None, metavar="NAME", help="Variable with the key's password.")
@runs_option
@json_option
def sign(model: str | None, key: Path, password_env: str | None, runs_dir: Path, as_json: bool) -> None:
    """Sign an export with your own key (model.sig, as model-signing writes it)."""
    from bridge_edge.parcel import find
    from bridge_edge.parcel import sign as run_sign

    parcel = run_sign(find(model, runs_dir), key, password_env)
    told = {"folder": str(parcel.folder), "files": parcel.names(), "signed": parcel.signed}
    emit(as_json, told, f"signed {len(parcel.files)} files of {parcel.folder}")


@click.command()
@click.argument("model", required=False)
@click.option("--key", type=click.Path(path_type=Path), default=None, help="Public key: check the signature too.")
@runs_option
@json_option
def verify(model: str | None, key: Path | None, runs_dir: Path, as_json: bool) -> None:
    """Check that an export is whole (SHA256SUMS) and, with a public key, whose it is."""
    from bridge_edge.parcel import find
    from bridge_edge.parcel import verify as run_verify

    parcel = run_verify(find(model, runs_dir), key)
    told = {"folder": str(parcel.folder), "files": parcel.names(), "signature": key is not None}
    words = "the sums and the signature hold" if key else "the sums hold"
    emit(as_json, told, f"{parcel.folder}: {len(parcel.files)} files, {words}")
