"""An engine of TensorRT or TensorRT-RTX, loaded and ready to run on a stream.

Not yet run on a GPU; `pytest -m gpu tests/gpu` checks it. tests/contract checks every name against
TensorRT's real bindings.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from edge_restore.engine.build_log import BuildLog, make_logger
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.manifest import EngineManifest, Loaded
from edge_restore.engine.plugin import registry as plugin
from edge_restore.errors import BackendError, UserError
from edge_restore.models.cards import TensorPort
from edge_restore.storage import trusted_file
from edge_restore.storage.files import atomic_path
from edge_restore.storage.trusted_file import EngineError

_KEPT_MESSAGES = 200


class Session:
    """One engine with one execution context, for use by one stream at a time.

    A CUDA context must be current in the thread, the same one for the session's whole life.

    Args:
        flavour: the library; it must be the one that built the engine.
        loaded: the engine, checked.
        runtime_cache: where TensorRT-RTX keeps the kernels that it compiles when the engine is
            loaded; read when it is there, written by `close`. None for nowhere.

    Raises:
        BackendError: the library cannot load the engine, or its ports are not those of the
            manifest.
    """

    def __init__(self, flavour: Flavour, loaded: Loaded, runtime_cache: Path | None = None) -> None:
        trt, manifest = flavour.trt, loaded.manifest
        self._flavour, self._manifest = flavour, manifest
        self._log = _RecentLog()
        self._logger = make_logger(trt, self._log)
        self._bound: tuple[int, int] | None = None
        self._cache_file = runtime_cache
        self._runtime_cache: Any = None
        self.captures_itself = False
        """Whether the library captures CUDA graphs on its own (TensorRT-RTX)."""
        if manifest.kernel_sha256 is not None and plugin.takes_plugins(trt):
            plugin.register(trt)  # an engine of the route "python" needs it to be loaded
        self._runtime: Any = trt.Runtime(self._logger)
        self._engine: Any = None
        self._context: Any = None
        try:
            self._load(loaded.engine)
        except BaseException:
            self._free()
            raise

    def bind(self, image: int, restored: int) -> None:
        """Set the device addresses of input and output, which hold uint8 (1, height, width, 3)."""
        if (image, restored) == self._bound:  # so that a graph of the library's own stays valid
            return
        ports = ((self._manifest.input, image), (self._manifest.output, restored))
        for port, address in ports:
            if not self._context.set_tensor_address(port.name, address):
                raise self._failure(f"take an address of '{port.name}' for")
        self._bound = (image, restored)

    def enqueue(self, stream: int) -> None:
        """Put one run on the stream with this handle, and return."""
        if not self._context.execute_async_v3(stream):
            raise self._failure("run the engine")

    def close(self) -> None:
        """Free the engine, and keep what TensorRT-RTX compiled. Safe to call twice."""
        self._keep_runtime_cache()
        self._free()

    def _load(self, engine: bytes) -> None:
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise self._failure("load the engine")
        self._check_ports()
        self._context = self._make_context()
        if self._context is None:
            raise self._failure("make an execution context for")
        self._set_shape()

    def _free(self) -> None:
        # In this order: a context uses its engine, an engine its runtime.
        self._context = None
        self._runtime_cache = None
        self._engine = None
        self._runtime = None

    def _make_context(self) -> Any:
        engine = self._engine
        if not hasattr(engine, "create_runtime_config"):
            return engine.create_execution_context()
        trt = self._flavour.trt
        runtime_config = engine.create_runtime_config()
        if hasattr(runtime_config, "set_runtime_cache"):
            self._runtime_cache = self._read_runtime_cache(runtime_config)
            runtime_config.set_runtime_cache(self._runtime_cache)
        if hasattr(runtime_config, "cuda_graph_strategy") and hasattr(trt, "CudaGraphStrategy"):
            runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self.captures_itself = True
        return engine.create_execution_context(runtime_config)

    def _read_runtime_cache(self, runtime_config: Any) -> Any:
        runtime_cache = runtime_config.create_runtime_cache()
        file = self._cache_file
        if file is not None:
            # It holds machine code. What is not ours, or of another version, is made anew.
            with contextlib.suppress(EngineError):
                runtime_cache.deserialize(trusted_file.read(file, "the runtime cache", "remove it"))
        return runtime_cache

    def _keep_runtime_cache(self) -> None:
        runtime_cache, file = self._runtime_cache, self._cache_file
        if runtime_cache is None or file is None:
            return
        content = runtime_cache.serialize()
        if content is None:
            return
        # Without the file the next start only takes longer.
        with (
            contextlib.suppress(UserError),
            atomic_path(file, mode=trusted_file.MODE) as temporary,
        ):
            temporary.write_bytes(bytes(content))

    def _ports(self) -> dict[str, tuple[Any, Any]]:
        """Mode and type of every input and output, by name."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return {
            name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names
        }

    def _check_ports(self) -> None:
        trt, found = self._flavour.trt, self._ports()
        wanted = {
            self._manifest.input.name: (trt.TensorIOMode.INPUT, trt.DataType.UINT8),
            self._manifest.output.name: (trt.TensorIOMode.OUTPUT, trt.DataType.UINT8),
        }
        if found != wanted:
            raise BackendError(
                f"the engine '{self._manifest.engine.file}' has the ports {_described(found)}",
                expected=f"{_described(wanted)}, as its manifest says",
                hint="build it again with `edge-restore build`",
            )

    def _set_shape(self) -> None:
        """Fix dynamic sizes to the ones that the engine was built for, and check the output's."""
        manifest = self._manifest
        name, shape = manifest.input.name, _shape(manifest.input)
        if -1 in tuple(self._engine.get_tensor_shape(name)):
            self._context.set_input_shape(name, shape)
        for port in (manifest.input, manifest.output):
            found = tuple(self._context.get_tensor_shape(port.name))
            if found != _shape(port):
                raise BackendError(
                    f"the engine '{manifest.engine.file}' has '{port.name}' of shape {found}",
                    expected=f"{_shape(port)}, as its manifest says",
                    hint="build it again with `edge-restore build`",
                )

    def _failure(self, doing: str) -> BackendError:
        return unable(self._flavour, self._manifest, doing, self._log)


def runtime_cache_path(file: Path) -> Path:
    """Where the kernels that TensorRT-RTX compiled for an engine file lie, beside it."""
    return file.with_suffix(".runtime_cache")


def unable(flavour: Flavour, manifest: EngineManifest, doing: str, log: BuildLog) -> BackendError:
    """The error for what the library could not do, with the reason that it logged."""
    reasons = log.errors() or ["it gave no reason"]
    return BackendError(
        f"{flavour.title} {flavour.version} cannot {doing} '{manifest.engine.file}': {reasons[-1]}",
        expected="an engine that was built by this version for this GPU, and memory for it",
        hint="build it again with `edge-restore build`, or run on the CPU with --backend "
        "onnxruntime",
    )


class _RecentLog(BuildLog):
    """The last messages only: a stream may run for days."""

    def add(self, severity: str, text: str) -> None:
        super().add(severity, text)
        del self.messages[:-_KEPT_MESSAGES]


def _shape(port: TensorPort) -> tuple[int, ...]:
    return tuple(side or 0 for side in port.shape)


def _described(ports: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"'{name}' {mode.name} {kind.name}" for name, (mode, kind) in ports.items())
