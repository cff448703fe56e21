"""How far the layers of an engine are from FP32, for ``edge-restore build --compare``.

The reference is an FP32 graph of the same weights in ONNX Runtime. What it is compared with is

- the engine, where there is a GPU that it is for. Of its layers it gives out nothing, so engines
  of the same graph are built in which they are outputs. That hinders fusion: a layer's numbers
  are those of its arithmetic, only the restored picture's are those of the very engine;
- elsewhere the FP16-typed or Q/DQ graph that went into the engine, in ONNX Runtime, rounded as its
  types say. How an engine's kernels accumulate is not in that.

Polygraphy marks the layers as outputs, feeds both sides the same picture and runs them. The path
with an engine has not yet run on a GPU; ``pytest -m gpu tests/gpu`` checks it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_restore.engine.builder import build
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.plan import Plan
from edge_restore.engine.plugin import registry as plugin
from edge_restore.engine.rounding import half_tensors, keep_rounding
from edge_restore.errors import BackendError, CardError, ModelError
from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.media import metrics
from edge_restore.models.cards import ModelCard, card_path, verify
from edge_restore.models.model import Model

Array = np.ndarray[Any, np.dtype[Any]]

CHUNK_BYTES = 1 << 30
"""The layers of one run take about this much in FP32; a graph with more is run several times."""

_DEFORMABLE = ("DeformConv", "none", "GridSample")
"""Forms that ONNX Runtime can run, the best reference first."""
_GUESSED_CHANNELS = 64
"""Of a tensor whose shape ONNX cannot infer."""
_MOVES = frozenset(
    [
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)
"""Operators that compute nothing; their errors are those of what they move."""


@dataclass(frozen=True)
class LayerError:
    """How far one layer's output is from the reference.

    Attributes:
        name: of the tensor, which is the node's where `python -m export` wrote the graph.
        operator: of the reference's node, e.g. "Conv".
        max_abs: greatest absolute difference; infinite where a value is not finite.
        psnr: in dB; the peak is the reference's greatest absolute value, 255 of the picture.
            Infinite for equal tensors, minus infinity where a value is not finite.
    """

    name: str
    operator: str
    max_abs: float
    psnr: float

    @property
    def finite(self) -> bool:
        """Whether every value of both sides was a number."""
        return math.isfinite(self.max_abs)


@dataclass(frozen=True)
class Comparison:
    """What was compared, and how far it is off.

    Attributes:
        reference: the FP32 graph.
        compared: the graph that went into the engine.
        not_run: why the engine itself was not run; empty where it was.
        size: (height, width) of the picture.
        layers: largest error first, by PSNR.
        picture: of the restored picture, uint8.
    """

    reference: Path
    compared: Path
    not_run: str
    size: tuple[int, int]
    layers: tuple[LayerError, ...]
    picture: LayerError


def check(plan: Plan, reference: Path | None = None) -> None:
    """Make sure, before anything is built, that `compare` can begin.

    Raises:
        DependencyError: Polygraphy, onnx or ONNX Runtime is not installed.
        ModelError, CardError: there is no FP32 graph to compare with, or not a good one.
    """
    for module in ("polygraphy", "onnx", "onnxruntime"):
        _module(module)
    references(plan, reference)


def references(plan: Plan, given: Path | None = None) -> list[Path]:
    """The FP32 graphs that the plan's model can be compared with, best first.

    They lie beside the model and have its weights and ports. Standard DeformConv nodes are the
    best, because what the lowering to GridSample does then counts too.

    Raises:
        ModelError, CardError: there is none, or `given` is none.
    """
    if given is not None:
        card = verify(card_path(given))
        if problem := _unfit(card, plan.card):
            raise ModelError(
                f"'{given}' cannot be compared with '{plan.model}': {problem}",
                expected="an FP32 graph of the same weights, in the camera form",
                hint="leave --reference out to take the one beside the model",
            )
        return [given]
    found = {}
    for path in sorted(plan.model.parent.glob("*.onnx")):
        try:
            card = verify(card_path(path))
        except CardError:
            continue  # not ours, or not whole
        if isinstance(card, ModelCard) and not _unfit(card, plan.card):
            found[path] = _DEFORMABLE.index(card.deformable)
    if cannot_run(plan):
        found.pop(plan.model, None)  # compared with itself it has no error
    if not found:
        raise ModelError(
            f"there is nothing to compare '{plan.model}' with: no other FP32 graph of its weights "
            "that ONNX Runtime can run lies beside it",
            expected="an FP32 graph of the same weights, in the camera form",
            hint="export one into that folder with --precision fp32 --deformable DeformConv, or "
            "name one with --reference FILE",
        )
    return sorted(found, key=lambda path: found[path])


def cannot_run(plan: Plan) -> str:
    """Why the plan's engine cannot be run here; empty when it can."""
    if plan.gpu is None:
        return "no GPU"
    if plan.gpu.target not in plan.targets:
        return f"it is for {', '.join(plan.targets)}, and the GPU here is {plan.gpu.target}"
    return ""


def compare(
    plan: Plan,
    engine: bytes,
    *,
    reference: Path | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    timing_folder: Path | None = None,
) -> Comparison:
    """Compare layer by layer at the plan's size, on the photo of the demo.

    Args:
        engine: as it was built and checked.
        reference: an FP32 graph; one beside the model by default, see `references`.
        chunk_bytes: see `CHUNK_BYTES`.
        timing_folder: see `builder.build`.

    Raises:
        DependencyError, ModelError, CardError: see `check`.
        BackendError: a side could not be run, or an engine not be built.
    """
    check(plan, reference)
    path, wanted = _first_that_runs(references(plan, reference))
    with _quiet():
        onnx = _module("polygraphy.backend.onnx")
        size = (plan.height, plan.width)
        typed = _sized(onnx.onnx_from_bytes(Model.of_card(plan.model, plan.card).content), size)
        wanted = _sized(wanted, size)
        result = plan.card.output.name
        operators = _layers(wanted, typed, result)
        feed = {plan.card.input.name: _photo(*size)[None]}
        not_run = cannot_run(plan)
        errors = []
        for names in _chunks(operators, wanted, size, chunk_bytes):
            expected = _session_runner(_marked(wanted, [*names, result]))
            marked = _marked(typed, [*names, result])
            if not_run:
                keep_rounding(marked, _half(marked))
                other = _session_runner(marked)
            else:
                other = _engine_runner(plan, _built(plan, marked, timing_folder))
            errors += _errors(expected, other, feed, {name: operators[name] for name in names})
        expected = _session_runner(wanted)
        if not_run:
            keep_rounding(typed, _half(typed))
            other = _session_runner(typed)
        else:
            other = _engine_runner(plan, engine)
        (picture,) = _errors(expected, other, feed, {result: "picture"})
    errors.sort(key=lambda error: (error.psnr, -error.max_abs))
    return Comparison(path, plan.model, not_run, plan.frame, tuple(errors), picture)


def layer_error(name: str, operator: str, expected: Array, found: Array) -> LayerError:
    """How far `found` is from `expected`, arrays of one shape.

    Raises:
        BackendError: the shapes differ.
    """
    if expected.shape != found.shape:
        raise BackendError(
            f"the layer '{name}' has the shape {found.shape}",
            expected=f"{expected.shape}, as in the reference",
            hint="compare graphs of the same network",
        )
    expected, found = expected.astype(np.float32), found.astype(np.float32)
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return LayerError(name, operator, math.inf, -math.inf)
    difference = float(np.abs(expected - found).max(initial=0))
    if difference == 0:
        return LayerError(name, operator, 0.0, math.inf)
    peak = 255.0 if operator == "picture" else float(np.abs(expected).max())
    psnr = metrics.psnr(expected, found, peak) if peak else -math.inf
    return LayerError(name, operator, difference, psnr)


def _unfit(card: object, wanted: ModelCard) -> str:
    if not isinstance(card, ModelCard):
        return "it is no model"
    if card.precision != "fp32":
        return f"it is typed {card.precision}"
    if card.deformable not in _DEFORMABLE:
        return "ONNX Runtime cannot run our plugin"
    if (card.form, card.input.name, card.output.name) != (
        wanted.form, wanted.input.name, wanted.output.name,
    ):  # fmt: skip
        return "its ports are others"
    return "" if card.weights.sha256 == wanted.weights.sha256 else "it has other weights"


def _first_that_runs(paths: Sequence[Path]) -> tuple[Path, Any]:
    """The first graph that this ONNX Runtime has every operator of, with its ModelProto."""
    onnx = _module("polygraphy.backend.onnx")
    problems = []
    for path in paths:
        with _quiet():
            model = onnx.onnx_from_bytes(Model.read(path).content)
        try:
            _session(model)
        except BackendError as error:
            problems.append(f"{path.name}: {error.found}")
        else:
            return path, model
    raise BackendError(
        "ONNX Runtime can run no reference:\n    " + "\n    ".join(problems),
        expected="an FP32 graph of operators that it has (DeformConv came with 1.24)",
        hint="pip install --upgrade onnxruntime, or export one with --deformable GridSample",
    )


def _sized(model: Any, size: tuple[int, int]) -> Any:
    """The graph for one size, with the shapes that ONNX infers."""
    dims = model.graph.input[0].type.tensor_type.shape.dim  # NHWC
    for dim, side in zip(dims, (1, *size, 3), strict=True):
        dim.dim_value = side
    for port in model.graph.output:
        port.type.tensor_type.ClearField("shape")
    # What ONNX cannot infer, our plugin's outputs, stands in the graph.
    unknown = {t for node in model.graph.node if node.domain for t in node.output}
    kept = [value for value in model.graph.value_info if value.name in unknown]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    infer = _module("polygraphy.backend.onnx").infer_shapes
    return infer(model, allow_onnxruntime=False)


def _layers(wanted: Any, typed: Any, result: str) -> dict[str, str]:
    """The tensors that both graphs compute, with the reference's operators, in its order."""
    both = {t for node in typed.graph.node for t in node.output}
    return {
        tensor: node.op_type
        for node in wanted.graph.node
        for tensor in node.output
        if tensor in both and tensor != result and node.op_type not in _MOVES
    }


def _chunks(
    names: Collection[str], model: Any, size: tuple[int, int], chunk_bytes: int
) -> Iterator[list[str]]:
    """The names in lists whose tensors fit into `chunk_bytes`, at least one in each."""
    shapes = {v.name: v.type.tensor_type.shape.dim for v in model.graph.value_info}
    guess = _GUESSED_CHANNELS * size[0] * size[1]
    chunk: list[str] = []
    total = 0
    for name in names:
        sides = [dim.dim_value for dim in shapes.get(name, ())]
        needed = 4 * (math.prod(sides) if sides and all(sides) else guess)
        if chunk and total + needed > chunk_bytes:
            yield chunk
            chunk, total = [], 0
        chunk.append(name)
        total += needed
    if chunk:
        yield chunk


def _half(model: Any) -> set[str]:
    """The names of a graph's FP16 tensors."""
    infer = _module("polygraphy.backend.onnx").infer_shapes
    return half_tensors(infer(model, allow_onnxruntime=False))


def _marked(model: Any, names: Sequence[str]) -> Any:
    """A copy of the graph whose outputs are the tensors `names`."""
    onnx = _module("polygraphy.backend.onnx")
    marked = onnx.modify_outputs(model, outputs=list(names), copy=True)
    # Polygraphy takes types from value_info, where the graph's own outputs do not stand.
    own = {port.name: port for port in model.graph.output}
    for port in marked.graph.output:
        if port.name in own:
            port.CopyFrom(own[port.name])
    return marked


def _session(model: Any) -> Any:
    """An ONNX Runtime session that leaves the graph as it is."""
    ort = _module("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it is in no hurry
    try:
        return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise BackendError(
            f"ONNX Runtime {ort.__version__} cannot run the graph: "
            f"{str(error).strip().splitlines()[0]}",
            expected="a graph of operators that it has",
            hint="leave --compare out, or compare another form of the model",
        ) from error


def _session_runner(model: Any) -> Any:
    return _module("polygraphy.backend.onnxrt").OnnxrtRunner(_session(model))


def _engine_runner(plan: Plan, engine: bytes) -> Any:
    if plan.kernel_sha256 is not None:
        plugin.register(plan.flavour.trt)  # an engine of the route "python" needs it
    runners = _engine_module(plan.flavour)
    return runners.TrtRunner(runners.EngineFromBytes(engine))


def _engine_module(library: Flavour) -> Any:
    """Polygraphy's module that runs engines of the flavour; one flavour a process."""
    _module("polygraphy.config").USE_TENSORRT_RTX = library.name == "rtx"
    return _module("polygraphy.backend.trt")


def _built(plan: Plan, marked: Any, timing_folder: Path | None) -> bytes:
    """An engine of the graph with its layers as outputs."""
    content = marked.SerializeToString()
    return build(plan, timing_folder=timing_folder, content=content).engine


def _errors(
    expected: Any, other: Any, feed: Mapping[str, Array], operators: Mapping[str, str]
) -> list[LayerError]:
    """Run both on `feed` and compare the floating outputs named in `operators`, and the picture."""
    run = _module("polygraphy.comparator").Comparator.run
    try:
        results = run([expected, other], data_loader=[dict(feed)])
    except Exception as error:  # ONNX Runtime's and Polygraphy's have no common base
        raise BackendError(
            f"the comparison could not be run: {str(error).strip().splitlines()[0]}",
            expected="memory for the layers of the graph at this size",
            hint="compare at a smaller --size",
        ) from error
    (wanted,), (found,) = (iterations for _, iterations in results)
    errors = []
    for name, operator in operators.items():
        pair = wanted[name], found[name]
        if operator == "picture" or all(array.dtype.kind == "f" for array in pair):
            errors.append(layer_error(name, operator, *pair))
    return errors


def _photo(height: int, width: int) -> Pixels:
    """The demo's photo, (height, width, 3): its middle, not resized, or reflected to grow."""
    from edge_restore.media.images import read_image
    from edge_restore.media.photo import PHOTO

    pixels = read_image(PHOTO)
    top = max(0, (pixels.shape[0] - height) // 2)
    left = max(0, (pixels.shape[1] - width) // 2)
    pixels = pixels[top : top + height, left : left + width]
    missing = (height - pixels.shape[0], width - pixels.shape[1])
    return np.pad(pixels, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")


@contextmanager
def _quiet() -> Iterator[None]:
    """Polygraphy's messages go to standard output, where the table is to stand alone."""
    logger = _module("polygraphy.logger").G_LOGGER
    with logger.verbosity(logger.CRITICAL):
        yield


def _module(name: str) -> Any:
    """A module of the optional packages."""
    return optional.require(name, needed_for="build --compare")
