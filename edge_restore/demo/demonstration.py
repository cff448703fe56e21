"""The demonstration from the photo to the report; every file of it is made here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_restore.backends.restorer import Restorer
from edge_restore.demo.camera import HandHeldCamera, Shot
from edge_restore.demo.clip import write_clip
from edge_restore.errors import UserError
from edge_restore.frames import Frame, Pixels
from edge_restore.media.images import jpeg_bytes, read_image, write_png
from edge_restore.media.metrics import finite_psnr, ssim
from edge_restore.media.photo import PHOTO
from edge_restore.pipeline import run as pipeline
from edge_restore.progress import Progress
from edge_restore.report import cells
from edge_restore.report.comparison import Example, contact_sheet, side_by_side
from edge_restore.report.latency_report import LatencyReport, Quality
from edge_restore.report.page import Picture, html_page
from edge_restore.report.run_report import run_report
from edge_restore.sinks import open_sink
from edge_restore.sources import open_source
from edge_restore.storage.files import write_text

SUBJECT = (0.41, 0.25)
"""The bird's head in the photo, as fractions of its width and height."""
RATE = 30
_EXAMPLES = 4
_FILES = (
    "report.html",
    "before_after.mp4",
    "contact_sheet.png",
    "blurred.mp4",
    "restored.mp4",
    "report.json",
)
_NOTE = (
    "Quality is measured in RGB on 8 bits against the camera's sharp frame at the middle of each "
    "exposure, and averaged over the frames. Before: the frames as decoded from blurred.mp4, which "
    "the model was given. After: the model's output before it was encoded into restored.mp4."
)


@dataclass(frozen=True)
class Demonstration:
    """What the demonstration made.

    Attributes:
        report: of the pipeline's run, with the quality.
        blur_px: shortest, median and longest blur of a frame, in pixels.
        files: what was written, in the order in which a person looks at it.
    """

    report: LatencyReport
    blur_px: tuple[float, float, float]
    files: tuple[Path, ...]


def output_files(folder: Path) -> tuple[Path, ...]:
    """What the demonstration writes, in the order in which a person looks at it."""
    return tuple(folder / name for name in _FILES)


def demonstrate(
    folder: Path, camera: HandHeldCamera, frames: int, restorer: Restorer
) -> Demonstration:
    """Film the photo, restore the clip, measure, and write everything into `folder`.

    Args:
        folder: an existing folder.
        camera: films at `RATE`, in an even size.
        frames: how many.
        restorer: not yet open.
    """
    files = output_files(folder)
    page, before_after, sheet, blurred, restored, report_json = files
    photo = read_image(PHOTO)
    shots = _film(camera, photo, frames)
    write_clip(blurred, (shot.blurred for shot in shots), RATE, crf=4)
    result, outputs = _restore(blurred, restored, restorer, frames)
    with open_source(blurred) as source:
        inputs = [frame.pixels for frame in source]
    quality = _quality(inputs, outputs, shots)
    report = run_report(
        result,
        source=f"{blurred.name} ({PHOTO.name} filmed by a simulated hand-held camera)",
        size=(camera.height, camera.width),
        restorer=restorer,
        quality=quality,
    )
    # What cannot be written costs no other file; the first failure is raised when all have had
    # their turn.
    failures: list[UserError] = []
    with _later(failures):
        report.write(report_json)
    with _later(failures):
        write_clip(before_after, map(side_by_side, inputs, outputs), RATE, crf=14)
    # Evenly spread in time: nobody picked the best.
    chosen = sorted({(2 * k + 1) * frames // (2 * _EXAMPLES) for k in range(_EXAMPLES)})
    examples = [
        Example(
            inputs[i],
            outputs[i],
            shots[i].sharp,
            label=f"frame {i}, blur {shots[i].blur_px:.1f} px",
            subject=camera.locate(SUBJECT, photo.shape[:2], shots[i].time),
        )
        for i in chosen
    ]
    picture = contact_sheet(examples)
    with _later(failures):
        write_png(sheet, picture)
    caption = (
        f"Frames {', '.join(map(str, chosen))}, evenly spread in time, around the bird's head, "
        "enlarged twice. PSNR is the whole frame's."
    )
    lengths = sorted(shot.blur_px for shot in shots)
    with _later(failures):
        write_text(
            page,
            html_page(
                report,
                title=f"Deblurring demo: {cells.gain(quality.psnr_gain_db)} dB",
                pictures=[Picture(jpeg_bytes(picture), caption)],
                note=_NOTE,
            ),
        )
    if failures:
        raise failures[0]
    return Demonstration(report, (lengths[0], lengths[len(lengths) // 2], lengths[-1]), files)


@contextmanager
def _later(failures: list[UserError]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        failures.append(error)


def _film(camera: HandHeldCamera, photo: Pixels, frames: int) -> list[Shot]:
    shots = []
    with Progress(frames, "filming") as progress:
        for shot in camera.film(photo, frames):
            shots.append(shot)
            progress.advance()
    return shots


def _restore(
    blurred: Path, restored: Path, restorer: Restorer, frames: int
) -> tuple[pipeline.StreamResult, list[Pixels]]:
    """Restore the clip as `edge-restore run` does, keeping the frames."""
    outputs: list[Pixels] = []
    with open_source(blurred) as source, Progress(frames, "restoring") as progress:
        sink = open_sink(restored, source.info, source_path=blurred)

        def keep(frame: Frame) -> None:
            outputs.append(frame.pixels)
            progress.advance()

        result = pipeline.run(source, restorer, sink, on_frame=keep)
    if result.failure is not None:
        raise result.failure.error
    return result, outputs


def _quality(inputs: Sequence[Pixels], outputs: Sequence[Pixels], shots: Sequence[Shot]) -> Quality:
    """The means over the frames."""
    scores = []
    with Progress(len(shots), "measuring") as progress:
        for before, after, shot in zip(inputs, outputs, shots, strict=True):
            truth = shot.sharp
            scores.append(
                (
                    *(finite_psnr(picture, truth) for picture in (before, after)),
                    *(ssim(picture, truth) for picture in (before, after)),
                )
            )
            progress.advance()
    means = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    return Quality(*means)
