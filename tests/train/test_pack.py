"""Packs: what goes in comes out; what cannot be used is named."""

import numpy as np
import pytest

from edge_restore.errors import DataError
from tests.train.conftest import draw
from train import pack as packs
from train import packing


def test_splits_and_pixels(photos, pack):
    import cv2

    assert pack.files["train"] == ["photo0.png", "photo1.png"]
    assert pack.files["validation"] == ["photo2.png"]
    assert np.array_equal(pack.train[0], cv2.imread(str(photos / "photo0.png"))[..., ::-1])
    assert len(pack.sha256) == 64


def test_large_photos_are_reduced_and_bad_ones_are_named(tmp_path):
    draw(tmp_path / "large.png", 1, (600, 800))
    draw(tmp_path / "tiny.png", 2, (50, 50))
    draw(tmp_path / "left_out.png", 3)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    out = tmp_path / "out.npz"
    files = packing.make([tmp_path], out, exclude={"left_out.png"}, validation=set(), longest=400)
    assert files["train"] == ["large.png"]
    assert files["skipped"] == [
        "broken.jpg (cannot be read)",
        "left_out.png (excluded)",
        "tiny.png (smaller than 192 pixels)",
    ]
    assert packs.load(out).train[0].shape == (300, 400, 3)


def test_clips_give_their_frames(tmp_path):
    import cv2

    clip = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (320, 240)
    )
    for level in range(20):
        clip.write(np.full((240, 320, 3), level * 10, np.uint8))
    clip.release()
    packing.make([tmp_path], tmp_path / "out.npz", exclude=set(), validation=set(), frames=2)
    frames = packs.load(tmp_path / "out.npz").train
    assert [frame.shape for frame in frames] == [(240, 320, 3)] * 2
    assert 25 < frames[0].mean() < 75 < 125 < frames[1].mean() < 175


def test_bad_input(tmp_path, photos):
    with pytest.raises(DataError, match="no usable photo or clip"):
        packing.make([tmp_path], tmp_path / "x.npz", exclude=set(), validation=set())
    with pytest.raises(DataError, match=r"no file is called nowhere\.png"):
        packing.make([photos], tmp_path / "x.npz", exclude={"nowhere.png"}, validation=set())
    assert not (tmp_path / "x.npz").exists()
    (tmp_path / "text.npz").write_text("hello")
    for path in (tmp_path / "missing.npz", tmp_path / "text.npz"):
        with pytest.raises(DataError, match="is not a training pack"):
            packs.load(path)
