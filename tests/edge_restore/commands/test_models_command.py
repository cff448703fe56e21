"""`edge-restore models` and `edge-restore doctor` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_restore.cli import main
from edge_restore.models import zoo
from edge_restore.models.cards import Score, card_path
from tests.edge_restore.onnx_models import write_card, write_model

pytest.importorskip("onnxruntime")

SCORE = Score("gopro", 1, 24.05, 0.75, 24.5, 0.8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one good model and one that was changed after its card was written."""
    write_model(tmp_path, name="good")
    write_card(tmp_path / "good.onnx", scores=(SCORE,), parameters=808532)
    write_model(tmp_path, name="changed")
    with (tmp_path / "changed.onnx").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return tmp_path


def test_listing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    changed, good = out.splitlines()[1:3]
    assert "unusable" in changed and "does not match its card" in changed
    assert "808,532" in good and "camera, none" in good and good.endswith("yes")
    assert "24.05" in out and "24.50" in out and "0.8000" in out


def test_listing_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    changed, good = json.loads(capsys.readouterr().out)["models"]
    assert (changed["name"], changed["intact"]) == ("changed", False)
    assert "does not match" in changed["error"]
    assert good["intact"] and good["file"] == "good.onnx"
    assert good["card"] == json.loads(card_path(folder / "good.onnx").read_text())


def test_networks_without_weights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path, name="svdn")
    write_card(tmp_path / "svdn.onnx")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    missing = [line.split(":")[0] for line in lines if "no weights shipped" in line]
    assert missing == ["lmfn", "drcnet", "fcn"]
    assert main(["models", "--json"]) == 0
    missing = json.loads(capsys.readouterr().out)["no_weights_shipped"]
    assert missing[0] == {"name": "lmfn", "parameters": zoo.NETWORKS["lmfn"]}
    assert main(["run", "clip.mp4", "--out", "out.mp4", "--model", "drcnet"]) == 2


def test_empty_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    assert main(["models"]) == 0
    assert "no models are shipped" in capsys.readouterr().out
    assert main(["doctor"]) == 2
    assert "none is shipped" in capsys.readouterr().out


def test_doctor_tries_every_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in document["checks"]}
    assert checks["model good"]["ok"] and not checks["model changed"]["ok"]
    assert "copy the file and its card again" in checks["model changed"]["hint"]
    assert not document["ready"]
    (folder / "changed.onnx").unlink()
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ready"]
    assert document["machine"]["cores"] >= 1
    assert "numpy" in document["versions"]


def test_doctor_says_how_to_get_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "changed.onnx").unlink()
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "`edge-restore run` works here" in out
    for name in ("H.264 encoder", "H.264 decoder", "backend onnxruntime", "model good"):
        assert f"ok      {name}" in out
    if "no      tensorrt:" in out:
        assert "pip install 'edge-restore[gpu]'" in out
