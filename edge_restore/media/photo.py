"""The demo's photo (PHOTO.txt says whose it is), also something real to measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.media.images import read_image

PHOTO = Path(__file__).with_name("photo.jpg")


def scaled(height: int, width: int) -> Pixels:
    """The photo as a frame of this size, whatever becomes of its proportions.

    Raises:
        DependencyError: OpenCV is not installed.
    """
    cv2 = optional.require("cv2", needed_for="scaling the photo")
    frame = cv2.resize(read_image(PHOTO), (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(frame)
