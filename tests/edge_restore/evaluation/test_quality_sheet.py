from __future__ import annotations

import numpy as np
import pytest

from edge_restore.evaluation import quality_sheet
from edge_restore.evaluation.quality_sheet import SheetRow, choose, draw, most_blurred
from edge_restore.evaluation.scoring import ImageScore
from edge_restore.report import drawing

pytest.importorskip("cv2")


def score(name: str, gain: float) -> ImageScore:
    return ImageScore(name, 40, 30, 25.0, 0.8, 25.0 + gain, 0.9, severity="light")


def test_worst_median_best() -> None:
    scores = [score(str(gain), gain) for gain in (3, -1, 0, 2, 1)]
    assert {k: v.gain for k, v in choose(scores).items()} == {"worst": -1, "median": 1, "best": 3}
    assert [v.gain for v in choose(scores[:4]).values()] == [-1, 0, 3]
    assert list(choose(scores[:2])) == ["worst", "best"]
    equal = ImageScore("equal", 9, 9, float("inf"), 1.0, float("inf"), 1.0)
    assert list(choose([equal, *scores[:1]]).values()) == scores[:1]
    assert list(choose([equal]).values()) == [equal]


def test_the_crop_is_where_the_blur_is() -> None:
    sharp = np.zeros((60, 90, 3), np.uint8)
    blurred = sharp.copy()
    blurred[31:35, 70:74] = 200
    rows, columns = most_blurred(blurred, sharp, 20, 30)
    assert rows.start <= 31 and rows.stop >= 35 and rows.stop - rows.start == 20
    assert columns.start <= 70 and columns.stop >= 74 and columns.stop - columns.start == 30
    assert most_blurred(blurred, sharp, 60, 90) == (slice(0, 60), slice(0, 90))


@pytest.mark.parametrize("size", [(30, 40), (11, 300), (400, 500)])
def test_sheet(size: tuple[int, int]) -> None:
    levels = 60, 120, 180
    pictures = [np.full((*size, 3), level, np.uint8) for level in levels]
    row = SheetRow("worst", score("a-name-that-is-long" * 9 + ".png", -1), *pictures)
    sheet = draw([row, row], "title")
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert sheet.shape[1] == 3 * quality_sheet.CELL_WIDTH + 4 * 12
    # the three pictures stand in their columns, in this order
    cell = quality_sheet.CELL_WIDTH + 12
    for i, level in enumerate(levels):
        assert tuple(sheet[76, 12 + i * cell + 4]) == (level,) * 3
    # nothing is written beyond the sheet's own border
    assert (sheet[:, -11:] == drawing.PAPER).all()


def test_text_is_shortened_and_plain() -> None:
    assert drawing.shortened("short", 400) == "short"
    text = drawing.shortened("x" * 200 + ".png", 150)
    assert "..." in text and text.endswith("png") and drawing.text_width(text) <= 150
    accented, plain = map(drawing.text_width, "ée")
    assert accented == plain
    paper = drawing.canvas(40, 200)
    drawing.write(paper, "abc", 198, 30, align=1.0)
    columns = np.nonzero((paper != drawing.PAPER).any(axis=(0, 2)))[0]
    assert columns.min() > 150
    assert columns.max() <= 199


def test_a_dot_has_its_area_wherever_it_lies() -> None:
    for x, y in ((20.0, 20.0), (20.4, 19.7), (20.5, 20.5)):
        for radius in (1.5, 4.0):
            picture = np.zeros((40, 40, 3), np.uint8)
            drawing.dot(picture, x, y, radius, (200, 100, 50))
            area = picture[..., 0].sum() / 200
            assert area == pytest.approx(np.pi * radius**2, rel=0.1)
            rows, columns = np.nonzero(picture[..., 0])
            assert np.average(columns, weights=picture[rows, columns, 0]) == pytest.approx(
                x, abs=0.1
            )
    drawing.dot(picture, -300.0, 500.0, 3.0, (1, 1, 1))  # outside: nothing happens
    drawing.dot(picture, 0.0, 39.0, 3.0, (200, 100, 50))
    assert tuple(picture[39, 0]) == (200, 100, 50)
