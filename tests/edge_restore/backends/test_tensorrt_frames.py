"""The way of frames through the TensorRT backend, on a simulated GPU; see simulated_cuda.py.

Copies, computing and the events between them are executed in random order there, so what is not
ordered by an event goes wrong for some of the seeds.
"""

from __future__ import annotations

import functools
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_restore.backends import cuda, tensorrt
from edge_restore.engine.flavour import Flavour
from edge_restore.errors import BackendError, InternalError
from edge_restore.frames import Frame
from tests.edge_restore import simulated_cuda
from tests.edge_restore.onnx_models import write_model
from tests.edge_restore.simulated_cuda import World

HEIGHT, WIDTH = 10, 14  # padded to 12x16: the model's multiple is 4


class Stage:
    """A restorer on a simulated GPU, and what is to be looked at."""

    def __init__(
        self, model: Path, monkeypatch: pytest.MonkeyPatch, seed: int, captures_itself: bool = False
    ) -> None:
        self.world = World(seed)
        self.captures_itself = captures_itself
        self.engines: list[simulated_cuda.Engine] = []
        self.notes: list[str] = []
        self.model, self.monkeypatch = model, monkeypatch
        package = ModuleType("pycuda")
        driver = simulated_cuda.module(self.world)
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
        cuda._primary_context.cache_clear()
        library = Flavour("tensorrt", None, "simulated")
        self._replace(tensorrt.flavour, "load", lambda name: library)
        self._replace(tensorrt.cuda, "require", lambda graphs: None)
        self._replace(tensorrt.plan, "make_plan", self._plan)
        self._replace(tensorrt.builder, "obtain", lambda *_, **__: (Path("an.engine"), None))
        self._replace(tensorrt.manifest, "load_checked", self._load)
        self._replace(tensorrt, "Session", self._session)
        self._replace(cuda, "CapturedGraph", functools.partial(simulated_cuda.Graph, self.world))

    def restorer(self, in_flight: int = 3) -> tensorrt.TensorRTRestorer:
        return tensorrt.TensorRTRestorer(
            [self.model], in_flight=in_flight, store=SimpleNamespace(), note=self.notes.append
        )  # type: ignore[arg-type]

    def nothing_is_left(self) -> bool:
        world = self.world
        closed = not any(engine.open for engine in self.engines)
        idle = not any(stream.work for stream in world.streams)
        empty = not world.allocations and world.pinned == 0 and world.contexts == 0
        return closed and idle and empty

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        assert hasattr(owner, name)
        self.monkeypatch.setattr(owner, name, value)

    def _plan(
        self, model: Path, library: Any, *, precision: str, size: Any, gpu: Any, ungated: bool
    ) -> Any:
        self.size = [-(-side // 4) * 4 for side in size]
        return SimpleNamespace(expectation=None)

    def _load(self, engine: Path, expect: Any) -> Any:
        height, width = self.size
        return SimpleNamespace(manifest=SimpleNamespace(height=height, width=width))

    def _session(self, *_: Any) -> simulated_cuda.Engine:
        self.engines.append(simulated_cuda.Engine(self.world, self.captures_itself))
        return self.engines[-1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def stage(model: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(model, monkeypatch, 0)


def frame(index: int, height: int = HEIGHT, width: int = WIDTH) -> Frame:
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
    return Frame(pixels, index, index, Fraction(1, 30))


def run(restorer: tensorrt.TensorRTRestorer, count: int) -> None:
    """Restore frames as the pipeline does, and compare each."""
    frames = [frame(i) for i in range(count)]
    originals = [each.pixels for each in frames]
    before = [each.copy() for each in originals]
    got: list[Frame] = []
    for each in frames:
        restorer.submit(each)
        while (restored := restorer.collect()) is not None:
            got.append(restored)
    got += restorer.flush()
    assert [each.index for each in got] == list(range(count))
    for each, original, copy in zip(got, originals, before, strict=True):
        np.testing.assert_array_equal(each.pixels, 255 - copy, err_msg=f"frame {each.index}")
        np.testing.assert_array_equal(original, copy)
        assert each.clock.milliseconds("restore") >= 0


@pytest.mark.parametrize("captures_itself", [False, True], ids=["ours", "the library's"])
@pytest.mark.parametrize("in_flight", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_frames_come_back_right_and_in_order(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    in_flight: int,
    captures_itself: bool,
) -> None:
    """With CUDA graphs of ours, and with those of the library."""
    stage = Stage(model, monkeypatch, seed, captures_itself)
    restorer = stage.restorer(in_flight)
    restorer.open(HEIGHT, WIDTH)
    # Every slot computed once, to warm up, and once more to be captured.
    before = in_flight * (1 if captures_itself else 2)
    assert stage.engines[0].runs == before
    run(restorer, 12)
    assert stage.engines[0].runs == before + (12 if captures_itself else 0)
    restorer.close()
    assert stage.nothing_is_left()


@pytest.mark.parametrize("captures_itself", [False, True], ids=["ours", "the library's"])
def test_the_network_alone_is_waited_for(
    model: Path, monkeypatch: pytest.MonkeyPatch, captures_itself: bool
) -> None:
    """A time that is taken when it returns is the time of computing, not of asking."""
    stage = Stage(model, monkeypatch, 1, captures_itself)
    restorer = stage.restorer(2)
    with pytest.raises(InternalError, match="not open"):
        restorer.alone(frame(0).pixels)
    restorer.open(HEIGHT, WIDTH)
    once = restorer.alone(frame(0).pixels)
    compute = restorer._first._streams.compute  # type: ignore[union-attr]
    for _ in range(3):
        once()
        assert not compute.work
    ask, wait = restorer.asking(frame(0).pixels)
    ask()
    assert compute.work
    wait()
    assert not compute.work
    run(restorer, 5)  # frames are right after it
    with pytest.raises(BackendError, match="larger"):
        restorer.alone(frame(0, HEIGHT + 8, WIDTH).pixels)
    restorer.close()
    assert stage.nothing_is_left()


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (12, 16)])  # padded, and as it is
def test_restored_frames_are_not_written_again(stage: Stage, size: tuple[int, int]) -> None:
    restorer = stage.restorer(1)
    restorer.open(*size)
    first, second = frame(0, *size), frame(1, *size)
    for each in (first, second):
        restorer.submit(each)
        kept = restorer.flush()[0].pixels.copy()
    np.testing.assert_array_equal(second.pixels, kept)
    np.testing.assert_array_equal(first.pixels, 255 - frame(0, *size).pixels)
    assert first.pixels.flags["C_CONTIGUOUS"]


def test_opening_another_size_frees_the_first(stage: Stage) -> None:
    restorer = stage.restorer()
    restorer.open(HEIGHT, WIDTH)
    restorer.open(HEIGHT, WIDTH)
    assert [engine.open for engine in stage.engines] == [False, True]
    assert len(stage.world.allocations) == 6 and stage.world.contexts == 1
    run(restorer, 4)
    restorer.close()
    assert stage.nothing_is_left()


def test_closing_waits_for_frames_under_way(stage: Stage) -> None:
    restorer = stage.restorer()
    restorer.open(HEIGHT, WIDTH)
    restorer.submit(frame(0))
    restorer.submit(frame(1))
    restorer.close()
    restorer.close()
    assert stage.nothing_is_left()
    assert restorer.collect() is None and restorer.flush() == []
    with pytest.raises(InternalError, match="not open"):
        restorer.submit(frame(2))


def test_an_engine_that_cannot_be_loaded_leaves_nothing(stage: Stage) -> None:
    def refuse(*_: Any) -> None:
        raise BackendError("no", expected="yes", hint="none")

    stage._replace(tensorrt, "Session", refuse)
    restorer = stage.restorer()
    with pytest.raises(BackendError):
        restorer.open(HEIGHT, WIDTH)
    assert stage.nothing_is_left()
    restorer.close()


def test_too_little_memory_for_the_last_slot_leaves_nothing(stage: Stage) -> None:
    driver = sys.modules["pycuda.driver"]
    mem_alloc, left = driver.mem_alloc, [4]

    def scarce(size: int) -> Any:
        if not left[0]:
            raise driver.Error("cuMemAlloc failed: out of memory")
        left[0] -= 1
        return mem_alloc(size)

    stage._replace(driver, "mem_alloc", scarce)
    with pytest.raises(BackendError, match="cannot allocate memory for frames of 16x12") as caught:
        stage.restorer().open(HEIGHT, WIDTH)
    assert "end other programs" in caught.value.hint
    assert stage.world.contexts == 0 and not stage.world.allocations


def test_a_frame_of_another_size_is_refused_and_the_rest_goes_on(stage: Stage) -> None:
    restorer = stage.restorer()
    restorer.open(HEIGHT, WIDTH)
    with pytest.raises(BackendError, match="15x10 is larger than the engine was opened for"):
        restorer.submit(frame(0, HEIGHT, WIDTH + 1))
    run(restorer, 4)
    restorer.close()


def test_a_gpu_that_fails_is_told_as_a_backend_error(stage: Stage) -> None:
    restorer = stage.restorer()
    restorer.open(HEIGHT, WIDTH)
    driver = sys.modules["pycuda.driver"]

    def fail(*_: Any) -> None:
        raise driver.Error("cuMemcpyHtoDAsync failed: unspecified launch failure")

    stage._replace(driver, "memcpy_htod_async", fail)
    with pytest.raises(BackendError, match="CUDA cannot restore a frame: cuMemcpyHtoDAsync"):
        restorer.submit(frame(0))
    restorer.close()
    assert stage.nothing_is_left()


def test_without_a_graph_it_runs_and_says_why(stage: Stage) -> None:
    def refuse(*_: Any) -> None:
        raise BackendError("no capture today", expected="one", hint="none")

    stage._replace(cuda, "CapturedGraph", refuse)
    restorer = stage.restorer()
    restorer.open(HEIGHT, WIDTH)
    run(restorer, 5)
    restorer.close()
    assert stage.notes.count("running without a CUDA graph: no capture today") == 3


def test_waiting_sleeps_and_takes_no_times(stage: Stage) -> None:
    restorer = stage.restorer(1)
    restorer.open(HEIGHT, WIDTH)
    assert sorted(stage.world.flags) == [2, 2, 3]
    restorer.close()
