"""Readers of data sets, on tiny trees in the published layouts."""

import cv2
import numpy as np
import pytest

from edge_restore.errors import DataError
from train.datasets import DATASETS, PairImages, read


def put(root, *names, size=(8, 8)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((*size, 3), len(name), np.uint8))


def gopro(root):
    for split, clip in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00")):
        for number in (47, 48, 49):
            put(
                root,
                *(
                    f"{split}/{clip}/{side}/{number:06d}.png"
                    for side in ("blur", "blur_gamma", "sharp")
                ),
            )


def test_gopro_has_clips_with_neighbours(tmp_path):
    gopro(tmp_path)
    pairs = read("gopro", tmp_path)
    assert [(p.name, p.split) for p in pairs] == [
        *((f"GOPR0372_07_00/{n:06d}", "train") for n in (47, 48, 49)),
        *((f"GOPR0384_11_00/{n:06d}", "test") for n in (47, 48, 49)),
    ]
    first, second, third = pairs[:3]
    sharp = tmp_path / "train" / "GOPR0372_07_00" / "sharp"
    assert (second.sequence, second.number) == ("GOPR0372_07_00", 48)
    assert second.degraded == sharp.parent / "blur" / "000048.png"
    assert (second.previous, second.next) == (sharp / "000047.png", sharp / "000049.png")
    assert (first.previous, third.next) == (None, None)
    gamma = read("gopro_gamma", tmp_path)
    assert gamma[0].degraded == sharp.parent / "blur_gamma" / "000047.png"
    assert gamma[0].sharp == first.sharp


def test_a_gap_in_a_clip_has_no_neighbour(tmp_path):
    gopro(tmp_path)
    for side in ("blur", "sharp"):
        (tmp_path / "train" / "GOPR0372_07_00" / side / "000048.png").unlink()
    first, third = read("gopro", tmp_path)[:2]
    assert (first.next, third.previous) == (None, None)


def test_hide(tmp_path):
    put(tmp_path, "train/2fromGOPR0950.png", "train/10fromGOPR0950.png")
    put(tmp_path, "test/test-close-ups/1fromGOPR1096.MP4.png")
    put(tmp_path, "test/test-long-shot/3fromGOPR1096.MP4.png")
    put(
        tmp_path, "GT/2fromGOPR0950.png", "GT/10fromGOPR0950.png",
        "GT/1fromGOPR1096.MP4.png", "GT/3fromGOPR1096.MP4.png",
    )  # fmt: skip
    pairs = read("hide", tmp_path)
    assert [(p.name, p.split) for p in pairs] == [
        ("2fromGOPR0950", "train"),
        ("10fromGOPR0950", "train"),
        ("test-close-ups/1fromGOPR1096.MP4", "test"),
        ("test-long-shot/3fromGOPR1096.MP4", "test"),
    ]
    assert pairs[2].sharp == tmp_path / "GT" / "1fromGOPR1096.MP4.png"
    put(tmp_path, "GT/77fromGOPR1.png")
    with pytest.raises(DataError, match=r"1 picture.*GT/77fromGOPR1\.png"):
        read("hide", tmp_path)


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        ("J", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"),
        ("R", "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"),
    ],
)
def test_realblur_follows_its_lists(tmp_path, kind, folder):
    for split, scene, count in (("train", "scene001", 10), ("test", "scene002", 1)):
        lines = []
        for i in range(count, 0, -1):
            names = f"{folder}/{scene}/gt/gt_{i}.png", f"{folder}/{scene}/blur/blur_{i}.png"
            put(tmp_path, *names)
            lines.append(" ".join(names))
        text = "\n".join(lines) + "\n"
        (tmp_path / f"RealBlur_{kind}_{split}_list.txt").write_text(text)
    pairs = read(f"realblur_{kind.lower()}", tmp_path)
    assert [p.name for p in pairs] == [
        *(f"scene001/blur_{i}" for i in range(1, 11)), "scene002/blur_1",
    ]  # fmt: skip
    assert [p.split for p in pairs[-2:]] == ["train", "test"]
    assert pairs[0].sharp == tmp_path / folder / "scene001" / "gt" / "gt_1.png"
    assert pairs[1].previous is None  # a scene is no clip
    pairs[-1].degraded.unlink()
    with pytest.raises(DataError, match=r"scene002/blur/blur_1\.png"):
        read(f"realblur_{kind.lower()}", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00a b\n", "not UTF-8"),
        (b"a" * 5000 + b" b\n", "no counterpart"),
        (b"a\0b c\n", "no counterpart"),
        (b"1" * 9000 + b" 2\n3 4\n", "no counterpart"),
        (None, "not a plain file"),
    ],
)
def test_a_realblur_list_that_cannot_be_read_is_named(tmp_path, content, message):
    listing = tmp_path / "RealBlur_J_train_list.txt"
    listing.mkdir() if content is None else listing.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read("realblur_j", tmp_path)


@pytest.mark.parametrize("prefix", ["", "0001_"])
def test_sidd_small_and_medium(tmp_path, prefix):
    scene = "0001_001_S6_00100_00060_3200_L"
    numbers = ("010", "011") if prefix else ("010",)
    for number in numbers:
        put(
            tmp_path,
            f"Data/{scene}/{prefix}NOISY_SRGB_{number}.PNG",
            f"Data/{scene}/{prefix}GT_SRGB_{number}.PNG",
        )
    pairs = read("sidd", tmp_path)
    assert [p.name for p in pairs] == [f"{scene}/{prefix}{number}" for number in numbers]
    assert pairs[0].degraded.name == f"{prefix}NOISY_SRGB_010.PNG"
    assert pairs[0].sharp.name == f"{prefix}GT_SRGB_010.PNG"
    assert {(p.sequence, p.split) for p in pairs} == {(scene, "train")}


def test_rain13k(tmp_path):
    for name in ("train/Rain13K/{}/2.jpg", "train/Rain13K/{}/10.jpg", "test/Rain100L/{}/1.png"):
        put(tmp_path, name.format("input"), name.format("target"))
    pairs = read("rain13k", tmp_path)
    assert [(p.name, p.split, p.sequence) for p in pairs] == [
        ("Rain13K/2", "train", "Rain13K"),
        ("Rain13K/10", "train", "Rain13K"),
        ("Rain100L/1", "test", "Rain100L"),
    ]


@pytest.mark.parametrize(
    "couple", [("blurred", "sharp"), ("input", "target"), ("lq", "gt"), ("blur", "gt")]
)
@pytest.mark.parametrize(("where", "split"), [("", "train"), ("val/", "validation")])
def test_plain_pairs(tmp_path, couple, where, split):
    put(tmp_path, f"{where}{couple[0]}/a.jpg", f"{where}{couple[0]}/clip/b.png")
    put(tmp_path, f"{where}{couple[1]}/a.png", f"{where}{couple[1]}/clip/b.png")
    pairs = read("pairs", tmp_path)
    assert [(p.name, p.split) for p in pairs] == [("a", split), ("clip/b", split)]
    assert pairs[0].degraded.parts[-2:] == (couple[0], "a.jpg")


def test_two_couples_are_ambiguous(tmp_path):
    put(tmp_path, "input/a.png", "target/a.png", "lq/a.png", "gt/a.png")
    with pytest.raises(DataError, match="input and target; lq and gt"):
        read("pairs", tmp_path)


def test_unequal_names_are_one_error_that_names_them(tmp_path):
    put(tmp_path, "input/a.png", "input/b.png", "target/b.png", "target/c.png")
    with pytest.raises(DataError) as caught:
        read("pairs", tmp_path)
    text = str(caught.value)
    assert "2 picture(s)" in text
    assert "input/a.png" in text
    assert "target/c.png" in text
    assert "b.png" not in text


@pytest.mark.parametrize("dataset", DATASETS)
def test_an_empty_folder_says_what_belongs_there(tmp_path, dataset):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=f"has no pair of {dataset}"):
            read(dataset, root)


def test_frames_without_numbers_and_unknown_sets(tmp_path):
    put(tmp_path, "train/clip/blur/x.png", "train/clip/sharp/x.png")
    with pytest.raises(DataError, match=r"2 frame\(s\) without a number"):
        read("gopro", tmp_path)
    with pytest.raises(DataError, match="gopro, gopro_gamma, hide"):
        read("imagenet", tmp_path)


def test_images_are_opened_and_bad_ones_counted_named_and_left_out(tmp_path):
    put(tmp_path, "input/good.png", "target/good.png", size=(20, 30))
    put(tmp_path, "input/tiny.png", "target/tiny.png", size=(20, 8))
    put(tmp_path, "target/broken.png", size=(20, 30))
    (tmp_path / "input" / "broken.png").write_bytes(b"no picture")
    images = PairImages(read("pairs", tmp_path), smallest=10)
    ((pair, degraded, sharp),) = images
    assert pair.name == "good"
    assert degraded.shape == sharp.shape == (20, 30, 3)
    assert images.skipped == [
        "broken (cannot be read as an image)",
        "tiny (smaller than 10 pixels)",
    ]


@pytest.mark.parametrize("twin", ["input/a.jpg", "target/a.bmp"])
def test_two_pictures_of_one_name_are_refused(tmp_path, twin):
    put(tmp_path, "input/a.png", "target/a.png", twin, size=(20, 30))
    with pytest.raises(DataError, match=r"a\.(jpg|bmp|png)' and .*a\.(png|jpg)' have one name"):
        read("pairs", tmp_path)


def test_unequal_sizes_are_one_error_that_names_them(tmp_path):
    put(tmp_path, "input/a.png", "input/b.png", "input/c.png", size=(20, 30))
    put(tmp_path, "target/a.png", "target/b.png", size=(20, 31))
    put(tmp_path, "target/c.png", size=(20, 30))
    with pytest.raises(DataError) as caught:
        list(PairImages(read("pairs", tmp_path), smallest=10))
    assert "2 pair(s) of unequal sizes: a (30x20 and 31x20), b (30x20 and 31x20)" in str(
        caught.value
    )
