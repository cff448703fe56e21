"""Writing a display matrix into a finished MP4 or QuickTime file.

Not every PyAV can hand one to its muxer (17 cannot), but the matrix is 36 bytes at a fixed place in
the video track's header box: ISO/IEC 14496-12, section 8.3.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from edge_restore.errors import InternalError
from edge_restore.media.iso_boxes import Box, boxes

# Bytes before the matrix in a "tkhd" box by its version, which sets the width of its times.
_MATRIX_OFFSET = {0: 40, 1: 52}


def write_display_matrix(path: Path, matrix: Sequence[int]) -> None:
    """Set the display matrix of every video track in the file, in place.

    Args:
        path: a complete MP4 or QuickTime file.
        matrix: nine numbers as in `StreamInfo.display_matrix`.

    Raises:
        InternalError: the file has no video track.
    """
    with open(path, "r+b") as file:

        def children(parent: Box, kind: bytes) -> list[Box]:
            return [box for box in boxes(file, parent.begin, parent.end) if box.kind == kind]

        whole = Box(b"", 0, path.stat().st_size)
        written = 0
        for movie in children(whole, b"moov"):
            for track in children(movie, b"trak"):
                (media,) = children(track, b"mdia")
                (handler,) = children(media, b"hdlr")
                file.seek(handler.begin + 8)
                if file.read(4) != b"vide":
                    continue
                (header,) = children(track, b"tkhd")
                file.seek(header.begin)
                version = file.read(1)[0]
                file.seek(header.begin + _MATRIX_OFFSET[version])
                file.write(struct.pack(">9i", *matrix))
                written += 1
    if not written:
        raise InternalError(f"'{path}' has no video track to turn")
