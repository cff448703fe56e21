"""The OpenVINO backend: the fastest way through a network on x86 CPUs, and on ARM.

OpenVINO's ONNX reader has no DeformConv. An extension of the reader writes it as OpenVINO's own
deformable_convolution, which has the same offsets, masks and borders.

OpenVINO (2026.4) gives the thread that computes a signal stack of its own, and of two networks that
are freed in the order of their making the second leaves that thread with memory that is gone: the
next signal, Ctrl-C say, kills the process. So everything is done in a thread that belongs to the
restorer, and signals come to the main thread.

A network is compiled for each size of frame, because one of fixed size is faster than one that
takes every size; `open` does it, in about a second.
"""

from __future__ import annotations

import importlib
import io
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edge_restore.backends import finiteness
from edge_restore.backends.cpu import CpuRestorer, Image, first_line
from edge_restore.errors import BackendError, InternalError
from edge_restore.frames import Pixels
from edge_restore.machine import optional
from edge_restore.models.model import Model

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""What convolutions compute in, and OpenVINO's word for it. The rest follows where it is as exact:
the picture's addition at the end is done in FP32 in either."""


class OpenVinoRestorer(CpuRestorer):
    """Restores with OpenVINO on the CPU, see `CpuRestorer`.

    Args:
        models: ONNX files with a card beside each, in the order of preference: the first that this
            OpenVINO can read is taken.
        precision: "fp32", or "bf16" on processors that multiply bfloat16 (AMX, AVX-512 BF16).
        threads: how many threads a frame may use; None lets OpenVINO choose, or as many
            as a container allows.
        memory_budget: bytes for the network's activations, see `memory.max_area`.

    Raises:
        ModelError, CardError: a model is not ours or not what its card says.
        BackendError: OpenVINO can read none of the models, or the processor has no bfloat16.
        OptionError: `threads` or `memory_budget` is less than 1.
        DependencyError: OpenVINO is not installed.
    """

    def __init__(
        self,
        models: Sequence[Path],
        *,
        precision: str = "fp32",
        threads: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        super().__init__(threads, memory_budget)
        self._core = _core()
        if precision == "bf16" and not has_bfloat16(self._core):
            raise BackendError(
                "this processor does not multiply bfloat16",
                expected="AMX or AVX-512 BF16, or SVE on ARM",
                hint="use --backend openvino, which computes in FP32",
            )
        self.precision = precision
        self.name = "openvino-cpu" if precision == "fp32" else f"openvino-cpu-{precision}"
        self._loaded, self._graph_model = _first_that_reads(self._core, models)
        self.model, self.card = self._loaded.path, self._loaded.card
        self._prepared: tuple[int, int] | None = None
        self._thread = ThreadPoolExecutor(1, "openvino")
        self._requests: list[Any] = []
        """The one that is prepared, if any; a list, so that it can be freed in its own thread."""
        # At the process's end there is no thread any more to free it in, and no need to.
        weakref.finalize(self, _free, self._thread, self._requests).atexit = False

    def _prepare(self, height: int, width: int) -> None:
        if self._prepared == (height, width):
            return
        self._prepared = None
        self._thread.submit(self._compile, height, width).result()
        self._prepared = (height, width)

    def _compile(self, height: int, width: int) -> None:
        camera = self.card.form == "camera"
        self._requests.clear()
        model = self._graph_model.clone()
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self._threads is not None:
            properties["INFERENCE_NUM_THREADS"] = self._threads
        try:
            model.reshape([1, height, width, 3] if camera else [1, 3, height, width])
            compiled = self._core.compile_model(model, "CPU", properties)
        except Exception as error:  # see CpuRestorer._run
            raise BackendError(
                f"OpenVINO cannot compile '{self.model}' for {width}x{height}: {first_line(error)}",
                expected="a model that takes this size",
                hint="use --backend onnxruntime",
            ) from error
        self._requests.append(compiled.create_infer_request())

    def asking(self, pixels: Pixels) -> tuple[Callable[[], object], Callable[[], object]] | None:
        """`alone` in two halves: what begins a run and returns at once, and what waits for it.

        For measuring what a clock shows that does not wait. None for a frame in tiles.
        """
        if self._grid is None or len(self._grid) > 1 or not self._requests:
            return None
        (request,), image = self._requests, self._images(pixels)[0]

        def ask() -> None:
            self._thread.submit(request.start_async, {0: image}, share_inputs=True).result()

        return ask, lambda: self._thread.submit(request.wait).result()

    def _graph(self, image: Image) -> tuple[Image, float]:
        if self._prepared is None:
            raise InternalError("the network was not prepared")
        return self._thread.submit(self._infer_in_thread, image).result()

    def _infer_in_thread(self, image: Image) -> tuple[Image, float]:
        (request,) = self._requests
        results = request.infer({0: np.ascontiguousarray(image)}, share_inputs=True)
        # A copy: the request writes its output into the same memory every time.
        return np.array(results[0]), float(results[1])


def _free(thread: ThreadPoolExecutor, requests: list[Any]) -> None:
    """Free what OpenVINO holds in the thread that made it, and end the thread."""
    thread.submit(requests.clear)
    thread.shutdown()


def description() -> str:
    """OpenVINO's version and the processor's types; DependencyError when it is missing."""
    openvino, core = _import(), _core()
    types = "FP32, bfloat16" if has_bfloat16(core) else "FP32"
    return f"OpenVINO {openvino.__version__.partition('-')[0]}, {types}"


def has_bfloat16(core: Any = None) -> bool:
    """Whether the processor multiplies bfloat16 faster than FP32, as OpenVINO sees it."""
    core = _core() if core is None else core
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def product(side: int, precision: str) -> Callable[[], object]:
    """What multiplies two square matrices of a size in a precision, for measuring peaks.

    In "int8" the first is rounded to 8 bits every time, as an INT8 network does it; that takes a
    fraction of the product's time.

    Raises:
        DependencyError: OpenVINO is not installed.
        BackendError: it does not multiply 8 bits on this processor.
    """
    openvino = _import()
    ops = importlib.import_module("openvino.opset8")
    random = np.random.default_rng(0)
    eight_bits = precision == "int8"
    inputs = [ops.parameter([side, side], np.float32) for _ in range(1 if eight_bits else 2)]
    factors = inputs
    if eight_bits:
        low, high = np.float32(0), np.float32(1)
        weights = ops.constant(random.integers(-127, 128, (side, side), np.int8))
        factors = [
            ops.fake_quantize(inputs[0], low, high, low, high, 256),
            ops.multiply(ops.convert(weights, "f32"), ops.constant(np.float32(0.01))),
        ]
    model = openvino.Model([ops.matmul(*factors, False, eight_bits)], inputs)
    hints = {
        "INFERENCE_PRECISION_HINT": PRECISIONS.get(precision, "f32"),
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": eight_bits,
    }
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    feed = {i: random.random((side, side), np.float32) for i in range(len(inputs))}
    request.infer(feed)
    nodes = request.get_profiling_info() if eight_bits else []
    kinds = ("MatMul", "FullyConnected")  # there are several of the second
    products = [node.exec_type for node in nodes if node.node_type.startswith(kinds)]
    if eight_bits and not any("I8" in kernel for kernel in products):
        raise BackendError(
            "OpenVINO does not multiply 8 bits here",
            expected="VNNI, AMX or their like",
            hint="nothing: this processor has no peak for INT8",
        )
    return lambda: request.infer(feed, share_inputs=True, share_outputs=True)


def _core() -> Any:
    """OpenVINO's entry point, with our reader of DeformConv."""
    openvino = _import()
    frontend = importlib.import_module("openvino.frontend.onnx")
    core = openvino.Core()
    core.add_extension(frontend.ConversionExtension("DeformConv", _deformable_convolution))
    return core


def _import() -> ModuleType:
    return optional.require("openvino", needed_for="the openvino backend")


def _deformable_convolution(node: Any) -> list[Any]:
    """ONNX DeformConv (image, weight, offset, bias, mask) in OpenVINO's operators."""
    ops = importlib.import_module("openvino.opset8")
    inputs = [node.get_input(i) for i in range(node.get_input_size())]
    image, weight, offset = inputs[:3]
    pads = [int(n) for n in node.get_attribute("pads", [0, 0, 0, 0])]
    masked = {"mask": inputs[4]} if len(inputs) > 4 else {}
    restored = ops.deformable_convolution(
        image, offset, weight,
        [int(n) for n in node.get_attribute("strides", [1, 1])],
        pads[:2], pads[2:],
        [int(n) for n in node.get_attribute("dilations", [1, 1])],
        group=int(node.get_attribute("group", 1)),
        deformable_group=int(node.get_attribute("offset_group", 1)),
        # A sample beyond the border is mixed with zeros, as ONNX has it.
        bilinear_interpolation_pad=True,
        **masked,
    )  # fmt: skip
    if len(inputs) > 3:
        bias = ops.reshape(inputs[3], ops.constant(np.array([1, -1, 1, 1], np.int64)), False)
        restored = ops.add(restored, bias)
    return [restored.output(0)]


def _first_that_reads(core: Any, models: Sequence[Path]) -> tuple[Model, Any]:
    lacking = []
    for path in models:
        model = Model.read(path)
        try:
            return model, core.read_model(io.BytesIO(finiteness.watched(model)))
        except Exception as error:  # see CpuRestorer._run
            lacking.append(f"{path.name}: {first_line(error)}")
    raise BackendError(
        "OpenVINO can read none of the models:\n    " + "\n    ".join(lacking),
        expected="an FP32 model with standard operators",
        hint="use --backend onnxruntime, or upgrade openvino",
    )
