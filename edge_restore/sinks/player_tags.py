"""Tags and covers as players read them, written into a finished MP4 or QuickTime file.

FFmpeg's muxer writes either tags of any name, which few players read ("mdta" keys, Apple's
QuickTime File Format, "Metadata"), or the few that players know ("ilst" atoms, as iTunes writes
them). Here a file that has the former gets the latter too: both lie in the "moov" box, which is the
last one, so that nothing else moves.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_restore.errors import InternalError
from edge_restore.media.iso_boxes import boxes

_TEXTS = {
    "title": b"\xa9nam",
    "artist": b"\xa9ART",
    "album": b"\xa9alb",
    "album_artist": b"aART",
    "composer": b"\xa9wrt",
    "date": b"\xa9day",
    "comment": b"\xa9cmt",
    "genre": b"\xa9gen",
    "grouping": b"\xa9grp",
    "lyrics": b"\xa9lyr",
    "copyright": b"cprt",
    "description": b"desc",
    "synopsis": b"ldes",
    "show": b"tvsh",
    "episode_id": b"tven",
    "network": b"tvnn",
    "keywords": b"keyw",
    "sort_name": b"sonm",
    "sort_artist": b"soar",
    "sort_album": b"soal",
    "sort_album_artist": b"soaa",
    "sort_composer": b"soco",
    "sort_show": b"sosn",
}
_OTHER_NAMES = {"year": "date", "creationdate": "date", "albumartist": "album_artist"}
_APPLE = "com.apple.quicktime."
# Atom, and how its number is stored.
_NUMBERS = {
    "compilation": (b"cpil", ">B"),
    "gapless_playback": (b"pgap", ">B"),
    "hd_video": (b"hdvd", ">B"),
    "media_type": (b"stik", ">B"),
    "tempo": (b"tmpo", ">H"),
    "season_number": (b"tvsn", ">I"),
    "episode_sort": (b"tves", ">I"),
}
# Atom, and what follows its two numbers.
_PAIRS = {"track": (b"trkn", b"\0\0"), "disc": (b"disk", b"")}
_IMPLICIT, _UTF8, _JPEG, _PNG, _INTEGER = 0, 1, 13, 14, 21


def write_player_tags(path: Path, tags: Mapping[str, str], covers: Sequence[bytes]) -> None:
    """Add what players read of `tags`, and the cover pictures, in place.

    Args:
        path: a complete file whose "moov" box is the last.
        tags: by FFmpeg's names; others are left to the file's own keys.
        covers: JPEG or PNG files.

    Raises:
        InternalError: the file's last box is another.
    """
    items = _items(tags, covers)
    if not items:
        return
    with open(path, "r+b") as file:
        movie = list(boxes(file, 0, path.stat().st_size))[-1]
        if movie.kind != b"moov":
            raise InternalError(f"the last box of '{path}' is {movie.kind!r}")
        file.seek(movie.begin)
        content = file.read()
        children = _children(content)
        user = b"".join(box[8:] for box in children if box[4:8] == b"udta")
        # QuickTime's keys belong into the movie itself; "udta" has room for one "meta" only.
        keys = [box for box in _children(user) if box[4:8] == b"meta"]
        others = [box for box in _children(user) if box[4:8] != b"meta"]
        handler = _box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
        meta = _box(b"meta", bytes(4) + handler + _box(b"ilst", b"".join(items)))
        children = [box for box in children if box[4:8] != b"udta"]
        whole = b"".join([*children, _box(b"udta", meta + b"".join(others)), *keys])
        file.seek(movie.begin - 8)
        file.write(_box(b"moov", whole))


def _items(tags: Mapping[str, str], covers: Sequence[bytes]) -> list[bytes]:
    """The atoms, in the order of their names."""
    known: dict[str, str] = {}
    for name, value in tags.items():
        plain = name.lower().removeprefix(_APPLE)
        known.setdefault(_OTHER_NAMES.get(plain, plain), value)
    items = []
    for name, atom in _TEXTS.items():
        if value := known.get(name, ""):
            items.append(_item(atom, [(_UTF8, value.encode())]))
    for name, (atom, form) in _NUMBERS.items():
        limit = 1 << 8 * struct.calcsize(form)
        if re.fullmatch(r"\d{1,9}", value := known.get(name, "")) and int(value) < limit:
            items.append(_item(atom, [(_INTEGER, struct.pack(form, int(value)))]))
    for name, (atom, rest) in _PAIRS.items():
        if match := re.fullmatch(r"(\d{1,4})(?:/(\d{1,4}))?", known.get(name, "")):
            numbers = struct.pack(">HHH", 0, int(match[1]), int(match[2] or 0))
            items.append(_item(atom, [(_IMPLICIT, numbers + rest)]))
    if covers:
        kinds = [_PNG if cover.startswith(b"\x89PNG") else _JPEG for cover in covers]
        items.append(_item(b"covr", list(zip(kinds, covers, strict=True))))
    return items


def _item(atom: bytes, values: Sequence[tuple[int, bytes]]) -> bytes:
    data = (_box(b"data", struct.pack(">II", kind, 0) + value) for kind, value in values)
    return _box(atom, b"".join(data))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _children(content: bytes) -> list[bytes]:
    """The boxes in `content`, each with its header."""
    found, begin = [], 0
    while begin + 8 <= len(content):
        (size,) = struct.unpack_from(">I", content, begin)
        if size < 8:  # QuickTime may end a list of boxes with a zero
            break
        found.append(content[begin : begin + size])
        begin += size
    return found
