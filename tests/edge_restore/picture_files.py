"""Image files by their bytes: sound ones of every kind, and headers that ask for too much."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

WIDTH, HEIGHT = 60, 44


def picture(seed: int = 0) -> np.ndarray:
    """RGB uint8, smooth with some texture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


_OPTIONS: dict[str, tuple[str, list[int]]] = {
    "jpeg": (".jpg", []),
    "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "restarts": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "png": (".png", []),
    "bmp": (".bmp", []),
    "tiff-lzw": (".tif", []),
    "tiff-raw": (".tif", [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
    "tiff-deflate": (".tiff", [cv2.IMWRITE_TIFF_COMPRESSION, 8]),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
    "webp-lossless": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
}

KINDS = tuple(_OPTIONS)


def encoded(kind: str, pixels: np.ndarray | None = None) -> tuple[str, bytes]:
    """The suffix and the bytes of a file of this kind."""
    suffix, options = _OPTIONS[kind]
    pixels = picture() if pixels is None else pixels
    return suffix, bytes(cv2.imencode(suffix, pixels[..., ::-1], options)[1])


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its check sum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    """A PNG of 8-bit RGB with any size in its header, and chunks before its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    ends = [header, *chunks, pixels, png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(ends)


def tiff(entries: dict[int, int], order: str = "<", *, big: bool = False, pages: int = 1) -> bytes:
    """A TIFF of directories with one LONG for each tag, and 4 KiB of zeros behind."""
    offset, count, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    magic = {"<": b"II", ">": b"MM"}[order]
    head = magic + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8))
    )
    body = b""
    for page in range(pages):
        size = struct.calcsize(order + count) + len(entries) * struct.calcsize(order + entry)
        size += struct.calcsize(order + offset)
        after = len(head) + len(body) + size if page + 1 < pages else 0
        body += struct.pack(order + count, len(entries))
        for tag, value in sorted(entries.items()):
            body += struct.pack(order + "HH", tag, 4) + struct.pack(order + offset, 1)
            body += struct.pack(order + "I", value) + b"\0" * (4 if big else 0)
        body += struct.pack(order + offset, after)
    return head + body + bytes(4096)


def bombs() -> dict[str, bytes]:
    """Small files whose headers ask for gigabytes."""
    jpeg = encoded("jpeg")[1]
    start = jpeg.index(b"\xff\xc0")
    huge_jpeg = jpeg[: start + 5] + struct.pack(">HH", 65000, 65000) + jpeg[start + 9 :]
    bmp = encoded("bmp")[1]
    lossless = bytearray(encoded("webp-lossless")[1])
    place = lossless.index(b"VP8L") + 9
    lossless[place : place + 4] = struct.pack("<I", 16383 | 16383 << 14)
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff" * 2
    canvas = b"RIFF" + struct.pack("<I", 4 + len(vp8x)) + b"WEBP" + vp8x
    strip = {256: 60000, 257: 60000, 258: 8, 259: 5, 262: 1, 273: 200, 277: 1, 278: 60000, 279: 99}
    tiles = {
        256: 64, 257: 64, 258: 8, 259: 5, 262: 1, 277: 1, 322: 60000, 323: 60000, 324: 200, 325: 99,
    }  # fmt: skip
    return {
        "png": png(60000, 60000),
        "jpeg": huge_jpeg,
        "bmp": bmp[:18] + struct.pack("<ii", 60000, 60000) + bmp[26:],
        "bmp-upside-down": bmp[:18] + struct.pack("<ii", 60000, -60000) + bmp[26:],
        "tiff": tiff(strip),
        "tiff-motorola": tiff(strip, ">"),
        "tiff-big": tiff(strip, big=True),
        "tiff-tiles": tiff(tiles),
        "webp-lossless": bytes(lossless),
        "webp-canvas": canvas,
    }
