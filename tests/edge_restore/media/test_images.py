from __future__ import annotations

import os
import re
import struct
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from edge_restore.errors import DataError
from edge_restore.media.image_header import MAX_PIXELS, UnusableImage, examine
from edge_restore.media.images import jpeg_bytes, output_names, read_image, write_png
from tests.edge_restore import picture_files
from tests.edge_restore.picture_files import KINDS, encoded, picture, png, png_chunk, tiff

ROOT = Path(__file__).parents[3]


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
    with pytest.raises(DataError, match="is a directory"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match="cannot be read"):
        read_image("a\0b.png")
    assert capfd.readouterr().err == ""  # OpenCV says nothing of its own


def test_no_other_module_reads_images() -> None:
    sources = [p for room in ("edge_restore", "train", "calibration", "export")
               for p in (ROOT / room).rglob("*.py")]  # fmt: skip
    if not (ROOT / "train").is_dir() or not (ROOT / "edge_restore").is_dir():
        pytest.skip("the sources are not beside these tests")
    assert len(sources) > 100
    reading = re.compile(r"\bimread|\bimdecode|\bPIL\b|\bimageio\b|torchvision\.io")
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if reading.search(path.read_text("utf-8"))
    }
    # The simulator decodes the JPEG that it has just encoded, in memory.
    assert found == {"edge_restore/media/images.py", "train/simulator/compression.py"}


@pytest.mark.parametrize("kind", KINDS)
def test_read_image_takes_every_kind_and_what_follows_its_end(kind: str, tmp_path: Path) -> None:
    suffix, content = encoded(kind)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    pixels = read_image(path)
    lossy = kind in ("jpeg", "progressive", "restarts", "webp")
    assert np.abs(pixels.astype(int) - picture()).mean() <= (6 if lossy else 0)
    path.write_bytes(content + b"\xff\0garbage\xff\xd8")
    assert np.array_equal(read_image(path), pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_read_image_names_a_file_that_is_cut_off_anywhere(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    suffix, content = encoded(kind)
    path = tmp_path / f"x{suffix}"
    for length in {*range(0, len(content), max(1, len(content) // 60)), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(DataError) as error:
            read_image(path)
        assert str(path) in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "restarts"])
@pytest.mark.parametrize("tail", [b"\xff\xd9", bytes(64) + b"\xff\xd9", bytes(300)])
def test_a_jpeg_with_an_end_glued_to_half_of_it_is_damaged(
    kind: str, tail: bytes, tmp_path: Path
) -> None:
    content = encoded(kind)[1]
    scan = content.index(b"\xff\xda") + 20
    path = tmp_path / "x.jpg"
    for length in range(scan, len(content) - 8, max(1, len(content) // 40)):
        path.write_bytes(content[:length] + tail)
        with pytest.raises(DataError, match=r"is (cut off|damaged)"):
            read_image(path)


def test_a_png_damaged_anywhere_is_named(tmp_path: Path) -> None:
    content = encoded("png")[1]
    path = tmp_path / "x.png"
    for place in range(8, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(DataError, match=r"is (cut off|damaged)"):
            read_image(path)


def test_a_png_with_fewer_rows_than_it_says_is_damaged(tmp_path: Path) -> None:
    row = b"\0" + bytes(range(30))
    for rows, sound in ((6, True), (5, False), (0, False)):
        (tmp_path / "x.png").write_bytes(png(10, 6, rows=row * rows))
        if sound:
            assert read_image(tmp_path / "x.png").shape == (6, 10, 3)
        else:
            with pytest.raises(DataError, match="is damaged"):
                read_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", sorted(picture_files.bombs()))
def test_a_header_that_asks_for_gigabytes_is_refused_without_memory(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(picture_files.bombs()[kind])
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(DataError, match=r"says that it has \d+x\d+ pixels"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 and time.monotonic() - start < 1


@pytest.mark.parametrize("content", [
    b"GIF89a" + bytes(40), b"P6\n60000 60000\n255\n", b"\x76\x2f\x31\x01" + bytes(40),
    b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), b"\0\0\0\x1cftypavif" + bytes(40),
    b"#?RADIANCE\n\n-Y 9 +X 9\n", b"\x59\xa6\x6a\x95" + bytes(40),
])  # fmt: skip
def test_other_formats_are_refused_by_their_first_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(tmp_path / "x.png")


def test_animations_and_pages_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(2, 1, png_chunk(b"acTL", struct.pack(">II", 3, 0)), rows=bytes(7)))
    with pytest.raises(DataError, match="is an animation"):
        read_image(path)
    anim = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(anim)) + b"WEBP" + anim)
    with pytest.raises(DataError, match="is an animation"):
        read_image(path)
    gray = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 500, 277: 1, 278: 8, 279: 64}
    for order in "<>":
        path.write_bytes(tiff(gray, order))
        assert read_image(path).shape == (8, 8, 3)
        path.write_bytes(tiff(gray, order, pages=3))
        with pytest.raises(DataError, match="has 3 pages"):
            read_image(path)
        path.write_bytes(tiff({**gray, 254: 1}, order, pages=2)[:-8])
        with pytest.raises(DataError, match="no picture"):
            read_image(path)


def test_tiff_levels_that_8_bits_cannot_stand_for_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    cv2.imwrite(str(path), np.linspace(0, 1, 300, dtype=np.float32).reshape(10, 10, 3))
    with pytest.raises(DataError, match="no unsigned 8 or 16 bits"):
        read_image(path)


def test_tiff_directories_in_a_circle_end() -> None:
    content = bytearray(tiff({256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 500, 278: 8, 279: 64}))
    end = 8 + 2 + 8 * 12
    content[end : end + 4] = struct.pack("<I", 8)
    with pytest.raises(UnusableImage, match="circle"):
        examine(bytes(content))


@pytest.mark.parametrize("kind", [*KINDS, *(f"bomb {name}" for name in picture_files.bombs())])
def test_whatever_is_changed_it_is_a_picture_or_a_message(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = picture_files.bombs()[kind[5:]] if kind.startswith("bomb") else encoded(kind)[1]
    random = np.random.default_rng(len(whole))
    path = tmp_path / "x.png"
    for number in range(120):
        content = bytearray(whole)
        for _ in range(1 + number % 4):
            start = int(random.integers(0, min(len(content), 100 if number % 2 else 1 << 20)))
            old = int(random.choice([0, 1, 4, 8]))
            new = random.choice([0, 255, random.integers(0, 256)], int(random.choice([0, 1, 4, 8])))
            content[start : start + old] = new.astype(np.uint8).tobytes()
        path.write_bytes(content)
        try:
            pixels = read_image(path)
        except DataError:
            continue
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert capfd.readouterr().err == ""


def test_kinds_of_pixels_become_rgb(tmp_path: Path) -> None:
    gray = picture()[..., 0]
    for name, stored in {
        "gray.png": gray,
        "deep.png": gray.astype(np.uint16) * 257,
        "alpha.png": np.dstack([picture()[..., ::-1], gray]),
        "deep.tif": np.dstack([gray] * 3).astype(np.uint16) * 257,
    }.items():
        cv2.imwrite(str(tmp_path / name), stored)
        pixels = read_image(tmp_path / name)
        expected = picture() if "alpha" in name else np.dstack([gray] * 3)
        assert np.array_equal(pixels, expected), name


def test_a_jpeg_stands_upright(tmp_path: Path) -> None:
    content = encoded("jpeg")[1]
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "x.jpg").write_bytes(content[:2] + segment + content[2:])
    assert read_image(tmp_path / "x.jpg").shape == (picture_files.WIDTH, picture_files.HEIGHT, 3)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    for path in (tmp_path / "x.png", Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(DataError, match=r"is a (pipe|device)"):
            read_image(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_a_message(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", picture())
    (tmp_path / "x.png").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(tmp_path / "x.png")


def test_a_name_of_undecodable_bytes_is_read(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png"))
    write_png(path, picture())
    assert np.array_equal(read_image(path), picture())


def test_what_other_threads_print_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "x.png", picture())
    printed = threading.Event()

    def talk() -> None:
        for number in range(200):
            print(f"line {number}", file=sys.stderr, flush=True)
        printed.set()

    thread = threading.Thread(target=talk)
    thread.start()
    while not printed.is_set():
        read_image(tmp_path / "x.png")
    thread.join()
    lines = sorted(capfd.readouterr().err.split("\n"))
    assert lines == sorted(["", *(f"line {n}" for n in range(200))])


def test_a_real_cameras_size_is_read() -> None:
    assert MAX_PIXELS >= 150_000_000
    assert examine(png(12000, 12000)).width == 12000


def test_output_names_of_two_images_differ() -> None:
    assert output_names(["a.jpg", "light/a.png"]) == {
        "a.jpg": "a.png",
        "light/a.png": "light/a.png",
    }
    for names in (["a.jpg", "a.png"], ["A.jpg", "a.png"], ["x/a.JPG", "x/a.jpg"],
                  ["caf\u00e9.png", "cafe\u0301.jpg"]):  # fmt: skip
        with pytest.raises(DataError) as error:
            output_names(names)
        assert all(name in str(error.value) for name in names)


def test_codes_that_a_packed_tiff_cannot_have_are_named(tmp_path):
    import cv2

    random = np.random.default_rng(3)
    picture = np.repeat(random.integers(0, 255, (40, 10, 3), np.uint8), 6, axis=1)
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert read_image(path).shape == picture.shape
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(16) + whole[middle + 16 :])
    with pytest.raises(DataError, match="is damaged"):
        read_image(path)
