from __future__ import annotations

import sys

import numpy as np
import pytest

from edge_restore.errors import DependencyError
from edge_restore.report.comparison import DIVIDER, Example, contact_sheet, side_by_side

pytest.importorskip("cv2")


def flat(level: int, height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_side_by_side() -> None:
    left, right = flat(50), flat(200)
    picture = side_by_side(left, right)
    assert picture.shape == (120, 320 + DIVIDER, 3)
    assert (picture[:80, :160] == 50).all()
    assert (picture[:, 160 : 160 + DIVIDER] == 255).all()
    assert (picture[:80, 160 + DIVIDER :] == 200).all()
    assert (picture[80:, :160] != 50).any(), "the label is missing"
    assert (left == 50).all(), "the frame itself was written on"


@pytest.mark.parametrize("size", [(120, 160), (91, 131), (64, 64)])
def test_contact_sheet(size: tuple[int, int]) -> None:
    example = Example(flat(60, *size), flat(120, *size), flat(180, *size), "frame 3", (10.0, 10.0))
    sheet = contact_sheet([example, example])
    levels, counts = np.unique(sheet[..., 0], return_counts=True)
    shown = dict(zip(levels.tolist(), counts.tolist(), strict=True))
    cell = (size[0] // 2 * 2) * (size[1] // 2 * 2)
    for level in (60, 120, 180):  # twice each, less the labels
        assert 0.6 * cell < shown[level] < 2 * cell


@pytest.mark.parametrize(
    ("subject", "shown_at"),
    [
        ((80, 60), (80, 60)),  # in the middle of the enlarged part
        ((60, 50), (80, 60)),
        ((4, 60), (8, 60)),  # near the border the part ends with the frame
        ((80, 116), (80, 112)),
    ],
)
def test_subject_is_in_the_middle(subject: tuple[int, int], shown_at: tuple[int, int]) -> None:
    x, y = subject
    black, sharp = flat(0), flat(0)
    sharp[y - 2 : y + 2, x - 2 : x + 2] = 255
    sheet = contact_sheet([Example(black, black, sharp, "", (float(x), float(y)))])
    cell = sheet[44:-8, -8 - 160 : -8]
    rows, columns = np.nonzero(cell[..., 0] > 127)
    assert (columns.mean(), rows.mean()) == pytest.approx(shown_at, abs=1.5)


def test_subject_outside_of_the_frame() -> None:
    black = flat(0)
    for subject in ((-500.0, 30.0), (900.0, 900.0)):
        assert contact_sheet([Example(black, black, black, "", subject)]).shape[0] == 44 + 128


def test_a_comparison_without_opencv_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match="opencv-python"):
        side_by_side(flat(50), flat(200))
