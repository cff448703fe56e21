"""ReservedSpace: room on the disk for a file that grows, taken before it is written.

A video file is of no use without its index, which is written last. When the disk fills up in
mid-stream there must be room for it, and for all that the muxer holds back; so what a packet and
its entry in the index take is reserved before the packet is handed over.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h: the file's size stays what was written
_MIN_STEP, _MAX_STEP = 1 << 20, 16 << 20
_NOT_SUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV}

BYTES_PER_PACKET = 64
"""What a packet takes beside its content, at most: its entries in an MP4 index (size, time,
offset, place in a chunk: 44 bytes) and longer start codes."""
_INDEX_BYTES = 16 << 10


class ReservedSpace:
    """Space on the disk for one file that somebody else writes.

    Where the file system cannot reserve, its free space is asked for instead.

    Args:
        path: the file; exists.
        metadata_bytes: what the index holds beside the packets' entries, e.g. tags.

    Raises:
        OSError: there is no room even for an empty index.
    """

    def __init__(self, path: Path, metadata_bytes: int = 0) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._fallocate = _system_fallocate()
        self._needed = self._reserved = 0
        try:
            self._take(_INDEX_BYTES + metadata_bytes)
        except OSError:
            self.close()
            raise

    def take(self, size: int) -> None:
        """Reserve room for a packet of `size` bytes and its entry in the index.

        Raises:
            OSError: there is none (ENOSPC, EDQUOT), or the process may not write so large a file
                (EFBIG); what was reserved before stays.
        """
        self._take(size + BYTES_PER_PACKET)

    def close(self) -> None:
        """Give back what was not written. Safe to call again."""
        if self._file < 0:
            return
        file, self._file = self._file, -1
        try:
            os.ftruncate(file, os.fstat(file).st_size)
        except OSError:  # the reserved rest is lost to nobody but the disk's owner
            pass
        finally:
            os.close(file)

    def _take(self, size: int) -> None:
        needed = self._needed + size
        if needed > self._reserved:
            step = min(max(_MIN_STEP, self._reserved // 4), _MAX_STEP)
            try:
                self._reserve(needed + step)
            except OSError:
                self._reserve(needed)
        self._needed = needed

    def _reserve(self, size: int) -> None:
        if size > _size_limit():
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        more = size - self._reserved
        if self._fallocate is not None:
            while self._fallocate(self._file, _KEEP_SIZE, self._reserved, more):
                number = ctypes.get_errno()
                if number in _NOT_SUPPORTED:
                    self._fallocate = None
                    break
                if number != errno.EINTR:
                    raise OSError(number, os.strerror(number))
        if self._fallocate is None:
            disk = os.fstatvfs(self._file)
            missing = size - os.fstat(self._file).st_blocks * 512
            if missing > disk.f_bavail * disk.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._reserved = size


def _size_limit() -> float:
    """How large a file this process may write, in bytes."""
    try:
        import resource
    except ImportError:
        return float("inf")
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return float("inf") if soft == resource.RLIM_INFINITY else soft


def _system_fallocate() -> Any:
    """The C library's fallocate with 64-bit offsets; None where there is none."""
    library = ctypes.CDLL(None, use_errno=True)
    name = "fallocate64" if hasattr(library, "fallocate64") else "fallocate"  # musl has one
    function: Any = getattr(library, name, None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        function.restype = ctypes.c_int
    return function
