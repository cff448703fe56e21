"""Read frames, restore them, and do something of your own with each: here, measure its sharpness.

python examples/own_loop.py clip.mp4 [FRAMES]
"""

import sys

import cv2
import numpy as np

import edge_restore as er


def sharpness(pixels: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def main() -> None:
    source, *count = sys.argv[1:]
    with er.open("lmfn") as restorer:
        for frame in er.frames(source, max_frames=int(count[0]) if count else None):
            restored = restorer(frame.pixels)
            before, after = sharpness(frame.pixels), sharpness(restored)
            print(f"{frame.seconds:6.2f} s   sharpness {before:8.1f} -> {after:8.1f}")


if __name__ == "__main__":
    main()
