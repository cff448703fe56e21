"""The TensorRT backend on a real GPU: `pytest -m gpu tests/gpu/test_tensorrt_backend.py`.

Not yet run: no GPU was at hand when this was written. Runs for each TensorRT library that is
installed; the plugin routes need a model in the plugin form, which the zoo has or
EDGE_RESTORE_PLUGIN_MODEL names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edge_restore import backends
from edge_restore.backends.tensorrt import FLAVOURS, TensorRTRestorer, description
from edge_restore.engine.cache import EngineCache
from edge_restore.engine.gpu import this_gpu
from edge_restore.engine.plugin import kernels
from edge_restore.errors import BackendError, UserError
from edge_restore.frames import Frame, Pixels
from edge_restore.media.metrics import psnr
from edge_restore.models import zoo
from tests.edge_restore.onnx_models import write_model

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=list(FLAVOURS))
def library(request: pytest.FixtureRequest) -> str:
    try:
        description(request.param)
    except UserError as error:
        pytest.skip(str(error.found))
    return str(request.param)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("small"))


def picture(seed: int, height: int, width: int) -> Pixels:
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin((x * (i + 1) + y * (3 - i)) / 17 + seed) for i in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def frame(index: int, height: int = 90, width: int = 122) -> Frame:
    return Frame(picture(index, height, width), index, index, Fraction(1, 30))


def on_the_cpu(model: Path, pixels: Pixels) -> Pixels:
    restorer = backends.create("onnxruntime", [model])
    restorer.open(*pixels.shape[:2])
    restorer.submit(Frame(pixels, 0, 0, Fraction(1, 30)))
    (restored,) = restorer.flush()
    return restored.pixels


def run(restorer: TensorRTRestorer, frames: list[Frame]) -> list[Frame]:
    """As pipeline.py calls a restorer."""
    restored = []
    for each in frames:
        restorer.submit(each)
        while (done := restorer.collect()) is not None:
            restored.append(done)
    return restored + restorer.flush()


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_frames_come_back_in_order_and_right(
    library: str, store: EngineCache, small: Path, in_flight: int
) -> None:
    """An odd size, so that padding is a part of it; every frame another picture."""
    notes: list[str] = []
    restorer = TensorRTRestorer(
        [small], library, in_flight=in_flight, store=store, note=notes.append
    )
    restorer.open(90, 122)
    frames = [frame(i) for i in range(12)]
    originals = [each.pixels.copy() for each in frames]
    restored = run(restorer, frames)
    restorer.close()
    assert restored == frames
    for original, each in zip(originals, restored, strict=True):
        assert np.abs(on_the_cpu(small, original).astype(int) - each.pixels).max() <= 2
        assert each.clock.milliseconds("restore") > 0
    assert not [note for note in notes if "without a CUDA graph" in note]


def test_the_zoos_network_agrees_with_the_cpu(library: str, store: EngineCache) -> None:
    found = zoo.find("svdn")
    try:
        restorer = TensorRTRestorer(found, library, store=store)
    except BackendError as error:
        pytest.skip(str(error.found))
    original = picture(1, 360, 640)
    restorer.open(360, 640)
    (restored,) = run(restorer, [Frame(original.copy(), 0, 0, Fraction(1, 30))])
    restorer.close()
    assert psnr(restored.pixels, on_the_cpu(found[0], original)) >= 45


def test_opening_again_and_closing_twice(library: str, store: EngineCache, small: Path) -> None:
    restorer = TensorRTRestorer([small], library, store=store)
    for height, width in ((90, 122), (64, 96), (90, 122)):
        restorer.open(height, width)
        given = frame(5, height, width)
        original = given.pixels.copy()
        (restored,) = run(restorer, [given])
        assert np.abs(on_the_cpu(small, original).astype(int) - restored.pixels).max() <= 2
    restorer.submit(frame(0))  # closed with a frame under way
    restorer.close()
    restorer.close()
    assert restorer.flush() == []


def test_memory_comes_back(library: str, store: EngineCache, small: Path) -> None:
    cuda = pytest.importorskip("pycuda.driver")
    cuda.init()
    context = cuda.Device(0).retain_primary_context()

    def free() -> int:
        context.push()
        try:
            return int(cuda.mem_get_info()[0])
        finally:
            cuda.Context.pop()

    restorer = TensorRTRestorer([small], library, store=store)
    restorer.open(1080, 1920)
    restorer.close()  # what the libraries keep for themselves is allocated by now
    before = free()
    for _ in range(3):
        restorer.open(1080, 1920)
        run(restorer, [frame(0, 1080, 1920)])
        restorer.close()
    assert abs(before - free()) < 16 << 20


def test_a_frame_of_another_size(library: str, store: EngineCache, small: Path) -> None:
    restorer = TensorRTRestorer([small], library, store=store)
    restorer.open(90, 122)
    with pytest.raises(BackendError, match="larger than the engine was opened for"):
        restorer.submit(frame(0, 91, 122))
    assert len(run(restorer, [frame(1)])) == 1
    restorer.close()


def test_the_second_start_finds_the_engine(library: str, small: Path, tmp_path: Path) -> None:
    for expected in ("built the engine", "found the engine in the cache"):
        notes: list[str] = []
        restorer = TensorRTRestorer(
            [small], library, store=EngineCache(tmp_path), note=notes.append
        )
        restorer.open(90, 122)
        restorer.close()
        assert expected in notes


ROUTE = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
import tensorrt
from edge_restore.backends.tensorrt import TensorRTRestorer
from edge_restore.engine.plugin import registry as plugin
from edge_restore.engine.cache import EngineCache
from edge_restore.frames import Frame
assert plugin.register(tensorrt, route=sys.argv[1]) == sys.argv[1]
restorer = TensorRTRestorer([Path(sys.argv[2])], store=EngineCache(Path(sys.argv[3])))
restorer.open(360, 640)
pixels = np.load(sys.argv[4])
restorer.submit(Frame(pixels, 0, 0, Fraction(1, 30)))
(restored,) = restorer.flush()
restorer.close()
np.save(sys.argv[5], restored.pixels)
"""


@pytest.mark.parametrize("route", ["aot", "python"])
def test_a_plugin_route_agrees_with_the_cpu(route: str, tmp_path: Path) -> None:
    """Each route in a process of its own, as a node can be registered by one alone."""
    tensorrt = pytest.importorskip("tensorrt")
    from edge_restore.engine.plugin import registry as plugin

    if this_gpu() is None:
        pytest.skip("no NVIDIA GPU")
    if route not in plugin.routes(tensorrt):
        pytest.skip(f"TensorRT {tensorrt.__version__} has no route '{route}'")
    named = os.environ.get("EDGE_RESTORE_PLUGIN_MODEL")
    models = [Path(named)] if named else zoo.engine_files("svdn", "tensorrt", "fp16")
    models = [model for model in models if "plugin" in model.stem]
    if not models:
        pytest.skip("no model in the plugin form; EDGE_RESTORE_PLUGIN_MODEL names one")
    original = picture(2, 360, 640)
    given, answer = tmp_path / "given.npy", tmp_path / "answer.npy"
    np.save(given, original)
    command = [sys.executable, "-c", ROUTE, route, models[0], tmp_path / "cache", given, answer]
    subprocess.run(command, check=True)
    assert psnr(np.load(answer), on_the_cpu(zoo.find("svdn")[0], original)) >= 45


def test_the_driver_launches_the_shipped_kernel_on_a_foreign_stream() -> None:
    """What the Python plugin's enqueue does, with vectors of Triton's interpreter."""
    cuda = pytest.importorskip("pycuda.driver")
    if (gpu := this_gpu()) is None:
        pytest.skip("no NVIDIA GPU")
    from edge_restore.engine.plugin import driver
    from export.deform_conv import vectors

    stored = vectors.read(Path(__file__).with_name("deform_conv_vectors.zip"))
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        stream = cuda.Stream()
        for vector in vectors.VECTORS:
            g, expected = vector.geometry, stored[vector.name]
            kernel = kernels.choose(
                gpu.compute_capability, vector.precision, g.alignment(vector.precision)
            )
            inputs = [cuda.to_device(array) for array in vectors.inputs(vector).values()]
            output = cuda.to_device(np.full_like(expected, np.nan))
            driver.launch(
                driver.load(kernel.ptx, kernel.entry),
                kernel.grid(vector.count, g.out_height, g.out_width, g.out_written),
                kernel.threads,
                kernel.shared_bytes,
                stream.handle,
                [int(each) for each in inputs],
                g.scalars(),
                [int(output)],
            )
            stream.synchronize()
            found = cuda.from_device_like(output, expected)
            tolerance = 4e-3 if vector.precision == "fp16" else 2e-5
            np.testing.assert_allclose(
                found.astype(np.float32), expected.astype(np.float32), atol=tolerance
            )
    finally:
        cuda.Context.pop()
