"""The TensorRT backend: runs an engine on the GPU, with several frames under way.

One class for the standard library ("tensorrt") and for TensorRT-RTX ("tensorrt-rtx"). The engine
for the frames' size is taken from the cache, or built into it by `open`, which may take minutes
the first time.

Not yet run on a GPU; `pytest -m gpu tests/gpu` checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edge_restore.backends import cuda
from edge_restore.backends.frame_ring import FrameRing
from edge_restore.backends.tensorrt_session import Session, runtime_cache_path
from edge_restore.engine import builder, flavour, manifest, plan
from edge_restore.engine.cache import EngineCache
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import this_gpu
from edge_restore.errors import BackendError, CardError, InternalError, OptionError
from edge_restore.frames import Frame, Pixels
from edge_restore.media import padding
from edge_restore.models import zoo
from edge_restore.models.cards import ModelCard, card_path, verify

FLAVOURS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""The backend's names and the flavours that they run."""

PRECISIONS = ("fp16", "fp32")
"""What is looked for, best first. INT8 is taken only from a model that is named itself."""

FRAMES_IN_FLIGHT = 3
"""One uploads, one computes, one downloads."""


class TensorRTRestorer:
    """Restores frames on the GPU.

    The pixels of a submitted frame are copied by `submit`; a restored frame gets an array of its
    own. To be opened, used and closed in one thread.

    Args:
        models: ONNX files with a card beside each, as `zoo.find` gives them. For a model of the
            zoo, its variants for this flavour are looked at first.
        name: one of `FLAVOURS`.
        in_flight: how many frames may be under way, 1 to 8; 1 has the least latency.
        ungated: run an INT8 model though its card has no verdict, or a bad one.
        store: where engines are kept; the user's cache by default.
        note: is told what takes long.

    Raises:
        DependencyError: TensorRT, PyCUDA or cuda-bindings is not installed.
        BackendError: there is no GPU, or the flavour can run none of the models.
        ModelError, CardError: a model is not ours, or not what its card says.
        OptionError: `in_flight` makes no sense.
    """

    def __init__(
        self,
        models: Sequence[Path],
        name: str = "tensorrt",
        *,
        in_flight: int = FRAMES_IN_FLIGHT,
        ungated: bool = False,
        store: EngineCache | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not 1 <= in_flight <= 8:
            raise OptionError(
                f"{in_flight} frames in flight", expected="1 to 8", hint="leave it out for 3"
            )
        self.name = name
        self.in_flight = in_flight
        self._flavour = flavour.load(FLAVOURS[name])
        cuda.require(graphs=self._flavour.name == "tensorrt")
        self.model, self.card = choose_model(models, self._flavour)
        self._store, self._note, self._ungated = store, note, ungated
        self._size: tuple[int, int] | None = None
        self._ring: FrameRing | None = None
        self._first: cuda.CudaSlot | None = None
        self._resources = ExitStack()

    @property
    def precision(self) -> str:
        """What the engine computes in, as the model's card says."""
        return self.card.precision

    def open(self, height: int, width: int) -> None:
        """Make ready for frames of this size: find or build the engine, load it, run it once.

        Raises:
            BackendError: the engine cannot be built, loaded or run here.
            UserError: the engine cannot be written to the cache.
        """
        self.close()
        planned = plan.make_plan(
            self.model,
            self._flavour,
            precision=self.card.precision,
            size=(height, width),
            gpu=this_gpu(),
            ungated=self._ungated,
        )
        self._note(f"looking for the engine of {self.model.name} for {width}x{height}")
        engine, built = builder.obtain(
            planned,
            EngineCache() if self._store is None else self._store,
            command=f"edge-restore run --backend {self.name}",
            note=self._note,
        )
        self._note("built the engine" if built is not None else "found the engine in the cache")
        loaded = manifest.load_checked(engine, planned.expectation)
        with ExitStack() as resources:
            self._ring = self._load(loaded, engine, resources)
            self._resources = resources.pop_all()
        self._size = (height, width)

    def submit(self, frame: Frame) -> None:
        """Begin restoring a frame of the opened size.

        Raises:
            BackendError: the frame has another size, or the GPU fails.
        """
        if self._ring is None or self._size is None:
            raise InternalError("a frame was submitted to a restorer that is not open")
        check_size(frame.size, self._size)
        frame.clock.begin("restore")  # padding it is a part of that
        self._ring.submit(frame, padding.pad_to_multiple(frame.pixels, self.card.multiple))

    def alone(self, pixels: Pixels) -> Callable[[], object]:
        """What runs the network once on pixels that lie on the GPU, and waits for it.

        For measuring the network itself. No frame may be under way.
        """
        return self._loaded(pixels).compute

    def asking(self, pixels: Pixels) -> tuple[Callable[[], object], Callable[[], object]]:
        """`alone` in two halves: what begins a run and returns at once, and what waits for it.

        For measuring what a clock shows that does not wait.
        """
        slot = self._loaded(pixels)
        return slot.begin, slot.wait

    def _loaded(self, pixels: Pixels) -> cuda.CudaSlot:
        """The first slot with the pixels on the GPU, idle."""
        if self._first is None or self._size is None:
            raise InternalError("the network of a restorer that is not open")
        check_size((pixels.shape[0], pixels.shape[1]), self._size)
        self._first.start(padding.pad_to_multiple(pixels, self.card.multiple))
        self._first.take(*self._size)
        return self._first

    def collect(self) -> Frame | None:
        """The oldest frame, restored; None when it is not ready and more may be submitted."""
        return None if self._ring is None else self._ring.collect()

    def flush(self) -> list[Frame]:
        """Every frame still under way, restored, in order."""
        return [] if self._ring is None else self._ring.flush()

    def close(self) -> None:
        """Wait for what is under way, forget it, and free the GPU. Safe to call twice."""
        self._size = None
        if self._ring is not None:
            self._ring.clear()
            self._ring = self._first = None
        self._resources.close()

    def _load(self, loaded: manifest.Loaded, engine: Path, resources: ExitStack) -> FrameRing:
        """Load the engine and make the slots; `resources` frees all in the opposite order."""
        streams = cuda.Streams()
        resources.callback(streams.close)
        rtx = self._flavour.name == "rtx"
        session = Session(self._flavour, loaded, runtime_cache_path(engine) if rtx else None)
        resources.callback(session.close)
        shape = (loaded.manifest.height, loaded.manifest.width, 3)
        buffers = None
        if session.captures_itself:
            buffers = cuda.EngineBuffers(streams, shape)
            resources.callback(buffers.close)
        slots = []
        for _ in range(self.in_flight):
            slot = cuda.CudaSlot(streams, shape, buffers)
            resources.callback(slot.close)
            capture = not session.captures_itself
            if problem := slot.prepare(session.bind, session.enqueue, capture=capture):
                self._note(f"running without a CUDA graph: {problem}")
            slots.append(slot)
        self._first = slots[0]
        resources.callback(streams.synchronize)  # the first thing that closing does
        return FrameRing(slots)


def description(name: str) -> str:
    """The library's version and the GPU; DependencyError or BackendError when it cannot run."""
    library = flavour.load(FLAVOURS[name])
    cuda.require(graphs=library.name == "tensorrt")
    gpu = this_gpu()
    where = f"{gpu.name}, {gpu.target}, driver {gpu.driver}" if gpu is not None else "no GPU"
    return f"{library.title} {library.version} on {where}"


def check_size(found: tuple[int, int], opened: tuple[int, int]) -> None:
    """Make sure that a frame fits an engine that was opened for frames of another or that size.

    Raises:
        BackendError: it does not.
    """
    if found == opened:
        return
    larger = found[0] > opened[0] or found[1] > opened[1]
    raise BackendError(
        f"a frame of {found[1]}x{found[0]} is {'larger' if larger else 'smaller'} than the engine "
        f"was opened for",
        expected=f"frames of {opened[1]}x{opened[0]} pixels",
        hint="restore streams of different sizes one after the other",
    )


def choose_model(models: Sequence[Path], library: Flavour) -> tuple[Path, ModelCard]:
    """The model that the flavour runs best: FP16 before FP32, our plugin before GridSample.

    Raises:
        BackendError: it can run none of them.
        ModelError, CardError: a model is not ours.
    """
    lacking = []
    for path in _candidates(models, library):
        card = verify(card_path(path))
        if not isinstance(card, ModelCard):
            raise CardError(
                f"'{card_path(path)}' is no model's card",
                expected=f"the card of '{path.name}'",
                hint="copy the model and its card together",
            )
        if not (reason := unfit(card, library)):
            return path, card
        lacking.append(f"{path.name}: {reason}")
    command = "python -m export NETWORK --precision fp16 --deformable " + (
        "GridSample" if library.name == "rtx" else "plugin"
    )
    raise BackendError(
        f"{library.title} can run none of the models:\n    " + "\n    ".join(lacking),
        expected="a model in the camera form, exported for it",
        hint=f"{command} (see docs/engines.md), or run on the CPU with --backend onnxruntime",
    )


def unfit(card: ModelCard, library: Flavour) -> str:
    """Why the flavour cannot run a model, or nothing when it can."""
    if card.form != "camera":
        return "it takes float32 pictures, not the camera's uint8"
    if library.name == "rtx" and card.deformable in ("DeformConv", "plugin"):
        return "TensorRT-RTX has no deformable convolution and takes no plugins"
    kept = card.floating == "fp32" or any("DeformConv" in name for name in card.fp32_islands)
    if card.deformable == "DeformConv" and not kept:
        return "TensorRT's own deformable convolution rounds coordinates in FP16"
    return ""


def _candidates(models: Sequence[Path], library: Flavour) -> list[Path]:
    """A zoo model's variants for the flavour, and then the models as they were given."""
    variants: list[Path] = []
    if models and models[0].parent == zoo.FOLDER:
        for precision in PRECISIONS:
            variants += zoo.engine_files(models[0].stem, library.name, precision)
    return [*dict.fromkeys([*variants, *models])]
