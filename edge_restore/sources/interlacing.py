"""Interlaced pictures are refused: two moments in one frame cannot be restored as one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from edge_restore.errors import SourceError

if TYPE_CHECKING:
    from av import VideoFrame


def check_progressive(picture: VideoFrame, index: int, path: Path) -> None:
    """Make sure that a decoded frame was taken at one moment.

    The decoder says so of each frame: progressive pictures in an interlaced stream pass.

    Args:
        picture: the frame.
        index: its number in the stream, from 0.
        path: the source.

    Raises:
        SourceError: its lines are of two fields.
    """
    if not picture.interlaced_frame:
        return
    # FFmpeg takes what stands before a colon for a protocol, and a leading dash for an option.
    name = f"file:{path}" if ":" in str(path) or str(path).startswith("-") else str(path)
    copy = f"file:{path.stem}.progressive.mp4" if ":" in name else f"{path.stem}.progressive.mp4"
    raise SourceError(
        f"frame {index} of '{path}' is interlaced: its even and odd lines were filmed at different "
        "times, and would be restored as one picture with combs",
        expected="progressive video",
        hint=f"deinterlace it first: ffmpeg -i {shlex.quote(name)} -vf bwdif {shlex.quote(copy)}",
    )
