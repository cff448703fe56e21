"""The verdict over an INT8 graph, and who heeds it."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration import gate, latency, quantiser
from calibration.__main__ import main
from edge_restore.engine import plan
from edge_restore.errors import CardError, ModelError
from edge_restore.evaluation.pairs import find_pairs
from edge_restore.evaluation.scoring import read_pair
from edge_restore.media.metrics import psnr, ssim
from edge_restore.models.cards import FileDigest, card_path, verify
from edge_restore.models.quantisation import GateSet
from edge_restore.storage.files import sha256


@pytest.fixture(scope="module")
def quantised(models, frames, tmp_path_factory):
    """INT8 files by form, and the scales file."""
    folder = tmp_path_factory.mktemp("int8")
    model, card = quantiser.load(models["fp32"])
    scales = quantiser.find_scales(model, card, frames)
    made = {}
    for form in ("fp32", "gridsample-fp16", "plugin-fp16"):
        made[form] = folder / f"svdn-{form}-int8.onnx"
        quantiser.write(*quantiser.load(models[form]), scales, made[form], command="x")
    return made


@pytest.fixture
def int8(quantised, tmp_path):
    """Copies that a test may give verdicts to."""
    copies = {}
    for form, path in quantised.items():
        copies[form] = tmp_path / path.name
        shutil.copy(path, copies[form])
        shutil.copy(card_path(path), card_path(copies[form]))
    return copies


def check(int8, models, pairs, *extra):
    words = ["check", int8, "--reference", models["fp32"], "--pairs", pairs, *extra]
    return main([str(word) for word in words])


def test_a_good_graph_passes_and_its_card_says_so(int8, models, pairs, capsys):
    assert check(int8["fp32"], models, pairs, "--min-psnr", 3, "--max-shift", 5) == 0
    said = capsys.readouterr().out
    assert "passed (at most 3 dB and 5 levels)" in said and "not measured" in said
    verdict = verify(card_path(int8["fp32"])).gate
    assert verdict.passed and verdict.failures == ()
    assert verdict.reference_sha256 == verify(card_path(models["fp32"])).onnx.sha256
    assert verdict.run_sha256 == verify(card_path(int8["fp32"])).onnx.sha256
    (measured,) = verdict.sets
    assert (measured.set, measured.images) == (pairs.name, 3)


def test_the_numbers_are_those_of_the_pictures(int8, models, pairs):
    floating = gate.runner(models["fp32"], *quantiser.load(models["fp32"]))
    low = gate.runner(int8["fp32"], *quantiser.load(int8["fp32"]))
    found = gate.compare("set", find_pairs(pairs), floating, low)
    both = [
        (floating.restored(b), low.restored(b), s[0])
        for b, s in map(read_pair, find_pairs(pairs))
    ]  # fmt: skip
    drops = [psnr(a, t) - psnr(b, t) for a, b, t in both]
    assert found.drop == pytest.approx(np.mean(drops))
    assert found.worst_drop == pytest.approx(max(drops))
    assert found.worst_image == find_pairs(pairs)[int(np.argmax(drops))].name
    assert found.ssim_int8 == pytest.approx(np.mean([ssim(b, t) for _, b, t in both]))
    difference = np.stack([b.astype(float) - a for a, b, _ in both])
    assert found.brightness_shift == pytest.approx(difference.mean())
    columns = np.square(difference).mean(axis=(0, 1, 3))
    assert found.worst_column == columns.argmax()
    assert found.worst_column_psnr == pytest.approx(-10 * np.log10(columns.max() / 255**2))
    between = -10 * np.log10(np.square(difference).mean() / 255**2)
    assert found.psnr_between == pytest.approx(between)


def test_equal_graphs_have_finite_numbers(models, pairs):
    one = gate.runner(models["fp32"], *quantiser.load(models["fp32"]))
    found = gate.compare("set", find_pairs(pairs), one, one)
    assert found.drop == 0 and found.psnr_between == found.worst_column_psnr == 100


def a_set(**changes):
    base = GateSet("set", 1, 30.0, 29.9, None, 0.9, 0.9, "a", 0.1, 0.0, 0, 40.0, 45.0)
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({}, None),
        ({"psnr_int8": 29.79}, "loses 0.210 dB"),
        ({"psnr_int8": float("nan")}, "loses nan dB"),
        ({"brightness_shift": -0.11}, "brightness shifts by -0.110"),
        ({"brightness_shift": 0.11}, "brightness shifts by +0.110"),
    ],
)
def test_the_limits(models, changes, failure):
    card = verify(card_path(models["fp32"]))
    found = gate.verdict([a_set(), a_set(**changes)], card, run=card, greatest_drop=0.2,
                         greatest_shift=0.1, latency="unknown")  # fmt: skip
    assert found.passed == (failure is None)
    if failure:
        assert len(found.failures) == 1 and failure in found.failures[0]


def test_int8_has_to_be_faster_beyond_noise():
    def busy(seconds):
        return lambda: time.sleep(seconds)

    told, slower = latency.compared({"INT8": busy(0.002), "FP16": busy(0.004)}, "a test")
    assert not slower and "times as fast (p50 of 66, network alone, a test)" in told
    told, slower = latency.compared({"INT8": busy(0.003), "FP16": busy(0.003)}, "a test")
    assert slower and told.startswith("INT8 3.")
    assert latency.compared({"INT8": busy(0.004), "FP16": busy(0.002)}, "a test")[1]


def test_without_a_gpu_nothing_is_timed(models, monkeypatch):
    monkeypatch.setattr(latency, "this_gpu", lambda: None)
    assert latency.of_engines(models["fp32"], None) == (latency.NO_GPU, False)
    monkeypatch.setattr(latency, "this_gpu", lambda: SimpleNamespace(name="a GPU"))
    assert latency.of_engines(models["fp32"], None) == (latency.NO_FP16, False)


def test_a_slower_engine_fails(models):
    card = verify(card_path(models["fp32"]))
    found = gate.verdict([a_set()], card, run=card, greatest_drop=0.2, greatest_shift=0.1,
                         latency="INT8 3 ms, FP16 2 ms", slower=True)  # fmt: skip
    assert not found.passed and "not faster than FP16" in found.failures[0]


def test_a_bad_graph_fails_with_exit_code_1(int8, models, pairs, capsys):
    """A step a hundred times too large: what a wrong calibration set does."""
    path = int8["fp32"]
    card = verify(card_path(path))
    broken = onnx.load(str(path))
    for tensor in broken.graph.initializer:
        if tensor.name == "groups.2.2/Add:scale" or tensor.name == "Concat:scale":
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(50), tensor.name)
            )
    onnx.save(broken, str(path))
    fresh = replace(card, onnx=FileDigest(path.name, sha256(path), path.stat().st_size))
    fresh.write(card_path(path))
    assert check(path, models, pairs) == 1
    said = capsys.readouterr().out
    verdict = verify(card_path(path)).gate
    assert "failed (at most 0.2 dB" in said and verdict.failures[0] in said
    assert not verdict.passed and verdict.sets[0].psnr_between < 25


def test_the_plugins_form_is_judged_by_its_twin(int8, models, pairs, capsys):
    assert check(int8["plugin-fp16"], models, pairs) == 2
    assert "has nodes of our plugin" in capsys.readouterr().err
    twin = ["--twin", int8["gridsample-fp16"], "--min-psnr", 3, "--max-shift", 5]
    assert check(int8["plugin-fp16"], models, pairs, *twin) == 0
    verdict = verify(card_path(int8["plugin-fp16"])).gate
    assert verdict.run_sha256 == verify(card_path(int8["gridsample-fp16"])).onnx.sha256
    assert check(int8["plugin-fp16"], models, pairs, "--twin", int8["fp32"]) == 2
    assert "is quantised otherwise" in capsys.readouterr().err


def test_fp16_can_be_in_the_table(int8, models, pairs, capsys):
    words = ["--fp16", models["gridsample-fp16"], "--images", 1, "--min-psnr", 3, "--max-shift", 5]
    assert check(int8["fp32"], models, pairs, *words) == 0
    (measured,) = verify(card_path(int8["fp32"])).gate.sets
    assert measured.images == 1 and measured.psnr_fp16 == pytest.approx(measured.psnr, abs=0.05)


def test_what_does_not_belong_together_is_refused(int8, models, pairs, lmfn, capsys):
    for model, reference, message in (
        (lmfn, models["fp32"], "is fp32, not INT8"),
        (models["fp32"], models["fp32"], "is the card of --reference"),
        (int8["fp32"], models["gridsample-fp16"], "is fp16, not FP32"),
        (int8["fp32"], models["float"], "the reference of float"),
        (int8["fp32"], lmfn, "are of different weights"),
    ):
        words = ["check", model, "--reference", reference, "--pairs", pairs]
        assert main([str(word) for word in words]) == 2
        assert message in capsys.readouterr().err


def test_build_refuses_what_has_not_passed(int8, models, pairs):
    path = int8["fp32"]
    with pytest.raises(ModelError, match="nobody has compared it with FP32"):
        plan._check_gate(path, verify(card_path(path)))
    check(path, models, pairs, "--min-psnr", 0)
    with pytest.raises(ModelError, match=r"did not pass its gate: .*loses"):
        plan._check_gate(path, verify(card_path(path)))
    check(path, models, pairs, "--min-psnr", 3, "--max-shift", 5)
    plan._check_gate(path, verify(card_path(path)))


def test_a_verdict_that_contradicts_itself_is_refused(int8, models, pairs):
    check(int8["fp32"], models, pairs, "--min-psnr", 0)
    path = card_path(int8["fp32"])
    document = json.loads(path.read_text())
    document["gate"]["passed"] = True
    path.write_text(json.dumps(document))
    with pytest.raises(CardError, match=r"gate.passed is true though it names failures"):
        verify(path)


@pytest.fixture
def pairs_of_a_name(pairs, tmp_path):
    """Two folders of one name, with three pairs each."""
    folders = [tmp_path / side / "set" for side in ("first", "second")]
    for folder in folders:
        shutil.copytree(pairs, folder)
    return folders


def test_two_sets_of_one_name_are_both_measured(int8, models, pairs_of_a_name, capsys):
    first, second = pairs_of_a_name
    words = ["--pairs", second, "--images", 1, "--min-psnr", 3, "--max-shift", 5]
    assert check(int8["fp32"], models, first, *words) == 0
    sets = verify(card_path(int8["fp32"])).gate.sets
    assert [one.set for one in sets] == ["first/set", "second/set"]
    assert check(int8["fp32"], models, first, "--pairs", first) == 2
    assert "each given once" in capsys.readouterr().err


def test_pictures_that_cannot_be_compared_are_named_and_there_is_no_verdict(
    int8, models, pairs_of_a_name, capsys
):
    folder = pairs_of_a_name[0]
    whole = (folder / "blurred" / "11.png").read_bytes()
    (folder / "blurred" / "11.png").write_bytes(whole[:-30])
    assert check(int8["fp32"], models, folder, "--min-psnr", 3, "--max-shift", 5) == 2
    said, error = capsys.readouterr()
    assert "incomplete: 1 of 3 images are missing" in said and "passed (" not in said
    assert "11.png" in error and "is cut off" in error
    assert verify(card_path(int8["fp32"])).gate is None


def test_an_interrupted_check_prints_what_it_has(int8, models, pairs, capsys, monkeypatch):
    compare_pair = gate.compare_pair

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return compare_pair(*arguments)

    monkeypatch.setattr(gate, "compare_pair", interrupted)
    assert check(int8["fp32"], models, pairs) == 128 + signal.SIGTERM
    said, error = capsys.readouterr()
    assert "incomplete: 2 of 3 images are missing" in said and "interrupted" in error
    assert verify(card_path(int8["fp32"])).gate is None
