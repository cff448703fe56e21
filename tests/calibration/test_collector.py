"""Which frames make a calibration set, and what a set refuses."""

import json

import numpy as np
import pytest
from skimage.measure import blur_effect

from calibration import calibration_set, collector, statistics
from calibration.__main__ import main
from calibration.calibration_set import CalibrationSet
from edge_restore.errors import DataError
from edge_restore.media.images import write_png
from tests.calibration.conftest import picture


@pytest.fixture
def folder(tmp_path):
    """Twelve frames much alike, a dark one, a blurred one, and three that cannot be used."""
    import cv2

    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(12):
        frame = np.roll(picture(0, (80, 120)), number, axis=1)
        write_png(frames / f"like{number:02}.png", frame)
    write_png(frames / "dark.png", picture(0, (80, 120)) // 6)
    write_png(frames / "soft.png", cv2.blur(picture(0, (80, 120)), (9, 9)))
    write_png(frames / "wall.png", np.full((80, 120, 3), 90, np.uint8))
    write_png(frames / "small.png", picture(1, (40, 60)))
    (frames / "torn.png").write_bytes(b"not an image")
    return frames


def test_the_frames_that_differ_come_first(folder):
    found = collector.collect(str(folder), 4, (64, 96))
    names = [frame.name for frame in found.chosen.frames]
    assert names[0].startswith("like") and {"dark.png", "soft.png"} <= set(names)
    assert found.looked_at == 14 and found.chosen.size == (64, 96)
    assert set(found.left_out) == {"wall.png", "small.png", "torn.png"}
    assert "smaller than 64x96" in found.left_out["small.png"]


def test_the_middle_is_cut_out(folder):
    found = collector.collect(str(folder), 20, (64, 96))
    place = [frame.name for frame in found.chosen.frames].index("like00.png")
    expected = picture(0, (80, 120))[8:72, 12:108]
    np.testing.assert_array_equal(found.chosen.pixels[place], expected)


def test_a_long_source_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(collector, "CANDIDATES", 8)
    stream = [(str(n), picture(n, (16, 16))) for n in range(50)]
    kept = [int(name) for name, _, _ in collector._thinned(stream)]
    assert kept == list(range(0, 50, 8))


def test_blur_is_the_published_measure():
    """Crete et al., equations 1 to 7, for one column at a time; and near scikit-image's number."""
    luma = picture(3, (200, 160)).astype(np.float64) @ [0.299, 0.587, 0.114]
    before = lost = 0.0
    for column in luma.T:
        again = np.convolve(column, np.full(11, 1 / 11), "valid")
        sharp = np.abs(np.diff(column[5:-5]))
        before += sharp.sum()
        lost += np.maximum(0, sharp - np.abs(np.diff(again))).sum()
    found = statistics._blur(luma.astype(np.float32))
    assert found == pytest.approx((before - lost) / before, abs=1e-5)
    theirs = blur_effect(luma, h_size=11, channel_axis=None, reduce_func=None)[0]
    assert found < theirs < found + 0.1


def test_statistics_of_known_pictures():
    left_black = np.zeros((32, 32, 3), np.uint8)
    left_black[:, 16:] = 200
    measured = statistics.measure(left_black)
    assert measured.brightness == pytest.approx(100) and measured.contrast == pytest.approx(100)
    assert measured.texture == 0  # the edge lies between two blocks
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    assert statistics.measure(stripes).texture == pytest.approx(100)
    assert statistics.measure(stripes).blur < 0.15


def test_a_set_survives_the_file(frames, frames_file):
    again = CalibrationSet.load(frames_file)
    np.testing.assert_array_equal(again.pixels, frames.pixels)
    assert again.frames == frames.frames and again.sha256 == frames.sha256


def test_the_hash_is_of_the_frames_and_their_order():
    named = [(str(n), picture(n)) for n in range(4)]
    assert CalibrationSet.of(named).sha256 == CalibrationSet.of(list(named)).sha256
    assert CalibrationSet.of(named).sha256 != CalibrationSet.of(named[::-1]).sha256


def changed(path, out, **arrays):
    with np.load(path) as archive:
        np.savez(out, **{**dict(archive), **arrays})
    return out


def test_frames_that_were_changed_are_refused(frames, frames_file, tmp_path):
    pixels = frames.pixels.copy()
    pixels[0, 0, 0, 0] ^= 1
    with pytest.raises(DataError, match="not those that were packed"):
        CalibrationSet.load(changed(frames_file, tmp_path / "x.npz", frames=pixels))


def test_other_files_are_refused(frames_file, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nothing")
    header = np.frombuffer(json.dumps({"schema": "other/1", "frames": []}).encode(), np.uint8)
    for path in (
        tmp_path / "x.npz",
        tmp_path / "missing.npz",
        changed(frames_file, tmp_path / "y.npz", header=header),
    ):
        with pytest.raises(DataError, match="cannot be read as a calibration set"):
            CalibrationSet.load(path)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([("a", picture(0))] * 3, "there are 3 calibration frames"),
        ([("a", picture(0))] * 3 + [("b", np.full((64, 96, 3), 9, np.uint8))], "show nothing: b"),
        ([("a", picture(0))] * 4 + [("b", picture(0, (64, 64)))], "several sizes: 64x64, 64x96"),
        ([("a", picture(0).astype(np.float32) / 255)] * 4, "is float32 of shape"),
        ([("a", picture(0)[..., 0])] * 4, r"is uint8 of shape \(64, 96\)"),
    ],
)
def test_useless_frames_are_refused(named, message):
    with pytest.raises(DataError, match=message):
        CalibrationSet.of(named)


def test_the_command_says_what_it_took(folder, tmp_path, capsys):
    out = tmp_path / "set.npz"
    assert main(["collect", str(folder), "--out", str(out), "--count", "5", "--size", "64x96"]) == 0
    said = capsys.readouterr().out
    assert "5 of 14 frames, 64x96" in said and "left out: " in said and "brightness" in said
    assert len(CalibrationSet.load(out).frames) == 5


def moving(count, step=3, size=(120, 160)):
    """Frames of a camera that turns."""
    wide = picture(5, (size[0], size[1] + count * step))
    return [wide[:, step * n : step * n + size[1]] for n in range(count)]


def copies(folder, kind):
    """Many files or frames that show one and the same picture; what `collect` takes."""
    import cv2

    from edge_restore.demo.clip import write_clip

    folder.mkdir()
    photo = cv2.blur(picture(3, (120, 160)), (3, 3))
    if kind == "copied files":
        for number in range(12):
            write_png(folder / f"{number}.png", photo)
    elif kind == "other encodings":
        for suffix in (".png", ".bmp", ".tif", ".webp"):
            cv2.imwrite(str(folder / f"x{suffix}"), photo, [cv2.IMWRITE_WEBP_QUALITY, 98])
        for quality in range(90, 100):
            options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_CHROMA_QUALITY, quality]
            cv2.imwrite(str(folder / f"x{quality}.jpg"), photo, options)
    elif kind == "noise":
        for seed in range(12):
            noise = np.random.default_rng(seed).normal(0, 2, photo.shape)
            write_png(folder / f"{seed}.png", np.clip(photo + noise, 0, 255).astype(np.uint8))
    elif kind == "three pictures":
        for seed in range(3):
            for number in range(8):
                write_png(folder / f"{seed}-{number}.png", picture(seed, (120, 160)))
    else:
        pytest.importorskip("av")
        write_clip(folder / "still.mp4", [photo] * 30, 30, crf=18)
        return folder / "still.mp4"
    return folder


@pytest.mark.parametrize(
    "kind", ["copied files", "other encodings", "noise", "three pictures", "still clip"]
)
def test_copies_of_a_frame_count_once(kind, tmp_path, capsys):
    source = copies(tmp_path / "source", kind)
    assert main(["collect", str(source), "--out", str(tmp_path / "set.npz")]) == 2
    said = capsys.readouterr().err
    assert f"only {3 if kind == 'three pictures' else 1} different one(s)" in said
    assert not (tmp_path / "set.npz").exists()


def test_a_set_takes_each_of_the_different_frames_once(tmp_path, capsys):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(moving(6)):
        for copy in "abc":
            write_png(folder / f"{number}{copy}.png", frame)
    out = tmp_path / "set.npz"
    assert main(["collect", str(folder), "--out", str(out)]) == 0
    assert "6 of 6 frames" in capsys.readouterr().out
    assert len({frame.sha256 for frame in CalibrationSet.load(out).frames}) == 6


def test_repeats_do_not_crowd_the_different_ones_out_of_a_long_source(monkeypatch):
    monkeypatch.setattr(collector, "CANDIDATES", 8)
    stream = [(f"{n}-{copy}", frame) for n, frame in enumerate(moving(8)) for copy in range(9)]
    assert len(collector._thinned(collector._usable(stream, None, {}))) == 8


def test_footage_that_is_cut_off_is_used_as_far_as_it_goes_and_said(tmp_path, capsys):
    pytest.importorskip("av")
    from edge_restore.demo.clip import write_clip

    clip, out = tmp_path / "clip.mkv", tmp_path / "set.npz"
    write_clip(clip, moving(40), 30, crf=18)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    code = main(["collect", str(clip), "--out", str(out), "--count", "6"])
    assert len(CalibrationSet.load(out).frames) == 6
    said = capsys.readouterr().err
    assert code == (2 if "warning" in said else 0)


def test_too_little_footage_is_one_error(tmp_path, capsys):
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, picture(0))
    out = tmp_path / "set.npz"
    assert main(["collect", str(tmp_path), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "has 2 frame(s) that can be used, but only 1 different" in said and "hint" in said
    assert not out.exists()
    assert main(["collect", str(tmp_path), "--out", str(out), "--count", "2"]) == 2
    assert calibration_set.FEWEST == 4
