"""Small ONNX models with cards, as the backends take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore.models.cards import FileDigest, ModelCard, Parity, TensorPort, card_path
from edge_restore.storage.files import sha256

MULTIPLE = 4
REACH = 66
"""How far a pixel of the network's output sees: its receptive field's radius."""


def write_model(folder: Path, form: str = "camera", name: str = "small") -> Path:
    """A network of real convolutions with random weights, and its card; the path of the ONNX file.

    It halves the picture twice, sees `REACH` pixels far by dilation, comes back to full size and
    adds the input, so that sizes that are no multiples of `MULTIPLE` fail in its addition.
    """
    pytest.importorskip("onnx", reason="the model is built with onnx")
    from onnx import TensorProto, checker, helper, save

    random = np.random.default_rng(3)
    tensors, nodes = [], []

    def constant(label: str, values: Any) -> str:
        array = np.asarray(values, np.float32)
        tensors.append(
            helper.make_tensor(label, TensorProto.FLOAT, array.shape, array.ravel().tolist())
        )
        return label

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        label = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [label], **attributes))
        return label

    def convolve(image: str, into: int, out_of: int, size: int, **attributes: Any) -> str:
        scale = 1.2 / np.sqrt(into * size * size)
        weights = random.normal(0, scale, (out_of, into, size, size))
        return add("Conv", image, constant(f"w{len(nodes)}", weights), **attributes)

    if form == "camera":
        image = add("Cast", "image", to=TensorProto.FLOAT)
        image = add("Mul", image, constant("unit", 1 / 255))
        image = add("Transpose", image, perm=[0, 3, 1, 2])
    else:
        image = add("Identity", "image")
    features = convolve(image, 3, 8, 3, pads=[1] * 4, strides=[2, 2])
    features = convolve(add("Relu", features), 8, 8, 3, pads=[1] * 4, strides=[2, 2])
    for dilation in (1, 2, 4, 8):
        features = add("Relu", features)
        dilated = {"pads": [dilation] * 4, "dilations": [dilation] * 2}
        features = convolve(features, 8, 8, 3, **dilated)
    for inputs, outputs in ((8, 8), (8, 3)):
        weights = constant(f"u{inputs}{outputs}", random.normal(0, 0.05, (inputs, outputs, 4, 4)))
        features = add("ConvTranspose", features, weights, pads=[1] * 4, strides=[2, 2])
    restored = add("Add", image, features)
    restored = add("Clip", restored, constant("low", 0.0), constant("high", 1.0))
    if form == "camera":
        restored = add("Round", add("Mul", restored, constant("levels", 255.0)))
        restored = add("Transpose", restored, perm=[0, 2, 3, 1])
        nodes.append(helper.make_node("Cast", [restored], ["restored"], to=TensorProto.UINT8))
    else:
        nodes.append(helper.make_node("Identity", [restored], ["restored"]))

    camera = form == "camera"
    kind = TensorProto.UINT8 if camera else TensorProto.FLOAT
    shape = (1, "height", "width", 3) if camera else (1, 3, "height", "width")
    ports = [helper.make_tensor_value_info(n, kind, shape) for n in ("image", "restored")]
    graph = helper.make_graph(nodes, name, ports[:1], ports[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    checker.check_model(model, full_check=True)
    path = folder / f"{name}.onnx"
    save(model, path)
    write_card(path, form)
    return path


def write_card(path: Path, form: str = "camera", **changes: Any) -> Path:
    """Write a card for whatever the file `path` holds; the card's path."""
    camera = form == "camera"
    dtype, layout = ("uint8", "NHWC") if camera else ("float32", "NCHW")
    shape = (1, None, None, 3) if camera else (1, 3, None, None)
    fields: dict[str, Any] = {
        "name": path.stem,
        "network": "svdn",
        "task": "deblur",
        "form": form,
        "deformable": "none",
        "opset": 19,
        "multiple": MULTIPLE,
        "input": TensorPort("image", dtype, layout, shape),
        "output": TensorPort("restored", dtype, layout, shape),
        "onnx": FileDigest(path.name, sha256(path), path.stat().st_size),
        "weights": FileDigest("none.safetensors", "0" * 64),
        "parameters": 1,
        "parity": (Parity(96, 128, 0.0),),
        "scores": (),
        "licence": "Apache-2.0",
        "command": "written by a test",
        **changes,
    }
    card = card_path(path)
    ModelCard(**fields).write(card)
    return card
