"""The models that ship with the package, and how a model's name becomes its files."""

from __future__ import annotations

from pathlib import Path

from edge_restore.errors import ModelError
from edge_restore.models.cards import card_path
from edge_restore.storage.files import check_input

FOLDER = Path(__file__).parent

NETWORKS = {"svdn": 808_860, "lmfn": 1_238_692, "drcnet": 18_973_666, "fcn": 20_275_884}
"""The networks that `python -m train` knows, with their parameters: some have no weights here."""

_VARIANTS = ("", "-gridsample")
"""What a name's files are called that ONNX Runtime can run, best first: standard DeformConv nodes,
then the same network with DeformConv lowered to GridSample for runtimes that have no kernel."""

_ENGINE_VARIANTS = {
    # The standard library's own DeformConv plugin is the last resort, and only in FP32: in FP16
    # it rounds coordinates. TensorRT-RTX has no plugins.
    ("tensorrt", "fp32"): ("-plugin", "-gridsample", ""),
    ("tensorrt", "fp16"): ("-plugin-fp16", "-gridsample-fp16", "-fp16"),
    ("tensorrt", "int8"): ("-plugin-int8", "-gridsample-int8", "-fp16-int8", "-int8"),
    ("rtx", "fp32"): ("-gridsample", ""),
    ("rtx", "fp16"): ("-gridsample-fp16", "-fp16"),
    ("rtx", "int8"): ("-gridsample-int8", "-fp16-int8", "-int8"),
}
"""What an engine is built from, best first, for a flavour of TensorRT and a precision."""


def names() -> list[str]:
    """The models in the zoo, sorted."""
    stems = {file.stem for file in FOLDER.glob("*.onnx")}
    return sorted({_name(stem) for stem in stems if _name(stem) in stems or _runs(stem)})


def find(name: str | Path) -> list[Path]:
    """The ONNX files to try, in order, for a zoo name or for the path of an exported file.

    Raises:
        ModelError: no such name or file, or the file has no card beside it.
    """
    files = [FOLDER / f"{name}{variant}.onnx" for variant in _VARIANTS]
    if str(name) in names():
        return [file for file in files if file.is_file()]
    path = Path(name)
    if path.suffix.lower() != ".onnx":
        found, hint = f"there is no model '{name}'", "list the models with `edge-restore models`"
        if str(name) in NETWORKS:
            found = f"no weights of '{name}' are shipped"
            hint = f"train {name} and export it (docs/train_your_own.md)"
        raise ModelError(
            found,
            expected=f"one of {', '.join(names()) or '(the zoo is empty)'}, or the path "
            "of an .onnx file with a card beside it",
            hint=hint,
        )
    check_input(path, "the model file", ModelError)
    check_input(card_path(path), "the card", ModelError)
    if not path.is_file():
        raise ModelError(
            f"there is no model file '{path}'",
            expected="an .onnx file",
            hint="check the path, or list the shipped models with `edge-restore models`",
        )
    if not card_path(path).is_file():
        raise ModelError(
            f"the model file '{path}' is not one of ours: it has no card",
            expected=f"'{card_path(path).name}' beside it, which says how to feed the model",
            hint="export it with `python -m export`, which writes both",
        )
    return [path]


def without_weights() -> list[str]:
    """The networks that can be trained, exported and run, but are not shipped."""
    return [name for name in NETWORKS if name not in names()]


def engine_files(name: str, flavour: str, precision: str) -> list[Path]:
    """The zoo's ONNX files that an engine of `name` can be built from, best first; maybe none.

    Without deformable convolutions a network has no variants but those of its precision.
    """
    variants = _ENGINE_VARIANTS[flavour, precision]
    files = [FOLDER / f"{name}{variant}.onnx" for variant in variants]
    return [file for file in files if file.is_file()]


def _name(stem: str) -> str:
    """The model's name in a file's stem: "svdn" of "svdn-gridsample-fp16"."""
    suffixes = {v for variants in _ENGINE_VARIANTS.values() for v in variants if v}
    for suffix in sorted(suffixes, key=len, reverse=True):
        if stem.endswith(suffix):
            return stem.removesuffix(suffix)
    return stem


def _runs(stem: str) -> bool:
    """Whether the file alone makes a model for ONNX Runtime."""
    return stem == _name(stem) or stem == f"{_name(stem)}{_VARIANTS[1]}"
