from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_restore.errors import CardError
from edge_restore.models.cards import ModelCard, WeightsCard, card_path, verify
from edge_restore.storage.files import sha256

SCORE = {
    "set": "validation synthetic blur",
    "images": 24,
    "psnr_input": 26.1,
    "ssim_input": 0.8,
    "psnr": 28.4,
    "ssim": 0.87,
}


def weights_card() -> dict[str, Any]:
    return {
        "schema": "edge_restore.weights_card/1",
        "network": "svdn",
        "arguments": {},
        "parameters": 808532,
        "multiple": 2,
        "weights": {"file": "svdn.safetensors", "sha256": "a" * 64, "bytes": 3},
        "recipe": {"steps": 10, "deep": {"er": [1, 2]}},
        "data": {"pack_sha256": "b" * 64, "files": ["one.jpg"]},
        "training": {"steps": 10, "minutes": 1.5, "machine": "two cores", "torch": "2.13.0"},
        "scores": [SCORE],
        "licence": "Apache-2.0",
        "command": "python -m train svdn",
    }


def model_card() -> dict[str, Any]:
    port = {"name": "image", "dtype": "uint8", "layout": "NHWC", "shape": [1, None, None, 3]}
    return {
        "schema": "edge_restore.model_card/1",
        "name": "svdn",
        "network": "svdn",
        "task": "deblur",
        "form": "camera",
        "deformable": "DeformConv",
        "opset": 20,
        "multiple": 2,
        "input": port,
        "output": {**port, "name": "restored"},
        "onnx": {"file": "svdn.onnx", "sha256": "c" * 64, "bytes": 4},
        "weights": {"file": "svdn.safetensors", "sha256": "a" * 64},
        "parameters": 808532,
        "parity": [{"height": 96, "width": 128, "max_abs_difference": 1e-6}],
        "scores": [SCORE],
        "licence": "Apache-2.0",
        "command": "python -m export svdn",
    }


@pytest.mark.parametrize(
    ("kind", "document"), [(WeightsCard, weights_card()), (ModelCard, model_card())]
)
def test_round_trip(kind: Any, document: dict[str, Any], tmp_path: Path) -> None:
    card = kind.from_json(document)
    assert card.to_json() == document
    card.write(tmp_path / "x.card.json")
    assert kind.read(tmp_path / "x.card.json") == card
    assert json.loads((tmp_path / "x.card.json").read_text()) == document


def test_a_card_of_an_fp16_graph(tmp_path: Path) -> None:
    document = model_card()
    document["deformable"] = "plugin"
    document["parity"][0]["psnr"] = 71.5
    document |= {"precision": "fp16", "fp32_islands": ["camera/Mul", "Add_3"]}
    card = ModelCard.from_json(document)
    assert (card.precision, card.fp32_islands) == ("fp16", ("camera/Mul", "Add_3"))
    assert card.parity[0].psnr == 71.5
    assert card.to_json() == document
    card.write(tmp_path / "x.card.json")
    assert ModelCard.read(tmp_path / "x.card.json") == card


def test_a_card_from_before_there_were_precisions() -> None:
    card = ModelCard.from_json(model_card())
    assert (card.precision, card.fp32_islands, card.parity[0].psnr) == ("fp32", (), None)


def test_bad_precisions() -> None:
    document = model_card()
    document |= {"precision": "fp64", "fp32_islands": [1], "deformable": "Plugin"}
    document["parity"][0]["psnr"] = "high"
    with pytest.raises(CardError) as caught:
        ModelCard.from_json(document)
    for part in ('precision is "fp64"', "fp32_islands is [1]", "deformable", "parity[0].psnr"):
        assert part in str(caught.value)


def test_all_errors_at_once() -> None:
    document = model_card()
    del document["opset"]
    document["form"] = "cinema"
    document["multiple"] = True
    document["input"]["shape"] = [1, 2]
    document["onnx"]["sha256"] = "A" * 64
    document["scores"][0] = {**SCORE, "psnr": float("nan")}
    document["parity"] = "none"
    with pytest.raises(CardError) as caught:
        ModelCard.from_json(document, "'x.card.json'")
    message = str(caught.value)
    for part in (
        "'x.card.json' is not a card",
        "opset is missing (an integer of 1 or more)",
        'form is "cinema", not "camera" or "float"',
        "multiple is true, not an integer",
        "input.shape is [1, 2]",
        "onnx.sha256 is",
        "scores[0].psnr is NaN, not a finite number",
        'parity is "none", not a list of JSON objects',
    ):
        assert part in message
    assert message.count("\n    - ") == 7


@pytest.mark.parametrize("document", [[], None, 3, "card", {}, {"schema": "other/1"}])
def test_what_is_no_card_at_all(document: Any) -> None:
    with pytest.raises(CardError):
        WeightsCard.from_json(document)
    with pytest.raises(CardError):
        ModelCard.from_json(document)


@pytest.mark.parametrize("name", ["../svdn.onnx", "/etc/passwd", "a\\b", "..", ""])
def test_a_card_cannot_point_out_of_its_folder(name: str) -> None:
    document = model_card()
    document["onnx"]["file"] = name
    with pytest.raises(CardError, match="plain file name"):
        ModelCard.from_json(document)


def test_verify(tmp_path: Path) -> None:
    file = tmp_path / "svdn.onnx"
    file.write_bytes(b"onnx")
    document = model_card()
    document["onnx"]["sha256"] = sha256(file)
    card = ModelCard.from_json(document)
    card.write(card_path(file))
    assert verify(card_path(file)) == card

    file.write_bytes(b"xnno")
    with pytest.raises(CardError, match="does not match its card"):
        verify(card_path(file))
    file.unlink()
    with pytest.raises(CardError, match="not beside it"):
        verify(card_path(file))


def test_verify_reads_weights_cards_too(tmp_path: Path) -> None:
    file = tmp_path / "svdn.safetensors"
    file.write_bytes(b"abc")
    document = weights_card()
    document["weights"]["sha256"] = sha256(file)
    WeightsCard.from_json(document).write(card_path(file))
    assert isinstance(verify(card_path(file)), WeightsCard)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, None])
def test_unreadable_card(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.card.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CardError, match=r"x\.card\.json"):
        verify(path)
    with pytest.raises(CardError, match=r"x\.card\.json"):
        WeightsCard.read(path)


def test_card_path() -> None:
    assert card_path("zoo/svdn-gridsample.onnx") == Path("zoo/svdn-gridsample.card.json")
