"""Still images: reading, writing PNG, packing JPEG; always RGB uint8."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath
from types import ModuleType

import numpy as np

from edge_restore.errors import DataError
from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.media import image_header
from edge_restore.media.decoder_messages import decoder_messages
from edge_restore.storage.files import atomic_path, open_input

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
            hint="check the path",
        )
    return images


class ImageError(DataError):
    """An image file that cannot be read, or that would be read in part.

    Attributes:
        problem: what is wrong with it, without its name, such as "is cut off: ...".
    """

    def __init__(self, problem: str, found: str, *, expected: str, hint: str) -> None:
        self.problem = problem
        super().__init__(found, expected=expected, hint=hint)


def read_image(path: str | Path) -> Pixels:
    """The image as RGB uint8 (height, width, 3), upright; alpha is dropped, 16 bits become 8.

    The one reader of images from disk. A file is decoded only when it is complete and its size is
    at most `image_header.MAX_PIXELS`; what the decoder then complains of is an error, too.

    Raises:
        ImageError: there is no such file, it cannot be read, it is no image of a known kind, too
            large, cut off, damaged, an animation or a file of several pages.
        DependencyError: OpenCV is not installed.
    """
    cv2 = _cv2()
    content = _content(path)
    try:
        image_header.examine(content)
    except image_header.UnusableImage as problem:
        raise _unusable(path, str(problem)) from None
    picture, reason = None, ""
    with decoder_messages() as messages:
        try:
            picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            reason = str(error.err or error)
    complaint = next((text for text in messages if _DAMAGE.search(text)), "")
    if complaint or picture is None:
        reason = complaint or reason or next(iter(messages), "")
        what = "is damaged" if complaint else "is damaged, or of a variant that OpenCV cannot read"
        raise _unusable(path, what + (f": {_one_line(reason)}" if reason else ""))
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)  # type: ignore[no-any-return]


_DAMAGE = re.compile(
    r"Corrupt JPEG|Premature end|Inconsistent progression|Invalid SOS|libpng error"
    r"|libpng warning: .*(IDAT|CRC|[Dd]ata)|[Nn]ot enough|[Rr]ead error|[Dd]ecod\w* error"
    r"|[Bb]ad code|[Cc]orrupt|[Tt]runcated|TIFF_Error"
)
"""What decoders say of a picture that they give nevertheless, in part."""


def _content(path: str | Path) -> bytes:
    """The bytes of a plain file of a kind that is read; a pipe or a device is not waited for."""
    try:
        with open_input(path, "the image") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(16)
            if size > image_header.MAX_FILE_BYTES and image_header.is_known(start):
                raise _unusable(path, f"has {size / 2**30:.1f} GiB, too many to be read")
            return start + (file.read() if image_header.is_known(start) else b"")
    except ImageError:
        raise
    except DataError as error:
        problem = error.found.partition(f"'{path}' ")[2] or error.found
        raise ImageError(problem, error.found, expected=error.expected, hint=error.hint) from error
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror or error}") from error


def _unusable(path: str | Path, problem: str) -> ImageError:
    return ImageError(
        problem,
        f"'{path}' {problem}",
        expected=f"an image, whole and in one of the formats {image_header.KINDS}",
        hint="check the path, or save the image anew with an image program",
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def output_names(names: Iterable[str], suffix: str = ".png") -> dict[str, str]:
    """The file that each image's result is written to: its name with another suffix.

    Raises:
        DataError: two images have one and the same, also where a file system does not tell capital
            letters from small ones.
    """
    made: dict[str, str] = {}
    given: dict[str, str] = {}
    for name in names:
        made[name] = str(PurePath(name).with_suffix(suffix))
        key = unicodedata.normalize("NFC", made[name]).casefold()
        if key in given:
            raise DataError(
                f"'{given[key]}' and '{name}' would both be written to '{made[name]}'",
                expected="images whose names differ in more than the suffix",
                hint="rename one of them",
            )
        given[key] = name
    return made


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
    return optional.require("cv2", needed_for="reading and writing images")
