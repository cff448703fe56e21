"""What layers cost, the frontier, and the picture of both."""

import json
import os
import signal

import numpy as np
import pytest

from calibration import (
    calibration_set,
    crops,
    frontier_plot,
    qdq,
    quantiser,
    sensitivity,
    statistics,
)  # fmt: skip
from calibration.__main__ import main
from calibration.runner import Runner
from calibration.scales import Scales
from edge_restore.errors import OptionError
from edge_restore.media.images import read_image
from tests.calibration.conftest import picture


@pytest.fixture(scope="module")
def measured(models, frames, pairs):
    model, card = quantiser.load(models["fp32"])
    pictures = crops.read(pairs, 2, 64)
    return sensitivity.measure(
        model, card, frames, pictures, sensitivity.SensitivityOptions(5.0, "minmax")
    )


def test_crops_are_the_middles_evenly_spread(pairs):
    found = crops.read(pairs, 2, 64)
    assert [crop.name for crop in found] == ["10.png", "12.png"]
    whole = read_image(pairs / "sharp" / "12.png")
    np.testing.assert_array_equal(found[1].sharp, whole[:, 16:80])
    assert crops.read(pairs, 9, 500)[0].blurred.shape == (64, 96, 3)
    with pytest.raises(OptionError, match="0 crops"):
        crops.read(pairs, 0, 64)


def test_each_layer_is_measured_alone(models, measured, pairs):
    found, _ = measured
    assert len(found.layers) == len(found.frontier) == 20
    model, card = quantiser.load(models["fp32"])
    pictures = crops.read(pairs, 2, 64)

    def psnr_of(graph):
        runner = Runner(graph, card)
        return crops.mean_psnr([runner.restored(c.blurred) for c in pictures], pictures)

    assert found.psnr == pytest.approx(psnr_of(model))
    _, scales = measured
    name = "groups.0.1.body.2/Conv"
    alone = psnr_of(qdq.place(model, {name: scales.layers[name]}, ()))
    drop = next(layer.drop for layer in found.layers if layer.name == name)
    assert drop == pytest.approx(found.psnr - alone) and drop != 0


def test_the_frontier_adds_the_cheapest_first(measured):
    found, _ = measured
    cost = {la.name: la.drop / la.macs_share for la in found.layers}
    order = [cost[point.added] for point in found.frontier]
    assert order == sorted(order)
    shares = [point.macs_share for point in found.frontier]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(
        sum(la.macs_share for la in found.layers)
    )
    assert [point.layers for point in found.frontier] == list(range(1, 21))


def test_the_largest_set_within_the_budget_is_taken(models, frames, pairs, measured):
    whole, _ = measured
    drops = [point.drop for point in whole.frontier]
    budget = sorted(drops)[len(drops) // 2]
    model, card = quantiser.load(models["fp32"])
    pictures = crops.read(pairs, 2, 64)
    found, scales = sensitivity.measure(
        model, card, frames, pictures, sensitivity.SensitivityOptions(budget, "minmax")
    )
    last = max(n for n, drop in enumerate(drops, 1) if drop <= budget)
    assert found.chosen == last < 20
    assert list(found.chosen_names()) == [p.added for p in whole.frontier[:last]]
    assert set(scales.layers) == set(found.chosen_names())
    assert scales.macs_share == pytest.approx(found.frontier[last - 1].macs_share)
    with pytest.raises(OptionError, match="no layer can be INT8 within -99 dB"):
        sensitivity.measure(
            model, card, frames, pictures, sensitivity.SensitivityOptions(-99, "minmax")
        )


def test_the_picture_shows_the_chosen_point(measured):
    found, _ = measured
    sheet = frontier_plot.draw(found)
    orange = (np.abs(sheet.astype(int) - frontier_plot._ORANGE).sum(axis=2) < 30).sum()
    assert orange > 300 and sheet.dtype == np.uint8


def test_of_many_layers_those_that_change_most_are_drawn(measured, monkeypatch):
    found, _ = measured
    tall = frontier_plot.draw(found).shape[0]
    monkeypatch.setattr(frontier_plot, "_MOST", 3)
    shown = frontier_plot._shown(found)
    assert len(shown) == 3 and shown == [one for one in found.layers if one in shown]
    least = min(abs(one.drop) for one in shown)
    assert all(abs(one.drop) <= least for one in found.layers if one not in shown)
    assert frontier_plot.draw(found).shape[0] <= tall


def test_the_command_writes_table_json_and_picture(models, frames_file, pairs, tmp_path, capsys):
    words = ["sensitivity", models["fp32"], "--frames", frames_file, "--pairs", pairs]
    words += ["--out", tmp_path / "s", "--images", 1, "--crop", 64, "--min-psnr", 9]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "one after another" in said and "within 9 dB: " in said
    document = json.loads((tmp_path / "s/sensitivity.json").read_text())
    assert document["schema"] == sensitivity.SCHEMA and len(document["layers"]) == 20
    chosen = {p["added"] for p in document["frontier"][: document["chosen"]]}
    assert set(Scales.read(tmp_path / "s/scales.json").layers) == chosen
    assert read_image(tmp_path / "s/sensitivity.png").shape[2] == 3


def sensitivity_of(models, frames_file, pairs, out, budget):
    words = ["sensitivity", models["fp32"], "--frames", frames_file, "--pairs", pairs]
    words += ["--out", out, "--images", 1, "--crop", 64, "--min-psnr", budget]
    return main([str(word) for word in words])


def test_the_table_is_kept_when_a_file_cannot_be_written(
    models, frames_file, pairs, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "s"
    draw = frontier_plot.draw

    def draw_too_late(*arguments):
        picture = draw(*arguments)
        (out / "sensitivity.png").mkdir()  # somebody takes the name while the work goes on
        return picture

    monkeypatch.setattr(frontier_plot, "draw", draw_too_late)
    assert sensitivity_of(models, frames_file, pairs, out, 9) == 2
    said, error = capsys.readouterr()
    assert "one after another" in said and "sensitivity.png" in error
    assert (out / "sensitivity.json").is_file() and (out / "scales.json").is_file()


def test_an_interruption_leaves_the_layers_so_far(
    models, frames_file, pairs, tmp_path, capsys, monkeypatch
):
    measured, psnr_of = [], sensitivity._psnr_of

    def interrupted(*arguments):
        measured.append(arguments)
        if len(measured) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return psnr_of(*arguments)

    monkeypatch.setattr(sensitivity, "_psnr_of", interrupted)
    assert sensitivity_of(models, frames_file, pairs, tmp_path / "s", 9) == 130
    said, error = capsys.readouterr()
    assert said.count("Conv") == 3 and "interrupted" in error


@pytest.mark.parametrize("command", ["quantise", "sensitivity"])
def test_a_handmade_set_of_copies_is_refused(command, tmp_path, capsys, models, pairs):
    pixels = np.stack([picture(0)] * 16)
    frames = [
        {"name": str(n), "sha256": calibration_set.digest(frame),
         "statistics": vars(statistics.measure(frame))}
        for n, frame in enumerate(pixels)
    ]  # fmt: skip
    header = json.dumps({"schema": calibration_set.SCHEMA, "frames": frames}).encode()
    file, out = tmp_path / "set.npz", tmp_path / "out.onnx"
    np.savez(file, header=np.frombuffer(header, np.uint8), frames=pixels)
    arguments = [command, str(models["fp32"]), "--frames", str(file), "--out", str(out)]
    assert main(arguments + ["--pairs", str(pairs)] * (command == "sensitivity")) == 2
    assert "of the 16 calibration frames only one is different" in capsys.readouterr().err
    assert not out.exists()
