"""The models that ship with the package, and how a model's name becomes its files."""

from __future__ import annotations

from pathlib import Path

from edge_restore.cards import card_path
from edge_restore.errors import ModelError

FOLDER = Path(__file__).parent

_VARIANTS = ("", "-gridsample")
"""What a name's files are called, best first: standard DeformConv nodes, then the same network
with DeformConv lowered to GridSample for runtimes that have no kernel for it."""


def names() -> list[str]:
    """The models in the zoo, sorted."""
    stems = {file.stem for file in FOLDER.glob("*.onnx")}
    return sorted(stem.removesuffix(_VARIANTS[1]) for stem in stems if _is_main(stem, stems))


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
        raise ModelError(
            f"there is no model '{name}'",
            expected=f"one of {', '.join(names()) or '(the zoo is empty)'}, or the path "
            "of an .onnx file with a card beside it",
            mend="list the models with `edge-restore models`",
        )
    if not path.is_file():
        raise ModelError(
            f"there is no model file '{path}'",
            expected="an .onnx file",
            mend="check the path, or list the shipped models with `edge-restore models`",
        )
    if not card_path(path).is_file():
        raise ModelError(
            f"the model file '{path}' is not one of ours: it has no card",
            expected=f"'{card_path(path).name}' beside it, which says how to feed the model",
            mend="export it with `python -m export`, which writes both",
        )
    return [path]


def _is_main(stem: str, stems: set[str]) -> bool:
    return not stem.endswith(_VARIANTS[1]) or stem.removesuffix(_VARIANTS[1]) not in stems
