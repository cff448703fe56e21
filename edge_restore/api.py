"""What ``import edge_restore`` gives: open a network, read frames, restore a file, measure.

Each function does what the command of the same name does, without its printing. Every error that
a user can have caused is a `UserError` of `edge_restore.errors`, which says what was found and what
was expected.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edge_restore.errors import DataError
from edge_restore.frames import Frame, Pixels

if TYPE_CHECKING:
    from edge_restore.backends.restorer import Restorer
    from edge_restore.evaluation.scoring import ImageScore
    from edge_restore.models.cards import ModelCard
    from edge_restore.pipeline.run import StreamResult
    from edge_restore.report.latency_report import LatencyReport

_MIB = 1 << 20


class ImageRestorer:
    """A network on a backend of this machine, called with one image at a time.

    Made by `open`. It is opened for the size of the first image and again when the size changes,
    which allocates anew (and on a GPU may build an engine). Use it from one thread.

    >>> with edge_restore.open("lmfn") as restorer:
    ...     sharp = restorer(blurred)
    """

    def __init__(self, restorer: Restorer) -> None:
        self._restorer = restorer
        self._size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """What computes, e.g. "onnxruntime-cpu"."""
        return self._restorer.name

    @property
    def precision(self) -> str:
        """What it computes in: "fp32", "bf16", "fp16" or "int8"."""
        return self._restorer.precision

    @property
    def card(self) -> ModelCard:
        """Where the network comes from, how it is fed, and how good it is."""
        return self._restorer.card

    def prepare(self, height: int, width: int) -> None:
        """Make ready for images of this size in pixels, so that the first call takes no longer.

        Raises:
            BackendError: the network cannot run here at this size.
        """
        if self._size != (height, width):
            self._size = None
            self._restorer.open(height, width)
            self._size = height, width

    def __call__(self, image: Pixels) -> Pixels:
        """The image restored: RGB, uint8, (height, width, 3), as it was given.

        Raises:
            DataError: `image` is no such array.
            BackendError: the network cannot run here at its size, or gives what is not finite.
        """
        from edge_restore.backends.restorer import restore_one

        _check_image(image)
        self.prepare(*image.shape[:2])
        return restore_one(self._restorer, np.ascontiguousarray(image))

    def close(self) -> None:
        """Give the memory back. Safe to call twice."""
        self._size = None
        self._restorer.close()

    def __enter__(self) -> ImageRestorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open(
    model: str | Path = "svdn",
    *,
    backend: str = "auto",
    size: tuple[int, int] | None = None,
    threads: int | None = None,
    memory_budget_mib: int | None = None,
) -> ImageRestorer:
    """Open a network for single images.

    >>> restorer = edge_restore.open("svdn", backend="onnxruntime", size=(360, 640))
    >>> sharp = restorer(blurred)

    Args:
        model: a name of `models`, or an .onnx file with its card beside it.
        backend: what computes, as `edge-restore doctor` lists them; "auto" takes the fastest that
            works here and is exact enough.
        size: (height, width) in pixels to make ready for now; None waits for the first image.
        threads: of the CPU; None lets the backend choose.
        memory_budget_mib: for the network's activations in MiB; larger images are restored in
            tiles. None takes half of what is free.

    Raises:
        ModelError, CardError: the model is not one of ours, or is damaged.
        BackendError: the backend is unknown or cannot run the model here.
        DependencyError: the backend's package is not installed.
        OptionError: `threads` or `memory_budget_mib` makes no sense.
    """
    restorer = ImageRestorer(_create(model, backend, threads, memory_budget_mib))
    if size is not None:
        try:
            restorer.prepare(*size)
        except BaseException:
            restorer.close()
            raise
    return restorer


def frames(source: str | Path, *, max_frames: int | None = None) -> Iterator[Frame]:
    """The frames of a video, one after the other.

    >>> for frame in edge_restore.frames("clip.mp4"):
    ...     print(frame.index, frame.seconds, frame.pixels.shape)

    Args:
        source: a video file.
        max_frames: end after so many; None for all.

    Yields:
        Frames with `pixels` (RGB, uint8, (height, width, 3)), `index`, `seconds` and `clock`.

    Raises:
        SourceError: the source cannot be read, or its frames change their size.
        OptionError: `max_frames` is less than 1.
    """
    from edge_restore.sources import open_source

    with open_source(source, max_frames=max_frames) as opened:
        yield from opened


def run(
    source: str | Path,
    out: str | Path,
    *,
    model: str | Path = "svdn",
    backend: str = "auto",
    threads: int | None = None,
    memory_budget_mib: int | None = None,
    max_frames: int | None = None,
    on_frame: Callable[[Frame], None] | None = None,
    stop: threading.Event | None = None,
) -> LatencyReport:
    """Restore a video file, and measure how long each stage took.

    >>> report = edge_restore.run("in.mp4", "out.mp4", model="lmfn")
    >>> print(report.frames_per_second, report.stages["total"])

    Args:
        source: a video file.
        out: the .mp4 or .mov to write; it is there when it is whole.
        model: a name of `models`, or an .onnx file with its card beside it.
        backend: what computes; "auto" takes the fastest that works here.
        threads: of the CPU; None lets the backend choose.
        memory_budget_mib: for the network's activations in MiB; None takes half of what is free.
        max_frames: end after so many; None for all.
        on_frame: called in a thread of the pipeline after each frame that was written.
        stop: set it from anywhere to end early; the frames so far are kept.

    Returns:
        The report: frames in and out, drops by cause, percentiles of each stage in ms. Its
        `ended_early` and `warnings` say what went wrong without an exception.

    Raises:
        UserError: the source, the model or the output cannot be used; nothing was written.
    """
    return run_file(
        source,
        out,
        RunOptions(model, backend, threads, memory_budget_mib, max_frames),
        on_frame=on_frame,
        stop=stop,
    ).report


@dataclass(frozen=True)
class RunOptions:
    """What `run` is asked for besides its files; see there."""

    model: str | Path = "svdn"
    backend: str = "auto"
    threads: int | None = None
    memory_budget_mib: int | None = None
    max_frames: int | None = None


@dataclass(frozen=True)
class FileRun:
    """A run that has ended.

    Attributes:
        result: what the pipeline counted and timed.
        report: the same for people and programs.
        damaged: whether the source is damaged or was cut off.
        restorer: what restored; closed.
    """

    result: StreamResult
    report: LatencyReport
    damaged: bool
    restorer: Restorer


def run_file(
    source: str | Path,
    out: str | Path,
    options: RunOptions,
    *,
    report: str | Path | None = None,
    on_start: Callable[[int | None, list[str]], None] | None = None,
    on_frame: Callable[[Frame], None] | None = None,
    stop: threading.Event | None = None,
) -> FileRun:
    """`run` for callers that want all there is to know of it.

    Args:
        report: a file that the caller writes afterwards, compared with the others beforehand.
        on_start: called before the first frame with the number of frames, None when it is not
            known, and with what the output cannot keep of the source.
    """
    from edge_restore.errors import shown
    from edge_restore.models import zoo
    from edge_restore.models.cards import with_cards
    from edge_restore.pipeline import run as pipeline
    from edge_restore.report.run_report import run_report
    from edge_restore.sinks import open_sink
    from edge_restore.sources import open_source
    from edge_restore.storage.outputs import check_outputs

    written = [("--out", Path(out))] + ([("--report", Path(report))] if report else [])
    check_outputs(
        written, [("SOURCE", Path(source)), *with_cards("--model", zoo.find(options.model))]
    )
    restorer = _create(options.model, options.backend, options.threads, options.memory_budget_mib)
    with open_source(source, max_frames=options.max_frames) as opened:
        info = opened.info
        sink = open_sink(Path(out), info, source_path=Path(source))
        if on_start is not None:
            on_start(info.frames, list(sink.warnings))
        result = pipeline.run(opened, restorer, sink, on_frame=on_frame, stop=stop)
        found = run_report(
            result, source=shown(str(source)), size=(info.height, info.width), restorer=restorer
        )
        return FileRun(result, found, bool(opened.warnings), restorer)


def evaluate(
    pairs: str | Path,
    *,
    model: str | Path = "svdn",
    backend: str = "auto",
    protocol: str = "mprnet",
    on_image: Callable[[ImageScore], None] | None = None,
) -> list[ImageScore]:
    """Restore the blurred images of a folder and compare each with its sharp one.

    >>> scores = edge_restore.evaluate("pairs", model="lmfn")
    >>> print(sum(score.gain for score in scores) / len(scores), "dB")

    Args:
        pairs: a folder with `blurred` and `sharp` in it, with equal file names.
        model: a name of `models`, or an .onnx file with its card beside it.
        backend: what computes; "auto" takes the fastest that works here.
        protocol: how to compare, see docs/evaluation.md.
        on_image: called after each image.

    Returns:
        PSNR in dB and SSIM of each image, before and after.

    Raises:
        DataError: the folder holds no pairs, or an image that cannot be used.
        ModelError, CardError, BackendError, DependencyError: as `open`.
        OptionError: there is no such protocol.
    """
    from edge_restore.evaluation import protocols, scoring
    from edge_restore.evaluation.pairs import find_pairs

    chosen = protocols.find(protocol)
    found = find_pairs(Path(pairs), trajectories=chosen.trajectory)
    restorer = _create(model, backend, None, None)
    scores = []
    try:
        for score in scoring.evaluate(found, restorer, protocol=chosen):
            scores.append(score)
            if on_image is not None:
                on_image(score)
    finally:
        restorer.close()
    return scores


def build_engine(
    model: str | Path = "svdn",
    *,
    size: tuple[int, int],
    precision: str = "fp16",
    variant: str = "auto",
    targets: Sequence[str] = (),
    force: bool = False,
) -> Path:
    """Build a TensorRT engine, or take the one that was built before.

    >>> engine = edge_restore.build_engine("svdn", size=(720, 1280), precision="fp16")
    >>> print(engine)

    Args:
        model: a name of `models`, or an .onnx file with its card beside it.
        size: (height, width) of the frames in pixels.
        precision: "fp32", "fp16" or "int8".
        variant: of the library: "tensorrt", "rtx", or "auto" for the one that is installed.
        targets: GPUs to build for, e.g. ["sm_86"]; none for the one that is here. TensorRT-RTX
            builds without a GPU.
        force: build it though it is there.

    Returns:
        The engine in the cache; its manifest lies beside it.

    Raises:
        BackendError: there is no TensorRT or GPU here, or it cannot be built.
        ModelError, CardError: the model is not ours or does not carry the precision.
        OptionError: a size that cannot be.
    """
    from edge_restore.engine import builder, flavour, gpu
    from edge_restore.engine.cache import EngineCache
    from edge_restore.engine.plan import make_plan

    plan = make_plan(
        model,
        flavour.load(variant),
        precision=precision,
        size=size,
        gpu=gpu.this_gpu(),
        wanted_targets=targets,
    )
    command = f"edge_restore.build_engine({str(model)!r}, size={size}, precision={precision!r})"
    engine, _ = builder.obtain(plan, EngineCache(), command=command, force=force)
    return engine


@dataclass(frozen=True)
class Model:
    """A network that ships with the package.

    Attributes:
        name: for `open` and `run`.
        file: the .onnx file.
        card: where it comes from, how it is fed, and how good it is.
    """

    name: str
    file: Path
    card: ModelCard


def models() -> list[Model]:
    """The networks that ship with the package.

    >>> for model in edge_restore.models():
    ...     print(model.name, model.card.parameters)

    Raises:
        CardError: a file is damaged.
    """
    from edge_restore.models import zoo
    from edge_restore.models.cards import ModelCard, card_path, verify

    found = []
    for name in zoo.names():
        file = zoo.find(name)[0]
        card = verify(card_path(file))
        assert isinstance(card, ModelCard)
        found.append(Model(name, file, card))
    return found


def _create(
    model: str | Path, backend: str, threads: int | None, memory_budget_mib: int | None
) -> Restorer:
    from edge_restore import backends
    from edge_restore.models import zoo

    budget = None if memory_budget_mib is None else memory_budget_mib * _MIB
    return backends.create(backend, zoo.find(model), threads=threads, memory_budget=budget)


def _check_image(image: Pixels) -> None:
    is_array = isinstance(image, np.ndarray)
    is_rgb = is_array and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if is_rgb and image.size:
        return
    found = f"an array of {image.dtype}, {image.shape}" if is_array else f"{type(image).__name__}"
    raise DataError(
        f"the image is {found}",
        expected="an array of uint8, (height, width, 3), RGB",
        hint="convert it: OpenCV has BGR (image[..., ::-1]), networks have floats from 0 to 1",
    )
