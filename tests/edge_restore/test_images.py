from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_restore.errors import DataError
from edge_restore.images import jpeg_bytes, read_image, write_png

pytest.importorskip("cv2")


def test_png_keeps_every_pixel_and_the_order_of_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    write_png(tmp_path / "x.png", pixels)
    assert np.array_equal(read_image(tmp_path / "x.png"), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_jpeg_is_red_where_the_picture_is(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    (tmp_path / "x.jpg").write_bytes(jpeg_bytes(red))
    back = read_image(tmp_path / "x.jpg")
    assert back[..., 0].min() > 240 and back[..., 2].max() < 15


def test_unreadable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(tmp_path)
    assert capfd.readouterr().err == ""  # OpenCV says nothing of its own
