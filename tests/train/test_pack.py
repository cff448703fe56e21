"""Packs: what goes in comes out; what cannot be used is named."""

import os
import shutil

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
    files = packing.make(
        [tmp_path],
        out,
        packing.Names(exclude={"left_out.png"}),
        reduction=packing.Reduction(longest=400),
    )
    assert files["train"] == ["large.png"]
    assert files["skipped"] == [
        "broken.jpg (cannot be read as an image)",
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
    packing.make([tmp_path], tmp_path / "out.npz", reduction=packing.Reduction(frames=2))
    frames = packs.load(tmp_path / "out.npz").train
    assert [frame.shape for frame in frames] == [(240, 320, 3)] * 2
    assert 25 < frames[0].mean() < 75 < 125 < frames[1].mean() < 175


def test_bad_input(tmp_path, photos):
    with pytest.raises(DataError, match="no usable photo or clip"):
        packing.make([tmp_path], tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"no file is called nowhere\.png"):
        packing.make([photos], tmp_path / "x.npz", packing.Names(exclude={"nowhere.png"}))
    assert not (tmp_path / "x.npz").exists()
    (tmp_path / "text.npz").write_text("hello")
    for path in (tmp_path / "missing.npz", tmp_path / "text.npz"):
        with pytest.raises(DataError, match="cannot be read as a training pack"):
            packs.load(path)


def gopro(root, clips=("A", "B"), size=(200, 210)):
    for clip in clips:
        for number in (7, 8):
            for side in ("blur", "sharp"):
                folder = root / "train" / clip / side
                folder.mkdir(parents=True, exist_ok=True)
                draw(folder / f"{number:06d}.png", number + 50 * (side == "sharp"), size)


def test_a_photo_that_is_cut_off_is_named_and_not_packed(tmp_path):
    draw(tmp_path / "good.png", 1)
    for suffix in ("png", "jpg", "bmp", "webp", "tif"):
        path = tmp_path / f"half.{suffix}"
        draw(path, 2)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    files = packing.make([tmp_path], tmp_path / "o.npz")
    assert files["train"] == ["good.png"]
    assert [line.split(" ")[0] for line in files["skipped"]] == [
        "half.bmp", "half.jpg", "half.png", "half.tif", "half.webp"
    ]  # fmt: skip
    assert all("is cut off" in line for line in files["skipped"])


def test_links_to_nowhere_and_pipes_are_named_and_not_waited_for(tmp_path):
    draw(tmp_path / "good.png", 1)
    for name in ("link.jpg", "link.mp4"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    for name in ("pipe.png", "pipe.mp4"):
        os.mkfifo(tmp_path / name)
    files = packing.make([tmp_path], tmp_path / "o.npz")
    assert files["skipped"] == [
        "link.jpg (does not exist)", "link.mp4 (no plain file)",
        "pipe.mp4 (no plain file)", "pipe.png (is a pipe)",
    ]  # fmt: skip


def test_a_clip_that_is_cut_off_is_packed_as_far_as_it_goes_and_named(tmp_path):
    pytest.importorskip("av")
    from edge_restore.demo.clip import write_clip

    noise = np.random.default_rng(0).integers(0, 256, (60, 200, 300, 3), dtype=np.uint8)
    clip = tmp_path / "clip.mkv"
    write_clip(clip, list(noise), 30, crf=40)
    for part, named in ((1.0, False), (0.6, True)):
        clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * part)])
        files = packing.make([tmp_path], tmp_path / "o.npz")
        assert files["train"] == ["clip.mkv"]
        assert (
            any(
                "clip.mkv (in part: " in line and "was cut off" in line for line in files["skipped"]
            )
            is named
        )


def test_a_photo_in_both_splits_is_a_warning(tmp_path, capsys):
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "b.bmp", 1)
    draw(tmp_path / "c.png", 2)
    for validation, told in (("b.bmp", True), ("c.png", False)):
        packing.make([tmp_path], tmp_path / "o.npz", packing.Names(validation={validation}))
        assert ("a.png and b.bmp" in capsys.readouterr().err) is told


def test_pairs_of_a_data_set(tmp_path, photos):
    import cv2

    root, out = tmp_path / "set", tmp_path / "pack.npz"
    gopro(root, ("A", "B", "C"))
    (root / "train" / "B" / "blur" / "000008.png").write_bytes(b"broken")
    files = packing.make(
        [root],
        out,
        packing.Names(exclude={"C/000007"}),
        dataset=packing.DataSet("gopro", photos=[photos]),
    )
    assert files["train"] == ["A/000007", "A/000008", "B/000007", *(f"photo{i}.png" for i in "012")]
    assert files["validation"] == ["C/000008"]
    assert files["skipped"] == ["C/000007 (excluded)", "B/000008 (cannot be read as an image)"]
    pack = packs.load(out)
    assert len(pack.train) == 3
    assert pack.neighbours("train", 0) == (None, None)
    degraded, sharp = pack.train_pairs[1]
    clip = root / "train" / "A"
    assert np.array_equal(degraded, cv2.imread(str(clip / "blur" / "000008.png"))[..., ::-1])
    assert np.array_equal(sharp, cv2.imread(str(clip / "sharp" / "000008.png"))[..., ::-1])
    assert pack.neighbours("train_pairs", 1) == (0, None)


def test_a_set_of_one_sequence_is_validated_on_its_last_pairs(tmp_path):
    for name in ("1", "2", "10"):
        for side in ("input", "target"):
            folder = tmp_path / "train" / "Rain13K" / side
            folder.mkdir(parents=True, exist_ok=True)
            draw(folder / f"{name}.png", int(name), (200, 210))
    out = tmp_path / "pack.npz"
    files = packing.make([tmp_path], out, dataset=packing.DataSet("rain13k"))
    assert files["train"] == ["Rain13K/1", "Rain13K/2"]
    assert files["validation"] == ["Rain13K/10"]


def test_pairs_through_h264_lose_detail_on_the_degraded_side_alone(tmp_path):
    pytest.importorskip("av")
    root = tmp_path / "set"
    gopro(root)
    loaded = []
    for crf in (None, 40):
        out = tmp_path / f"{crf}.npz"
        packing.make(
            [root], out, packing.Names(validation={"B"}), dataset=packing.DataSet("gopro", crf=crf)
        )
        loaded.append(packs.load(out).train_pairs)
    for (before, sharp), (after, same) in zip(*loaded, strict=True):
        assert np.array_equal(sharp, same)
        error = np.abs(before.astype(int) - after).mean()
        assert 1 < error < 30


def test_bad_pairs_leave_no_pack(tmp_path):
    root, out = tmp_path / "set", tmp_path / "pack.npz"
    gopro(root)
    gopro_set = packing.DataSet("gopro")
    with pytest.raises(DataError, match="no split 'test'"):
        packing.make([root], out, dataset=packing.DataSet("gopro", split="test"))
    with pytest.raises(DataError, match="no pair or sequence is called Z"):
        packing.make([root], out, packing.Names(validation={"Z"}), dataset=gopro_set)
    with pytest.raises(DataError, match="no usable pair"):
        packing.make([root], out, reduction=packing.Reduction(smallest=500), dataset=gopro_set)
    draw(root / "train" / "A" / "sharp" / "000008.png", 3, (200, 220))
    with pytest.raises(DataError, match=r"1 pair\(s\) of unequal sizes: A/000008"):
        packing.make([root], out, dataset=gopro_set)
    assert list(tmp_path.glob("*.npz")) == []


def test_clips_with_neighbours_lead_from_frame_to_frame(tmp_path):
    import cv2

    clip = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (320, 240)
    )
    for level in range(20):
        clip.write(np.full((240, 320, 3), level * 10, np.uint8))
    clip.release()
    out = tmp_path / "out.npz"
    packing.make([tmp_path], out, reduction=packing.Reduction(frames=2, neighbours=True))
    pack = packs.load(out)
    assert len(pack.train) == 6
    beside = [pack.neighbours("train", i) for i in range(6)]
    assert beside == [(None, 1), (0, 2), (1, None), (None, 4), (3, 5), (4, None)]
    levels = [frame.mean() for frame in pack.train]
    assert np.diff(levels)[[0, 1, 3, 4]] == pytest.approx(10, abs=1.5)


def test_packs_of_the_first_schema_still_load(tmp_path, pack):
    import json

    header = json.dumps({"schema": "edge_restore.training_pack/1", "files": pack.files})
    arrays = {"train_00000": pack.train[0], "validation_00001": pack.validation[0]}
    np.savez(tmp_path / "old.npz", header=np.frombuffer(header.encode(), np.uint8), **arrays)
    old = packs.load(tmp_path / "old.npz")
    assert np.array_equal(old.train[0], pack.train[0])
    assert np.array_equal(old.validation[0], pack.validation[0])
    assert old.train_pairs == []
    assert old.neighbours("train", 0) == (None, None)


def test_the_same_pictures_make_the_same_file(tmp_path, photos):
    for name in ("a.npz", "b.npz"):
        packing.make([photos], tmp_path / name)
    assert packs.load(tmp_path / "a.npz").sha256 == packs.load(tmp_path / "b.npz").sha256


def test_damaged_packs_are_refused(tmp_path, pack_file):
    whole = pack_file.read_bytes()
    shapes = tmp_path / "shapes.npz"
    header = np.frombuffer(b'{"schema": "edge_restore.training_pack/2", "files": {}}', np.uint8)
    np.savez(shapes, header=header, train_00000=np.zeros((4, 4), np.uint8))
    squeezed = tmp_path / "squeezed.npz"
    np.savez_compressed(squeezed, header=header)
    floats = tmp_path / "floats.npz"
    np.savez(floats, header=header, train_00000=np.zeros((4, 4, 3)))
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    paths = [shapes, squeezed, floats, tmp_path / "cut.npz", tmp_path / "empty.npz"]
    for path in paths:
        with pytest.raises(DataError, match="cannot be read as a training pack"):
            packs.load(path)


@pytest.mark.parametrize(
    "name", ["gone.png", "gone.mp4", "pipe.png", "pipe.mp4", "dir.png", "dir.mp4"]
)
def test_what_is_no_plain_file_is_named_among_the_skipped(photos, tmp_path, name):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    if name.startswith("pipe"):
        os.mkfifo(folder / name)
    elif name.startswith("dir"):
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("nowhere")
    files = packing.make([folder], tmp_path / "p.npz", packing.Names(validation={"photo2.png"}))
    assert [entry.partition(" (")[0] for entry in files["skipped"]] == [name]
