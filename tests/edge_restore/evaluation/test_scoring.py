from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore.errors import BackendError, ModelError
from edge_restore.evaluation.pairs import match_pairs
from edge_restore.evaluation.protocols import PROTOCOLS
from edge_restore.evaluation.scoring import (
    ImageScore,
    as_csv,
    as_table,
    below_input,
    below_input_line,
    by_severity,
    evaluate,
    mean,
)
from edge_restore.frames import Frame, Pixels
from edge_restore.media.images import write_png

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
    assert as_csv(SCORES).splitlines() == [
        "kind,name,severity,width,height,psnr_input,ssim_input,psnr,ssim,gain,lpips_input,lpips,"
        "remark",
        'image,"a, b.png",,20,10,20.0,0.5,24.0,0.75,4.0,,,',
        "image,c.png,,10,10,30.0,0.25,31.0,0.5,1.0,,,",
    ]
    last = as_table(SCORES).splitlines()[-1]
    assert last.split() == ["mean", "25.00", "27.50", "+2.50", "0.3750", "0.6250"]


BY_LEVEL = [
    ImageScore("heavy/a", 9, 9, 20.0, 0.5, 23.0, 0.6, 0.5, 0.4, severity="heavy"),
    ImageScore("heavy/b", 9, 9, 22.0, 0.5, 23.0, 0.6, 0.5, 0.2, severity="heavy"),
    ImageScore("light/a", 9, 9, 30.0, 0.9, 29.5, 0.8, 0.1, 0.2, severity="light", remark="odd"),
]


def test_each_severity_has_its_mean_the_lightest_first() -> None:
    levels = by_severity(BY_LEVEL)
    assert list(levels) == ["light", "heavy"]
    assert (levels["heavy"].psnr_input, levels["heavy"].gain, levels["heavy"].images) == (21, 2, 2)
    assert levels["heavy"].lpips == pytest.approx(0.3)
    rows = as_csv(BY_LEVEL).splitlines()
    assert [row.split(",")[:3] for row in rows[-2:]] == [
        ["mean", "", "light"],
        ["mean", "", "heavy"],
    ]
    lines = as_table(BY_LEVEL).splitlines()
    assert lines[0].split()[-5:] == ["LPIPS", "in", "LPIPS", "out", "remark"]
    assert lines[3].endswith("  odd")
    numbers = "21.00 23.00 +2.00 0.5000 0.6000 0.5000 0.3000"
    assert " ".join(lines[5].split()) == f"mean of heavy 2 images {numbers}"
    assert lines[6].split()[:3] == ["mean", "3", "images"]
    assert by_severity(SCORES) == {}


def test_what_came_out_below_the_input_is_named() -> None:
    assert below_input(SCORES) == []
    assert below_input_line(SCORES) == "below the input: none of 2"
    assert below_input(BY_LEVEL) == ["light/a"]
    many = [ImageScore(str(i), 9, 9, 30.0, 1, 29.0, 1) for i in range(10)]
    assert below_input_line(many, 2) == "below the input: 10 of 10: 0, 1 and 8 more"


def test_equal_images_do_not_spoil_the_means() -> None:
    equal = ImageScore("x", 9, 9, float("inf"), 1.0, float("inf"), 1.0)
    lower = ImageScore("y", 9, 9, float("inf"), 1.0, 40.0, 1.0)
    assert below_input([equal, lower]) == ["y"]
    assert mean([equal, lower]).psnr == float("inf")
    assert as_table([equal, lower]).splitlines()[-1].split()[1:4] == ["inf", "inf", "-"]


class Unrounded(Doubler):
    """Gives a third of a level more than it was given, unrounded."""

    class card:
        name, network, form = "thirds", "svdn", "float"

    def restore_unrounded(self, pixels: Pixels) -> Any:
        return ((pixels + 1 / 3) / 255).astype(np.float32)


def write_pair(folder: Path) -> Path:
    pixels = np.random.default_rng(2).integers(0, 200, (12, 12, 3), dtype=np.uint8)
    for side in ("blurred", "sharp"):
        (folder / side).mkdir()
        write_png(folder / side / "a.png", pixels)
    return folder


def test_unrounded_pixels_reach_the_protocol(tmp_path: Path) -> None:
    write_pair(tmp_path)
    pairs = match_pairs(tmp_path / "blurred", tmp_path / "sharp")
    protocol = PROTOCOLS["mimo-unet"]
    (score,) = evaluate(pairs, Unrounded(), tmp_path, protocol=protocol)
    assert score.psnr == pytest.approx(20 * np.log10(255 * 3), abs=1e-3)
    # saved as 8 bits, a third of a level is nothing
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "sharp" / "a.png").read_bytes()
    with pytest.raises(BackendError, match="rounds to 8 bits"):
        list(evaluate(pairs, Doubler(), protocol=protocol))
    camera = Unrounded()
    camera.card.form = "camera"
    with pytest.raises(ModelError, match="--form float"):
        list(evaluate(pairs, camera, protocol=protocol))
