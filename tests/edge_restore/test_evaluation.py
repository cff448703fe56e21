from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore.evaluation import ImageScore, as_csv, as_table, evaluate, match_pairs, mean
from edge_restore.frames import Frame, Pixels
from edge_restore.images import write_png

pytest.importorskip("cv2")


class Doubler:
    """A restorer that doubles every value; it insists on the opened size, as an engine does."""

    name = "doubler"
    in_flight = 2
    card: Any = None

    def __init__(self) -> None:
        self.opened: list[tuple[int, int]] = []
        self.waiting: list[Frame] = []

    def open(self, height: int, width: int) -> None:
        self.opened.append((height, width))

    def submit(self, frame: Frame) -> None:
        assert frame.size == self.opened[-1]
        frame.pixels = frame.pixels * 2
        self.waiting.append(frame)

    def collect(self) -> Frame | None:
        return None  # two may be in flight

    def flush(self) -> list[Frame]:
        frames, self.waiting = self.waiting, []
        return frames

    def close(self) -> None:
        pass


def test_each_size_is_opened_once_in_a_row(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for side in ("blurred", "sharp"):
        (tmp_path / side).mkdir()
    truths: dict[str, Pixels] = {}
    for name, size in {"a": (12, 14), "b": (12, 14), "c": (14, 12), "d": (12, 14)}.items():
        blurred = random.integers(0, 128, (*size, 3), dtype=np.uint8)
        truths[name] = blurred * 2
        write_png(tmp_path / "blurred" / f"{name}.png", blurred)
        write_png(tmp_path / "sharp" / f"{name}.png", truths[name])
    restorer = Doubler()
    scores = list(evaluate(match_pairs(tmp_path / "blurred", tmp_path / "sharp"), restorer))
    assert restorer.opened == [(12, 14), (14, 12), (12, 14)]
    assert [score.psnr for score in scores] == [float("inf")] * 4
    assert [round(score.ssim, 9) for score in scores] == [1.0] * 4
    assert all(score.psnr_input < 15 for score in scores)


SCORES = [
    ImageScore("a, b.png", 20, 10, 20.0, 0.5, 24.0, 0.75),
    ImageScore("c.png", 10, 10, 30.0, 0.25, 31.0, 0.5),
]


def test_mean_counts_each_image_once() -> None:
    total = mean(SCORES)
    assert (total.psnr_input, total.psnr) == (25.0, 27.5)
    assert (total.ssim_input, total.ssim) == (0.375, 0.625)


def test_csv_and_table() -> None:
    assert as_csv(SCORES).splitlines()[:2] == [
        "name,width,height,psnr_input,ssim_input,psnr,ssim",
        '"a, b.png",20,10,20.0,0.5,24.0,0.75',
    ]
    last = as_table(SCORES).splitlines()[-1]
    assert last.split() == ["mean", "25.00", "27.50", "+2.50", "0.3750", "0.6250"]
