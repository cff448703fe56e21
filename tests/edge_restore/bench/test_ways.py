"""The three ways of timing a restorer, on a real one."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_restore.backends import memory
from edge_restore.backends.onnxruntime import OnnxRuntimeRestorer
from edge_restore.bench import claims, ways
from edge_restore.frames import Frame, Pixels
from tests.edge_restore.onnx_models import write_model

PICTURE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


@pytest.fixture
def restorer(tmp_path: Path) -> OnnxRuntimeRestorer:
    return OnnxRuntimeRestorer([write_model(tmp_path)], threads=1)


class Sleeper:
    """Wraps a restorer and makes each frame take longer, by a known time."""

    def __init__(self, inner: OnnxRuntimeRestorer, seconds: float) -> None:
        self.inner, self.seconds = inner, seconds
        self.name, self.card, self.in_flight = inner.name, inner.card, inner.in_flight
        self.precision = inner.precision
        self.under_way = self.most = 0

    def open(self, height: int, width: int) -> None:
        self.inner.open(height, width)

    def submit(self, frame: Frame) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        time.sleep(self.seconds)
        self.inner.submit(frame)

    def collect(self) -> Frame | None:
        frame = self.inner.collect()
        self.under_way -= frame is not None
        return frame

    def flush(self) -> list[Frame]:
        frames = self.inner.flush()
        self.under_way -= len(frames)
        return frames

    def close(self) -> None:
        self.inner.close()


def test_every_way_is_measured(restorer: OnnxRuntimeRestorer) -> None:
    found = ways.measure(restorer, PICTURE, samples=12)
    assert list(found) == ["network", "host to host", "camera to sink"]
    assert all([len(one) for one in t.rounds_ms] == [4, 4, 4] for t in found.values())
    assert found["network"].median_ms <= found["host to host"].median_ms * 1.2


def test_a_frame_is_measured_as_some_do(tmp_path: Path) -> None:
    """On a crop of 256x256, and by the time of asking where a call returns early."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    from edge_restore.backends.openvino import OpenVinoRestorer

    picture = np.zeros((640, 960, 3), np.uint8)
    found = ways.measure(OpenVinoRestorer([write_model(tmp_path)]), picture, samples=12)
    assert list(found) == [*claims.WAYS, *claims.AS_SOME_DO]
    assert found["256x256"].median_ms < found["network"].median_ms
    assert found["not waited for"].median_ms < found["network"].median_ms


def test_asking_and_waiting_restores(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    from edge_restore.backends.openvino import OpenVinoRestorer

    restorer = OpenVinoRestorer([write_model(tmp_path)])
    assert restorer.asking(PICTURE) is None  # not open
    restorer.open(*PICTURE.shape[:2])
    halves = restorer.asking(PICTURE)
    assert halves is not None
    for half in halves * 2:
        half()
    ((expected, _),) = restorer.alone(PICTURE)()  # type: ignore[misc]
    np.testing.assert_array_equal(restorer._requests[0].get_output_tensor(0).data, expected)


def test_a_slow_restorer_shows_in_both_outer_ways(restorer: OnnxRuntimeRestorer) -> None:
    slow = Sleeper(restorer, 0.03)
    found = ways.measure(slow, PICTURE, samples=6)
    assert "network" not in found
    assert found["host to host"].median_ms >= 30 and found["camera to sink"].median_ms >= 30


def test_one_frame_is_under_way_at_a_time(restorer: OnnxRuntimeRestorer) -> None:
    """So what is measured is latency: no frame waits in a queue."""
    slow = Sleeper(restorer, 0.02)
    times = ways.camera_to_sink(slow, PICTURE, 6)
    assert len(times) == 6 and slow.most == 1
    assert max(times) < 2 * min(times)


def test_a_frame_in_tiles_is_measured_whole(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    budget = 340 * 400 * memory.ACTIVATION_BYTES_PER_PIXEL
    tiled = OnnxRuntimeRestorer([model], memory_budget=budget)
    tiled.open(560, 720)
    assert tiled._grid is not None and len(tiled._grid) > 1
    parts = tiled.alone(np.zeros((560, 720, 3), np.uint8))()
    assert isinstance(parts, list) and len(parts) == len(tiled._grid)


def test_host_to_host_restores(restorer: OnnxRuntimeRestorer) -> None:
    restorer.open(50, 70)
    once = ways.host_to_host(restorer, PICTURE)
    first, second = once(), once()
    assert isinstance(first, np.ndarray) and first.shape == PICTURE.shape
    np.testing.assert_array_equal(first, np.asarray(second))
    frame = Frame(PICTURE, index=0, pts=0, time_base=ways._TICK)
    restorer.submit(frame)
    restored = restorer.collect()
    assert restored is not None
    np.testing.assert_array_equal(first, restored.pixels)


def test_a_restorer_that_fails_ends_the_stream(restorer: OnnxRuntimeRestorer) -> None:
    class Broken(Sleeper):
        def submit(self, frame: Frame) -> None:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ways.camera_to_sink(Broken(restorer, 0), PICTURE, 3)
    assert threading.active_count() < 20


def test_the_picture_is_never_written(restorer: OnnxRuntimeRestorer) -> None:
    before: Pixels = PICTURE.copy()
    ways.camera_to_sink(restorer, PICTURE, 2)
    np.testing.assert_array_equal(PICTURE, before)
