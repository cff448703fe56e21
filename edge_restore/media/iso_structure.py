"""Where the index of an MP4 or QuickTime file contradicts itself, which FFmpeg passes over.

ISO/IEC 14496-12: boxes that do not fill the one that they lie in, parts that a track must have and
has not, sample tables of different lengths, fragments that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from edge_restore.media.iso_boxes import Box, boxes

_PARTS: dict[bytes, set[bytes]] = {
    b"moov": {b"mvhd"},
    b"trak": {b"tkhd", b"mdia"},
    b"mdia": {b"mdhd", b"hdlr", b"minf"},
    b"minf": {b"stbl"},
    b"stbl": {b"stsd", b"stts", b"stsc"},
    b"moof": {b"mfhd"},
    b"traf": {b"tfhd"},
}
"""What a box holds at least, by its kind."""

_OTHERS: dict[bytes, set[bytes]] = {
    b"moov": {b"trak"}, b"minf": {b"hdlr"}, b"moof": {b"traf"}, b"traf": {b"trun", b"tfdt"},
}  # fmt: skip
"""What it may hold besides, of the kinds that are named here; others are not looked at."""

_KNOWN = {kind for table in (_PARTS, _OTHERS) for kinds in table.values() for kind in kinds}
_TOP = {b"moov", b"moof"}
_FIRST_LETTER = 0x20  # no kind has control characters; a size that is wrong leads to some
_COMPRESSED = b"cmov"
_LIKE_FOLDERS = {b"mdat", b"meta", b"udta"}
_TAIL = 1 << 16
_MOST_TABLE = 1 << 28
_LATEST = 1 << 48  # ticks; a year at ten million a second
_EMPTY_FRAGMENT = 0x010000


def damaged_places(file: BinaryIO, size: int) -> int:
    """How many contradictions there are.

    Args:
        file: an MP4 or QuickTime file.
        size: of the file in bytes.
    """
    top = list(boxes(file, 0, size))
    # A box where its kind cannot lie was another one, whose name is damaged.
    found = sum(
        box.kind in _KNOWN or _is_renamed(file, box)
        or (min(box.kind) < _FIRST_LETTER and not _is_padding(file, box, size))
        for box in top
    )  # fmt: skip
    # Of files that were joined the first alone is read.
    found += max(0, sum(box.kind == b"moov" for box in top) - 1)
    for box in top:
        if box.kind in _TOP and box.end <= size:
            found += _inside(file, size, box)
    if any(box.kind == b"moof" for box in top):
        file.seek(top[-1].end)
        found += bool(file.read(_TAIL).strip(b"\0"))  # which is no box
    return found + _missing_fragments(file, top)


def _inside(file: BinaryIO, size: int, box: Box) -> int:
    parts = list(boxes(file, box.begin, box.end))
    end = parts[-1].end if parts else box.begin
    rest = box.end - end
    file.seek(min(end, box.end))
    # QuickTime ends a list of boxes by a size of zero.
    found = int(rest < 0 or bool(file.read(max(0, min(rest, 8))).strip(b"\0")) or rest > 8)
    kinds = {part.kind for part in parts}
    if _COMPRESSED in kinds:
        return found
    allowed = _PARTS[box.kind] | _OTHERS.get(box.kind, set())
    found += len(_PARTS[box.kind] - kinds)
    found += sum(part.kind in (_KNOWN | _TOP) - allowed for part in parts)
    found += sum(_is_renamed(file, part) or min(part.kind) < _FIRST_LETTER for part in parts)
    if found:
        return found
    if box.kind == b"stbl":
        return _tables(file, size, {part.kind: part for part in parts})
    if box.kind == b"traf":
        return _fragment(file, parts)
    found = sum(_inside(file, size, part) for part in parts if part.kind in _PARTS)
    if box.kind == b"mdia" and not found:
        found += _lasts_another_time(file, parts)
    return found


def _is_renamed(file: BinaryIO, box: Box) -> bool:
    """Whether a box of a kind that holds no boxes begins with one: its name is damaged."""
    if box.kind in _PARTS or box.kind in _LIKE_FOLDERS:
        return False
    file.seek(box.begin)
    head = file.read(8)
    return head[4:] in _KNOWN and 8 <= int.from_bytes(head[:4], "big") <= box.end - box.begin


def _is_padding(file: BinaryIO, box: Box, size: int) -> bool:
    """Whether nothing but zeros comes from the begin of the box to the end of the file."""
    file.seek(box.begin - 8)
    return not any(file.read(_TAIL).strip(b"\0") for _ in range(box.begin - 8, size, _TAIL))


def _words(file: BinaryIO, box: Box, skip: int = 4) -> np.ndarray:
    """What follows a box's version and flags, as numbers of four bytes."""
    file.seek(box.begin + skip)
    content = file.read(max(0, min(box.end - box.begin - skip, _MOST_TABLE)))
    return np.frombuffer(content[: len(content) // 4 * 4], ">u4").astype(np.int64)


def _lasts_another_time(file: BinaryIO, parts: list[Box]) -> bool:
    """Whether a track's samples together last twice or half as long as its header says."""
    header = next(part for part in parts if part.kind == b"mdhd")
    words = _words(file, header, skip=0)
    wide = len(words) and words[0] >> 24 == 1
    if len(words) < (8 if wide else 5):
        return True
    duration = int(words[6] << 32 | words[7]) if wide else int(words[4])
    media = next(part for part in parts if part.kind == b"minf")
    samples = next(p for p in boxes(file, media.begin, media.end) if p.kind == b"stbl")
    times = next(p for p in boxes(file, samples.begin, samples.end) if p.kind == b"stts")
    table = _words(file, times)[1:].astype(np.float64)
    shown = (table[0 : len(table) // 2 * 2 : 2] * table[1::2]).sum()
    return bool(duration and not duration <= 2 * shown <= 4 * duration)


def _tables(file: BinaryIO, size: int, parts: dict[bytes, Box]) -> int:
    """Contradictions between the tables of a track's samples."""
    found = 0
    counts = []
    for kind in (b"stts", b"ctts"):
        if kind in parts:
            table = _words(file, parts[kind])
            entries = int(table[0]) if len(table) else 0
            found += len(table) < 1 + 2 * entries
            counts.append(int(table[1 : 1 + 2 * entries : 2].sum()))
    if b"stsz" in parts:
        table = _words(file, parts[b"stsz"])[:2]
        counts.append(int(table[1]) if len(table) == 2 else -1)
    elif b"stz2" not in parts:
        found += 1
    offsets = parts.get(b"stco") or parts.get(b"co64")
    if offsets is None:
        return found + 1
    if sum(counts) == 0:  # all samples are in fragments
        return found
    places = _words(file, offsets)
    chunks, places = (int(places[0]), places[1:]) if len(places) else (0, places)
    if offsets.kind == b"co64":
        places = (places[: len(places) // 2 * 2].reshape(-1, 2) * [1 << 32, 1]).sum(axis=1)
    found += len(places) < chunks or bool((places[:chunks] >= size).any())
    runs = _words(file, parts[b"stsc"])
    runs = runs[1 : 1 + 3 * int(runs[0])] if len(runs) else runs
    if len(runs) % 3 or not len(runs):
        return found + 1
    first, per_chunk, described = runs[0::3], runs[1::3], runs[2::3]
    descriptions = _words(file, parts[b"stsd"])[:1]
    found += bool((described < 1).any() or (described > descriptions.sum()).any())
    lengths = np.diff(np.append(first, chunks + 1))
    found += bool((lengths < 0).any())
    counts.append(int((lengths * per_chunk).sum()))
    return found + (len(set(counts)) > 1)


def _fragment(file: BinaryIO, parts: list[Box]) -> int:
    header = next(part for part in parts if part.kind == b"tfhd")
    file.seek(header.begin)
    flags = int.from_bytes(file.read(4)[1:], "big")
    runs = sum(part.kind == b"trun" for part in parts)
    return int(not runs and not flags & _EMPTY_FRAGMENT)


def _missing_fragments(file: BinaryIO, top: list[Box]) -> int:
    """Gaps in the fragments' numbers, times that turn back, fragments that only an index has."""
    numbers, places = [], set()
    begins: dict[int, int] = {}  # of each track's last fragment
    turned = 0
    for box in top:
        if box.kind == b"moof":
            places.add(box.begin - 8)
            for track, begin in _begins(file, box):
                turned += not begins.get(track, 0) <= begin < _LATEST
                begins[track] = begin
            numbers += [int(_words(file, part)[0]) for part in boxes(file, box.begin, box.end)
                        if part.kind == b"mfhd" and part.end - part.begin >= 8]  # fmt: skip
    gaps = sum(later > earlier + 1 for earlier, later in pairwise(numbers))
    known = {place for box in top if box.kind == b"mfra" for place in _indexed(file, box)}
    return gaps + turned + len(known - places)


def _begins(file: BinaryIO, fragment: Box) -> Iterator[tuple[int, int]]:
    """The tracks in a fragment, each with the time at which its samples begin, in ticks."""
    for track in boxes(file, fragment.begin, fragment.end):
        parts = {part.kind: part for part in boxes(file, track.begin, track.end)}
        if track.kind != b"traf" or not {b"tfhd", b"tfdt"} <= parts.keys():
            continue
        header = _words(file, parts[b"tfhd"])[:1]
        time = _words(file, parts[b"tfdt"], skip=0)
        if not len(header) or len(time) < 2:
            continue
        wide = time[0] >> 24 == 1 and len(time) > 2
        yield int(header[0]), int(time[1]) << 32 | int(time[2]) if wide else int(time[1])


def _indexed(file: BinaryIO, index: Box) -> Iterator[int]:
    """Where the fragments lie that the random access index names."""
    for box in boxes(file, index.begin, index.end):
        if box.kind != b"tfra":
            continue
        file.seek(box.begin)
        head = file.read(16)
        if len(head) < 16:
            continue
        wide = head[0] == 1
        lengths = int.from_bytes(head[8:12], "big")
        entry = (16 if wide else 8) + sum((lengths >> shift & 3) + 1 for shift in (4, 2, 0))
        count = min(int.from_bytes(head[12:16], "big"), (box.end - box.begin - 16) // entry)
        content = file.read(min(count * entry, _MOST_TABLE))
        for place in range(0, len(content) - entry + 1, entry):
            begin = place + (8 if wide else 4)
            yield int.from_bytes(content[begin : begin + (8 if wide else 4)], "big")
