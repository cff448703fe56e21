"""Training with quantisation: the same numbers as the Q/DQ graph, and weights that it writes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from calibration import qat, qdq, quantiser
from calibration.__main__ import main
from calibration.runner import Runner
from calibration.scales import Scales
from edge_restore.errors import ModelError
from edge_restore.media.metrics import psnr
from edge_restore.models.cards import verify
from tests.calibration.conftest import export, picture
from train import packing
from train.networks import create

RECIPE = """
network = "svdn"
arguments = { width = 8 }
[data]
patch = 32
batch = 2
[optimiser]
steps = 3
rate = 1e-4
[loss]
kind = "l2"
[validation]
every = 3
patches = 2
size = 32
"""


def restored(network, frame):
    image = torch.from_numpy(frame.transpose(2, 0, 1)[None]).float() / 255
    with torch.inference_mode():
        levels = (network(image).clamp(0, 1) * 255).round()
    return levels[0].permute(1, 2, 0).byte().numpy()


@pytest.mark.parametrize("name", ["svdn", "lmfn"])
def test_training_computes_what_the_graph_computes(
    name, models, lmfn, network, lmfn_network, frames
):
    path, source = (models["fp32"], network) if name == "svdn" else (lmfn, lmfn_network)
    model, card = quantiser.load(path)
    found = quantiser.find_scales(model, card, frames)
    learnt = qat.trainable(found)
    trained = create(name, width=8)
    trained.load_state_dict(source.state_dict())
    qat.attach(learnt)(trained.eval())
    frame = picture(60)
    graph = Runner(qdq.insert(model, learnt), card).restored(frame)
    plain = Runner(model, card).restored(frame)
    # Now and then a value on the border of two levels falls to the other side.
    assert psnr(restored(trained, frame), graph) > psnr(plain, graph) + 8
    assert len(learnt.skips) == {"svdn": 9}.get(name, len(learnt.skips)) > 0


def test_parameters_keep_their_names_and_get_gradients(models, network, frames):
    model, card = quantiser.load(models["fp32"])
    learnt = qat.trainable(quantiser.find_scales(model, card, frames))
    trained = create("svdn", width=8)
    trained.load_state_dict(network.state_dict())
    qat.attach(learnt)(trained)
    assert trained.state_dict().keys() == network.state_dict().keys()
    trained(torch.rand(1, 3, 16, 16)).square().mean().backward()
    for layer in trained.modules():
        if isinstance(layer, qat.Int8Conv2d):
            assert layer.weight.grad.abs().sum() > 0


def test_rounding_lets_gradients_through_inside_the_range():
    x = torch.tensor([0.26, -5.0, 0.1], requires_grad=True)
    y = qat.rounded(x, 0.01)
    y.sum().backward()
    np.testing.assert_allclose(y.detach(), [0.26, -1.27, 0.1], atol=1e-6)
    assert x.grad.tolist() == [1, 0, 1]


def test_skips_inside_a_module_stay_as_they_are(lmfn, frames):
    found = quantiser.find_scales(*quantiser.load(lmfn), frames)
    learnt = qat.trainable(found)
    assert set(learnt.skips) < set(found.skips) and learnt.method == "qat"


def test_scales_of_another_network_are_refused(models, frames):
    found = quantiser.find_scales(*quantiser.load(models["fp32"]), frames)
    stray = replace(found, layers={"nothing.0/Conv": 0.1}, skips=())
    with pytest.raises(ModelError, match=r"no convolution 'nothing\.0'"):
        qat.attach(stray)(create("svdn", width=8))


@pytest.mark.parametrize("skip", ["nothing/Add", "Add", "body.0/Add"])
def test_skip_connections_of_another_network_are_refused(skip, models, frames):
    found = quantiser.find_scales(*quantiser.load(models["fp32"]), frames)
    stray = replace(found, skips=(skip,))
    with pytest.raises(ModelError, match="skip connection of"):
        qat.attach(stray)(create("svdn", width=8))


def test_from_the_command_to_an_int8_graph(models, frames_file, tmp_path, capsys):
    for seed in (1, 2):
        sharp = cv2.cvtColor(picture(seed, (240, 260)), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(tmp_path / f"p{seed}.png"), sharp)
    packing.make([tmp_path], tmp_path / "pack.npz", packing.Names(validation={"p2.png"}))
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    scales = tmp_path / "s.json"
    words = ["quantise", models["fp32"], "--frames", frames_file, "--scales-out", scales]
    assert main([str(w) for w in (*words, "--out", tmp_path / "ptq.onnx")]) == 0
    out = tmp_path / "run"
    words = ["qat", recipe, "--scales", scales, "--init", models["weights"], "--device", "cpu"]
    assert main([str(w) for w in (*words, "--data", tmp_path / "pack.npz", "--out", out)]) == 0
    assert "scales.json: export" in capsys.readouterr().out
    card = verify(out / "svdn.card.json")
    assert card.command.startswith("python -m calibration qat")
    learnt = Scales.read(out / "scales.json")
    assert learnt.weights_sha256 == card.weights.sha256 and learnt.method == "qat"
    made = export(tmp_path, out / "svdn.safetensors", "svdn", "trained.onnx")
    words = ["quantise", made, "--scales", out / "scales.json", "--out", tmp_path / "qat.onnx"]
    assert main([str(w) for w in words]) == 0
    assert verify(tmp_path / "qat.card.json").quantisation.method == "qat"
    recipe.write_text(RECIPE.replace("svdn", "lmfn"))
    words = ["qat", recipe, "--scales", scales, "--init", models["weights"]]
    assert main([str(w) for w in (*words, "--data", tmp_path / "pack.npz", "--out", out)]) == 2
    assert "the recipe trains lmfn, the scales are of svdn" in capsys.readouterr().err
