from __future__ import annotations

from pathlib import Path

import pytest

from edge_restore.errors import ModelError
from edge_restore.models import zoo
from edge_restore.models.cards import ModelCard, card_path, verify


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    for name in ("svdn.onnx", "svdn-gridsample.onnx", "lmfn.onnx"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_name_is_its_files_best_first(folder: Path) -> None:
    assert zoo.names() == ["lmfn", "svdn"]
    assert zoo.find("svdn") == [folder / "svdn.onnx", folder / "svdn-gridsample.onnx"]
    assert zoo.find("lmfn") == [folder / "lmfn.onnx"]


def test_variants_for_engines_are_no_models_of_their_own(folder: Path) -> None:
    for variant in ("plugin", "plugin-fp16", "gridsample-fp16", "gridsample-int8"):
        (folder / f"svdn-{variant}.onnx").touch()
    for variant in ("", "-fp16", "-int8"):
        (folder / f"plain{variant}.onnx").touch()
    (folder / "lost-plugin-fp16.onnx").touch()
    assert zoo.names() == ["lmfn", "plain", "svdn"]
    assert zoo.find("svdn") == [folder / "svdn.onnx", folder / "svdn-gridsample.onnx"]
    assert zoo.find("plain") == [folder / "plain.onnx"]


@pytest.mark.parametrize(
    ("flavour", "precision", "expected"),
    [
        ("tensorrt", "fp32", ["svdn-plugin", "svdn-gridsample", "svdn"]),
        ("tensorrt", "fp16", ["svdn-plugin-fp16", "svdn-gridsample-fp16"]),
        ("tensorrt", "int8", []),
        ("rtx", "fp32", ["svdn-gridsample", "svdn"]),
        ("rtx", "fp16", ["svdn-gridsample-fp16"]),
    ],
)
def test_what_engines_are_built_from(
    flavour: str, precision: str, expected: list[str], folder: Path
) -> None:
    for variant in ("plugin", "plugin-fp16", "gridsample-fp16"):
        (folder / f"svdn-{variant}.onnx").touch()
    files = [folder / f"{stem}.onnx" for stem in expected]
    assert zoo.engine_files("svdn", flavour, precision) == files


def test_a_path_is_itself(folder: Path) -> None:
    model = folder / "mine.onnx"
    model.touch()
    with pytest.raises(ModelError, match="it has no card"):
        zoo.find(model)
    card_path(model).touch()
    assert zoo.find(str(model)) == [model]


@pytest.mark.parametrize("name", ["unknown", "../svdn", "", "svdn-gridsample"])
def test_unknown_name_lists_the_known(folder: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        zoo.find(name)
    assert "lmfn, svdn" in str(caught.value)


def test_missing_file(folder: Path) -> None:
    with pytest.raises(ModelError, match="no model file"):
        zoo.find(folder / "missing.onnx")


def test_shipped_models_are_what_their_cards_say() -> None:
    assert "svdn" in zoo.names()
    assert [file.name for file in zoo.find("svdn")] == ["svdn.onnx", "svdn-gridsample.onnx"]
    for name in zoo.names():
        for file in zoo.find(name):
            card = verify(card_path(file))
            assert isinstance(card, ModelCard)
            assert card.onnx.file == file.name
            assert card.scores


def test_shipped_int8_models_have_passed_their_gate() -> None:
    files = sorted(zoo.FOLDER.glob("*-int8.onnx"))
    assert {zoo._name(file.stem) for file in files} == set(zoo.names())
    for file in files:
        card = verify(card_path(file))
        assert isinstance(card, ModelCard) and card.quantisation is not None
        assert card.precision == "int8" and card.quantisation.macs_share >= 0.6
        assert card.gate is not None and card.gate.passed, file.name
        assert {one.set for one in card.gate.sets} == {"urban_medium", "gopro_istanbul"}


def test_a_network_without_weights_says_how_to_get_them(folder: Path) -> None:
    with pytest.raises(ModelError, match="no weights of 'fcn' are shipped") as caught:
        zoo.find("fcn")
    assert "train fcn and export it" in str(caught.value)
