"""Checksums of FFV1, RFC 9043: FFmpeg compares them, conceals the slice, and tells nobody."""

from __future__ import annotations

import zlib

_TRAILER = 8  # three bytes of size, one of error status, four of checksum
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class SliceChecksums:
    """Finds frames with a slice whose checksum is wrong, in a stream whose slices have any.

    Only the stream's configuration says whether they have; here the first frame that has right ones
    does.
    """

    def __init__(self) -> None:
        self._has_checksums = False
        self._waiting = 0

    def damaged(self, frame: bytes) -> int:
        """How many frames are known to be damaged by now, that were not before."""
        right = _right(frame)
        if not self._has_checksums:
            if not right:
                self._waiting += 1
                return 0
            self._has_checksums = True
            before, self._waiting = self._waiting, 0
            return before
        return int(not right)


def _right(frame: bytes) -> bool:
    """Whether the frame consists of slices with right checksums; section 4.9, from its end."""
    end = len(frame)
    while end > 0:
        size = int.from_bytes(frame[end - _TRAILER : end - _TRAILER + 3], "big") + _TRAILER
        if end < _TRAILER or size > end:
            return False
        part = frame[end - size : end].translate(_REVERSED)
        # CRC-32 of zlib's polynomial, the bits in the other order, beginning with 0.
        if zlib.crc32(part, 0xFFFFFFFF) ^ 0xFFFFFFFF:
            return False
        end -= size
    return bool(frame)
