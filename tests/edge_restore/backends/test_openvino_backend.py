"""The OpenVINO backend on small real models and on the shipped network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_restore import backends
from edge_restore.backends import memory, openvino
from edge_restore.backends.onnxruntime import OnnxRuntimeRestorer
from edge_restore.backends.openvino import OpenVinoRestorer
from edge_restore.backends.restorer import restore_one
from edge_restore.errors import BackendError, DependencyError, ModelError, OptionError
from edge_restore.frames import Pixels
from edge_restore.media.metrics import psnr
from edge_restore.models import zoo
from edge_restore.models.cards import TensorPort
from tests.edge_restore.clips import picture
from tests.edge_restore.onnx_models import write_card, write_model

pytest.importorskip("openvino", reason="the extra openvino is not installed")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {form: write_model(folder, form, form) for form in ("camera", "float")}


def restore(model: Path, pixels: Pixels, **options: object) -> Pixels:
    restorer = OpenVinoRestorer([model], threads=2, **options)  # type: ignore[arg-type]
    restorer.open(*pixels.shape[:2])
    restored = restore_one(restorer, pixels)
    restorer.close()
    return restored


@pytest.mark.parametrize("form", ["camera", "float"])
@pytest.mark.parametrize("size", [(48, 64), (45, 63), (1, 1), (33, 4)])
def test_it_computes_what_onnx_runtime_computes(
    models: dict[str, Path], form: str, size: tuple[int, int]
) -> None:
    image = picture(0, *size)
    reference = OnnxRuntimeRestorer([models[form]])
    reference.open(*size)
    expected = restore_one(reference, image)
    found = restore(models[form], image)
    assert found.shape == image.shape and found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_deformable_convolutions_are_the_same() -> None:
    """On the shipped SVDN, whose offsets reach beyond the border of a small picture."""
    model = next(path for path in zoo.find("svdn") if "gridsample" not in path.name)
    image = np.ascontiguousarray(picture(3, 90, 150))
    restorer = backends.create("onnxruntime", zoo.find("svdn"))
    restorer.open(90, 150)
    expected = restore_one(restorer, image)
    found = restore(model, image)
    assert psnr(found, expected) > 75
    assert psnr(image, expected) < 60  # and it does something


@pytest.mark.skipif(not openvino.has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_is_exact_enough() -> None:
    image = np.ascontiguousarray(picture(3, 180, 320))
    exact = restore(zoo.find("svdn")[0], image)
    found = restore(zoo.find("svdn")[0], image, precision="bf16")
    assert 50 < psnr(found, exact) < 90


def test_bfloat16_is_refused_where_the_processor_lacks_it(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda core=None: False)
    with pytest.raises(BackendError, match="does not multiply bfloat16"):
        backends.create("openvino-bf16", [models["camera"]])
    status = {one.name: one for one in backends.available()}
    assert not status["openvino-bf16"].available and status["openvino"].available


def test_tiles_leave_no_seam(models: dict[str, Path]) -> None:
    rough = np.random.default_rng(5).normal(0, 40, (560, 720, 3))
    noisy = np.clip(picture(0, 560, 720) + rough, 0, 255).astype(np.uint8)
    budget = 340 * 400 * memory.ACTIVATION_BYTES_PER_PIXEL
    whole = restore(models["camera"], noisy)
    tiled = restore(models["camera"], noisy, memory_budget=budget)
    assert psnr(tiled, whole) >= 50


def test_a_restored_frame_is_not_written_again(models: dict[str, Path]) -> None:
    restorer = OpenVinoRestorer([models["camera"]])
    restorer.open(48, 64)
    first = restore_one(restorer, picture(0, 48, 64))
    kept = first.copy()
    restore_one(restorer, picture(1, 48, 64))
    np.testing.assert_array_equal(first, kept)


def test_it_is_compiled_once_for_a_size(models: dict[str, Path]) -> None:
    restorer = OpenVinoRestorer([models["camera"]])
    restorer.open(48, 64)
    (request,) = restorer._requests
    restorer.close()
    restorer.open(48, 64)
    assert restorer._requests == [request]
    restorer.open(64, 48)
    assert restorer._requests != [request] and len(restorer._requests) == 1
    assert restore_one(restorer, picture(0, 64, 48)).shape == (64, 48, 3)


def test_names_say_what_computes(models: dict[str, Path]) -> None:
    restorer = backends.create("openvino", [models["camera"]])
    assert (restorer.name, restorer.precision) == ("openvino-cpu", "fp32")
    status = {one.name: one for one in backends.available()}["openvino"]
    assert status.available and status.detail.startswith("OpenVINO 20")


def test_a_model_that_cannot_be_read_is_passed_over(
    models: dict[str, Path], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="the model is changed with onnx")
    broken = write_model(tmp_path, "camera", "broken")
    model = onnx.load(broken)
    model.graph.node[3].op_type = "NoSuchOperator"
    onnx.save(model, broken)
    write_card(broken, "camera")
    assert OpenVinoRestorer([broken, models["camera"]]).model == models["camera"]
    with pytest.raises(BackendError, match=r"can read none of the models:\n +broken\.onnx: "):
        OpenVinoRestorer([broken])


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model file"):
        OpenVinoRestorer([tmp_path / "nothing.onnx"])
    with pytest.raises(OptionError, match="number of threads is 0"):
        OpenVinoRestorer([tmp_path / "nothing.onnx"], threads=0)


def test_a_model_of_one_size_says_so(tmp_path: Path) -> None:
    model = write_model(tmp_path, "camera", "fixed")
    fixed = TensorPort("image", "uint8", "NHWC", (1, 48, 64, 3))
    write_card(model, "camera", input=fixed)
    restorer = OpenVinoRestorer([model])
    with pytest.raises(BackendError, match="takes 64x48 only"):
        restorer.open(64, 64)


SIGNALLED = """
import gc, os, signal, sys
import numpy as np
from pathlib import Path
from edge_restore.backends.openvino import OpenVinoRestorer
from edge_restore.backends.restorer import restore_one

came = []
signal.signal(signal.SIGINT, lambda *_: came.append(1))
restorers = [OpenVinoRestorer([Path(sys.argv[1])]) for _ in range(2)]
for restorer in restorers:
    restorer.open(48, 64)
    restore_one(restorer, np.zeros((48, 64, 3), np.uint8))
while restorers:
    del restorers[0], restorer
    gc.collect()
    restorer = None
os.kill(os.getpid(), signal.SIGINT)
kept = OpenVinoRestorer([Path(sys.argv[1])])
kept.open(48, 64)
print("survived", came)
"""


def test_a_signal_after_two_networks_is_survived(models: dict[str, Path]) -> None:
    """OpenVINO leaves the thread that computed with a signal stack that is freed memory."""
    command = [sys.executable, "-c", SIGNALLED, str(models["camera"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("survived [1]\n", "")


def test_without_the_package(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DependencyError, match="'openvino' is not installed") as caught:
        backends.create("openvino", [models["camera"]])
    assert "edge-restore[openvino]" in caught.value.hint
    status = {one.name: one for one in backends.available()}["openvino"]
    assert not status.available and "edge-restore[openvino]" in status.hint
