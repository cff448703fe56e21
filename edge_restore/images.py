"""Still images: reading, writing PNG, packing JPEG; always RGB uint8."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from edge_restore.errors import DataError, DependencyError
from edge_restore.files import atomic_path
from edge_restore.frames import Pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""What counts as an image in a folder, by its suffix in lower case."""


def image_files(folder: Path) -> dict[str, Path]:
    """The images of a folder by their names, hidden files aside."""
    return {
        file.name: file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    }


def images_in(folder: Path) -> dict[str, Path]:
    """As `image_files`; DataError where there is none."""
    images = image_files(folder)
    if not images:
        raise DataError(
            f"there is no image in '{folder}'",
            expected=f"files that end in {', '.join(SUFFIXES)}",
            mend="check the path",
        )
    return images


def read_image(path: str | Path) -> Pixels:
    """The image as RGB uint8 (height, width, 3), upright; alpha is dropped, 16 bits become 8.

    Raises:
        DataError: there is no such file, or it is no image.
        DependencyError: OpenCV is not installed.
    """
    cv2 = _cv2()
    # Through memory, because imread writes its own complaints to standard error.
    content = Path(path).read_bytes() if Path(path).is_file() else b""
    picture = None
    if content:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        problem = "cannot be read as an image" if Path(path).exists() else "does not exist"
        raise DataError(
            f"'{path}' {problem}",
            expected=f"an image: {', '.join(SUFFIXES)}",
            mend="check the path, or save the image anew with an image program",
        )
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[no-any-return]


def write_png(path: str | Path, pixels: Pixels) -> None:
    """Write RGB uint8 `pixels` as PNG, whole or not at all.

    Raises:
        SinkError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(_encoded(".png", pixels, []))


def jpeg_bytes(pixels: Pixels, quality: int = 90) -> bytes:
    """RGB uint8 `pixels` as a JPEG file's bytes."""
    return _encoded(".jpg", pixels, [_cv2().IMWRITE_JPEG_QUALITY, quality])


def _encoded(suffix: str, pixels: Pixels, options: list[int]) -> bytes:
    cv2 = _cv2()
    _, data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return bytes(data)


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            "opencv-python", needed_for="reading and writing images", extra=""
        ) from error
    return cv2
