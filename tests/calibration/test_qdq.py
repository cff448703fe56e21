"""Where Q/DQ nodes are put, and what the graph then computes."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration import layers, qdq, quantiser, ranges
from calibration.__main__ import main
from calibration.runner import Runner
from calibration.scales import Scales
from edge_restore.errors import DataError, ModelError, OptionError
from edge_restore.media.metrics import psnr
from edge_restore.models.cards import ModelCard, card_path, verify
from tests.calibration.conftest import picture


@pytest.fixture(scope="module")
def scales(models, frames):
    model, card = quantiser.load(models["fp32"])
    return quantiser.find_scales(model, card, frames)


@pytest.fixture(scope="module")
def placed(models, scales):
    return qdq.insert(quantiser.load(models["fp32"])[0], scales)


def by_name(model):
    return {node.name: node for node in model.graph.node}


def constants(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_each_layer_reads_a_pair_and_int8_weights(placed, scales):
    makers = {t: node for node in placed.graph.node for t in node.output}
    values = constants(placed)
    for name, step in scales.layers.items():
        node = by_name(placed)[name]
        activation, weight = makers[node.input[0]], makers[node.input[1]]
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert values[activation.input[1]] == np.float32(step)
        assert makers[activation.input[0]].op_type == "QuantizeLinear"
        assert values[weight.input[0]].dtype == np.int8
        assert values[weight.input[1]].shape == (len(values[weight.input[0]]),)
        assert [a.i for a in weight.attribute if a.name == "axis"] == [0]


def test_a_tensor_has_one_pair_however_many_read_it(placed):
    read = [n.input[0] for n in placed.graph.node if n.op_type == "QuantizeLinear"]
    assert len(read) == len(set(read)) == 20


def test_skip_connections_read_the_pair(placed, scales):
    assert len(scales.skips) == 9
    for name in scales.skips:
        taken = by_name(placed)[name].input
        assert sum(t.endswith("/dequantised") for t in taken) == 1
    # the additions around a group are none of a convolution's result
    assert not any(t.endswith("/dequantised") for t in by_name(placed)["Add"].input)


def test_nothing_else_is_changed(placed, models):
    before = {n.name: n for n in quantiser.load(models["fp32"])[0].graph.node}
    scaled = {"Conv", "Add"}
    for name, node in by_name(placed).items():
        if name in before and node.op_type not in scaled:
            assert node == before[name]


def test_both_sides_of_a_concatenation_have_one_step(scales):
    around = ["groups.1.0.body.0/Conv", "groups.2.0.body.0/Conv", "fusion/Conv"]
    assert len({scales.layers[name] for name in around}) == 1


@pytest.mark.parametrize("method", ["mse", "percentile"])
def test_mse_counts_each_frame_beside_its_own_power(models, frames, method):
    """Of frames that differ much: all but the last are dark."""
    model, card = quantiser.load(models["fp32"])
    frames = replace(frames, pixels=np.concatenate([frames.pixels[:-1] // 16, frames.pixels[-1:]]))
    tensor = by_name(model)["groups.1.1.body.0/Conv"].input[0]
    runner = Runner(model, card, [tensor])
    held = [runner.activations(pixels)[tensor] for pixels in frames.pixels]
    seen = ranges.Histogram.empty(max(float(np.abs(values).max()) for values in held))
    for values in held:
        seen.add(values, relative=method == "mse")
    expected = ranges.scale(ranges.threshold(seen, method))
    assert quantiser.steps_of(model, card, frames, [tensor], method) == {tensor: expected}


def test_weights_round_to_the_nearest_level_per_channel():
    random = np.random.default_rng(0)
    weights = random.normal(0, [[[[1.0]]], [[[0.01]]]], (2, 3, 3, 3)).astype(np.float32)
    levels, steps = qdq.quantise_weights(weights)
    assert levels.dtype == np.int8 and np.abs(levels).max() == 127
    error = np.abs(levels * steps.reshape(2, 1, 1, 1) - weights)
    assert (error <= 0.52 * steps.reshape(2, 1, 1, 1)).all()
    assert steps[0] > 20 * steps[1]
    zeros, _ = qdq.quantise_weights(np.zeros((1, 2, 3, 3), np.float32))
    assert not zeros.any()


def test_the_picture_stays_near(models, placed):
    model, card = quantiser.load(models["fp32"])
    frame = picture(50)
    found, expected = (Runner(m, card).restored(frame) for m in (placed, model))
    assert 35 < psnr(found, expected) < 70


def test_one_layer_computes_what_the_levels_say(models, scales):
    """A convolution of integers, done by hand, is what ONNX Runtime gives for the graph."""
    name = "groups.1.1.body.0/Conv"
    model, card = quantiser.load(models["fp32"])
    one = qdq.place(model, {name: scales.layers[name]}, ())
    node, values = by_name(one)[name], constants(one)
    source = by_name(one)["groups.1.0/Add/QuantizeLinear"].input[0]
    got = Runner(one, card, [source, node.output[0]]).activations(picture(51))
    step = scales.layers[name]
    levels = np.clip(np.rint(got[source] / np.float32(step)), -127, 127)
    weights, steps = values[f"{name}:weight_int8"], values[f"{name}:weight_scale"]
    (apart,) = [a.ints[0] for a in node.attribute if a.name == "dilations"]
    padded = np.pad(levels[0], ((0, 0), (apart, apart), (apart, apart)))
    wide = np.lib.stride_tricks.sliding_window_view(padded, (2 * apart + 1,) * 2, axis=(1, 2))
    windows = wide[..., ::apart, ::apart]
    sums = np.einsum("chwij,ocij->ohw", windows, weights.astype(np.float64))
    bias = values[node.input[2]]
    expected = sums * step * steps[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(got[node.output[0]][0], expected, atol=2e-5)


@pytest.mark.parametrize("form", ["gridsample-fp16", "plugin-fp16", "float"])
def test_the_same_scales_serve_every_form(models, scales, form, tmp_path):
    model, card = quantiser.load(models[form])
    out = tmp_path / "int8.onnx"
    written = quantiser.write(model, card, scales, out, command="python -m calibration")
    assert written.precision == "int8" and verify(card_path(out)) == written
    made = onnx.load(str(out))
    kind = np.float16 if "fp16" in form else np.float32
    values = constants(made)
    pairs = [n for n in made.graph.node if n.op_type == "DequantizeLinear"]
    assert len(pairs) == 40 and {values[n.input[1]].dtype.type for n in pairs} == {kind}
    if form == "gridsample-fp16":
        from calibration import gate

        frame = picture(52)
        found = gate.runner(out, made, written).restored(frame)
        expected = Runner(*quantiser.load(models["fp32"])).restored(frame)
        assert psnr(found, expected) > 35


def test_the_card_tells_how(models, scales, tmp_path):
    model, card = quantiser.load(models["fp32"])
    written = quantiser.write(model, card, scales, tmp_path / "a.onnx", command="python -m c")
    told = written.quantisation
    assert (told.rest, told.method, told.layers, told.frames) == ("fp32", "mse", 20, 4)
    assert told.set_sha256 == scales.set_sha256 and told.macs_share == scales.macs_share > 0.1
    assert written.gate is None and written.parity == ()
    document = json.loads(card_path(tmp_path / "a.onnx").read_text())
    assert ModelCard.from_json(document) == written
    document["precision"] = "fp16"
    with pytest.raises(Exception, match="quantisation or gate, though the precision is fp16"):
        ModelCard.from_json(document)


def test_lmfn_is_quantised_too(lmfn, frames):
    model, card = quantiser.load(lmfn)
    found = quantiser.find_scales(model, card, frames)
    assert found.macs_share > 0.6 and any(".refine" not in s for s in found.skips)
    frame = picture(53)
    expected = Runner(model, card).restored(frame)
    assert psnr(Runner(qdq.insert(model, found), card).restored(frame), expected) > 30


def test_quantising_twice_is_refused(models, scales, frames, tmp_path):
    model, card = quantiser.load(models["fp32"])
    quantiser.write(model, card, scales, tmp_path / "a.onnx", command="x")
    model, card = quantiser.load(tmp_path / "a.onnx")
    for again in (
        lambda: quantiser.write(model, card, scales, tmp_path / "b.onnx", command="x"),
        lambda: quantiser.find_scales(model, card, frames),
    ):
        with pytest.raises(ModelError, match="quantised already"):
            again()
    assert not (tmp_path / "b.onnx").exists()


def test_scales_of_other_weights_or_layers_are_refused(models, scales, tmp_path):
    model, card = quantiser.load(models["fp32"])
    others = replace(scales, weights_sha256="0" * 64)
    with pytest.raises(ModelError, match="the scales are of other weights"):
        quantiser.write(model, card, others, tmp_path / "a.onnx", command="x")
    stray = replace(scales, layers={"groups.9/Conv": 0.1})
    with pytest.raises(ModelError, match=r"no node 'groups.9/Conv'"):
        quantiser.write(model, card, stray, tmp_path / "a.onnx", command="x")
    assert not list(tmp_path.iterdir())


def test_layers_can_be_named(models):
    model, card = quantiser.load(models["fp32"])
    found = layers.layers(model, card.multiple)
    assert [la.name for la in quantiser.choose(found, only=["fusion/Conv"])] == ["fusion/Conv"]
    assert "fusion/Conv" not in {la.name for la in quantiser.choose(found, keep=["fusion/Conv"])}
    for wrong, message in (
        ({"only": ["tail/Conv"]}, "'tail/Conv' stays in floating point: the last"),
        ({"keep": ["nothing"]}, "no convolution 'nothing'"),
        ({"only": ["fusion/Conv"], "keep": ["fusion/Conv"]}, "no convolution is left"),
    ):
        with pytest.raises(OptionError, match=message):
            quantiser.choose(found, **wrong)


def test_the_scales_file(scales, tmp_path):
    path = tmp_path / "s.json"
    scales.write(path)
    assert Scales.read(path) == scales
    document = json.loads(path.read_text())
    document |= {"layers": {"a": 0, "b": "x"}, "method": "guess", "frames": 0}
    path.write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        Scales.read(path)
    for wrong in ("layers.a", "layers.b", "method", "frames"):
        assert wrong in str(caught.value)
    with pytest.raises(DataError, match="cannot be read as a scales file"):
        Scales.read(tmp_path / "missing.json")


def test_the_commands(models, frames_file, tmp_path, capsys):
    out, scales_file = tmp_path / "int8.onnx", tmp_path / "scales.json"
    common = ["--out", str(out)]
    first = ["quantise", str(models["fp32"]), "--frames", str(frames_file), *common]
    assert main([*first, "--scales-out", str(scales_file), "--method", "percentile"]) == 0
    assert "20 INT8 convolutions" in capsys.readouterr().out
    assert Scales.read(scales_file).method == "percentile"
    second = ["quantize", str(models["plugin-fp16"]), "--scales", str(scales_file)]
    assert main([*second, "--out", str(tmp_path / "plugin.onnx")]) == 0
    assert "the rest fp16" in capsys.readouterr().out
    assert main(["layers", str(models["fp32"])]) == 0
    assert "INT8: 20 layers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "it is not clear where the ranges come from"),
        (["--frames", "missing.npz"], "cannot be read as a calibration set"),
        (["--frames", "F", "--method", "max"], "no calibration method 'max'"),
        (["--frames", "F", "--only", "tail/Conv"], "the last convolution"),
        (["--scales", "S", "--keep", "fusion/Conv"], "--keep beside --scales"),
        (["--scales", "S", "--method", "minmax", "--float-skips"], "--float-skips, --method"),
        (["--frames", "F", "--percentile", "99"], "--percentile beside --method mse"),
    ],
)
def test_bad_input_is_one_error(models, frames_file, tmp_path, capsys, extra, message):
    extra = [str(frames_file) if word == "F" else word for word in extra]
    out = tmp_path / "int8.onnx"
    assert main(["quantise", str(models["fp32"]), "--out", str(out), *extra]) == 2
    said = capsys.readouterr().err
    assert message in said and "hint" in said and "Traceback" not in said
    assert not out.exists()


def test_frames_of_another_size_than_a_fixed_graph(models, frames_file, tmp_path, capsys):
    words = ["quantise", str(models["fixed"]), "--frames", str(frames_file)]
    assert main([*words, "--out", str(tmp_path / "int8.onnx")]) == 2
    assert "the graph takes 32x48 only; a frame, padded, is 64x96" in capsys.readouterr().err


def test_a_card_of_another_file_is_refused(models, frames_file, tmp_path, capsys):
    copy = tmp_path / "svdn.onnx"
    copy.write_bytes(models["fp32"].read_bytes() + b"x")
    card_path(copy).write_bytes(card_path(models["fp32"]).read_bytes())
    words = ["quantise", str(copy), "--frames", str(frames_file), "--out", str(tmp_path / "o.onnx")]
    assert main(words) == 2
    assert "does not match its card" in capsys.readouterr().err


def test_scales_of_another_network_are_refused(models, scales, tmp_path):
    model, card = quantiser.load(models["fp32"])
    other = replace(scales, network="lmfn")
    with pytest.raises(ModelError, match="the scales are of 'lmfn'"):
        quantiser.write(model, card, other, tmp_path / "q.onnx", command="a test")
