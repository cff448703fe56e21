"""Optical flow between consecutive sharp frames by DIS (Kroeger et al., ECCV 2016).

SVDN takes it in place of Farnback's (section 3.3). Where pictures are blurred by the simulator,
its exact flows serve instead.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from edge_restore.errors import DataError

Picture = np.ndarray[Any, np.dtype[np.uint8]]
Flow = np.ndarray[Any, np.dtype[np.float32]]

SMALLEST = 16
"""Pixels; DIS needs twelve."""


def bidirectional_flow(previous: Picture, current: Picture, following: Picture) -> Flow:
    """Where each point of the current frame was in the frame before, and is in the one after.

    The layout is that of `train.blur.Exposure.flows`. The paper does not say how much of the way
    between two frames lies in the exposure; scale the result where it is known.

    Args:
        previous, current, following: (H, W, 3) uint8 RGB.

    Returns:
        (2, 2, H, W) float32: to the frame before and to the one after, as (dy, dx) in pixels.

    Raises:
        DataError: the frames differ in size, or are smaller than `SMALLEST`.
    """
    shapes = [frame.shape for frame in (previous, current, following)]
    if len(set(shapes)) > 1 or min(shapes[0][:2]) < SMALLEST:
        raise DataError(
            "no optical flow between frames of " + ", ".join(f"{s[1]}x{s[0]}" for s in shapes),
            expected=f"three frames of one size, {SMALLEST} pixels or more each way",
            hint="take consecutive frames of one clip",
        )
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (previous, current, following)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    # A None in place of an initial flow: an estimate must not depend on the one before it.
    both = [dis.calc(grey[1], other, None) for other in (grey[0], grey[2])]
    return np.ascontiguousarray(np.stack(both)[..., ::-1].transpose(0, 3, 1, 2), np.float32)
