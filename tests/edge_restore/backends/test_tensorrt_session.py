"""Loading an engine and binding it, with a stand-in for TensorRT.

The stand-in has the methods that the code calls, whose names and signatures tests/contract checks
against the real bindings; what they do is simulated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_restore.backends.tensorrt_session import Session, runtime_cache_path
from edge_restore.engine.flavour import Flavour
from edge_restore.errors import BackendError
from edge_restore.models.cards import TensorPort
from edge_restore.storage.trusted_file import MODE

SHAPE = (1, 48, 64, 3)


class Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class Kind(Enum):
    UINT8 = 1
    FLOAT = 2


class Severity(Enum):
    ERROR = 1


class Library:
    """A TensorRT module, `rtx` for TensorRT-RTX; its attributes say how its engines behave."""

    def __init__(self, rtx: bool = False) -> None:
        self.rtx = rtx
        self.loads = self.makes_contexts = self.accepts_addresses = self.runs = True
        self.engine_shape: tuple[int, ...] = SHAPE
        self.ports = {"image": (Mode.INPUT, Kind.UINT8), "restored": (Mode.OUTPUT, Kind.UINT8)}
        self.told: list[Any] = []
        self.alive: list[str] = []
        self.orphans = 0  # contexts that outlived their engine
        self.cache_content = b"compiled kernels"
        self.takes_cache = True

    def module(self) -> Any:
        library = self

        class ILogger:
            pass

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> Any:
                library.told.append(content)
                if not library.loads:
                    self.logger.log(Severity.ERROR, "Engine plan file is for another GPU\nmore")
                    return None
                return Engine(library, self.logger)

        members: dict[str, Any] = {
            "ILogger": ILogger, "Runtime": Runtime, "TensorIOMode": Mode, "DataType": Kind,
        }  # fmt: skip
        if self.rtx:
            members["CudaGraphStrategy"] = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")
        name = "tensorrt_rtx" if self.rtx else "tensorrt"
        return SimpleNamespace(__name__=name, __version__="0", **members)


class Engine:
    def __init__(self, library: Library, logger: Any) -> None:
        self.library, self.logger = library, logger
        self.num_io_tensors = len(library.ports)
        library.alive.append("engine")
        if library.rtx:
            self.create_runtime_config = lambda: RuntimeConfig(library)

    def __del__(self) -> None:
        self.library.alive.remove("engine")

    def get_tensor_name(self, place: int) -> str:
        return list(self.library.ports)[place]

    def get_tensor_mode(self, name: str) -> Mode:
        return self.library.ports[name][0]

    def get_tensor_dtype(self, name: str) -> Kind:
        return self.library.ports[name][1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.library.engine_shape

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        self.library.told.append(runtime_config)
        if not self.library.makes_contexts:
            self.logger.log(Severity.ERROR, "out of memory")
            return None
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.library = engine.library
        self.shape = self.library.engine_shape
        self.library.alive.append("context")

    def __del__(self) -> None:
        self.library.orphans += "engine" not in self.library.alive
        self.library.alive.remove("context")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.library.told.append((name, shape))
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.library.told.append((name, address))
        return self.library.accepts_addresses

    def execute_async_v3(self, stream: int) -> bool:
        self.library.told.append(("run", stream))
        return self.library.runs


class RuntimeConfig:
    cuda_graph_strategy = "disabled"

    def __init__(self, library: Library) -> None:
        self.library = library
        self.cache: Any = None

    def create_runtime_cache(self) -> Any:
        library = self.library

        def deserialize(content: bytes) -> bool:
            library.told.append(("cache", content))
            return library.takes_cache

        return SimpleNamespace(deserialize=deserialize, serialize=lambda: library.cache_content)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


def session(library: Library, cache: Path | None = None) -> Session:
    ports = [TensorPort(name, "uint8", "NHWC", SHAPE) for name in ("image", "restored")]
    manifest = SimpleNamespace(
        input=ports[0], output=ports[1], kernel_sha256=None, engine=SimpleNamespace(file="a.engine")
    )
    loaded: Any = SimpleNamespace(engine=b"the engine", manifest=manifest)
    name = "rtx" if library.rtx else "tensorrt"
    return Session(Flavour(name, library.module(), "1.2.3"), loaded, cache)


@pytest.fixture(params=[False, True], ids=["standard", "rtx"])
def library(request: pytest.FixtureRequest) -> Library:
    return Library(request.param)


def test_addresses_and_runs_reach_the_library(library: Library) -> None:
    opened = session(library)
    assert library.told[0] == b"the engine"
    opened.bind(0x100, 0x200)
    opened.enqueue(0xABC0)
    assert library.told[-3:] == [("image", 0x100), ("restored", 0x200), ("run", 0xABC0)]


def test_the_same_addresses_are_set_once(library: Library) -> None:
    """A graph that the library captured itself stays valid."""
    opened = session(library)
    for image in (0x100, 0x100, 0x300):
        opened.bind(image, 0x200)
    assert [told for told in library.told if isinstance(told, tuple) and told[0] == "image"] == [
        ("image", 0x100), ("image", 0x300),
    ]  # fmt: skip


def test_rtx_captures_graphs_itself(library: Library) -> None:
    opened = session(library)
    config = library.told[1]
    assert opened.captures_itself == library.rtx
    if library.rtx:
        assert config.cuda_graph_strategy == "whole graph"
        assert config.cache is not None
    else:
        assert config is None


def test_closing_frees_in_order_and_twice(library: Library) -> None:
    opened = session(library)
    assert library.alive == ["engine", "context"]
    library.told.clear()  # it held the configuration
    opened.close()
    opened.close()
    assert library.alive == [] and library.orphans == 0


def test_a_dynamic_size_is_fixed(library: Library) -> None:
    library.engine_shape = (1, -1, -1, 3)
    session(library)
    assert ("image", SHAPE) in library.told


def does_not_load(library: Library) -> None:
    library.loads = False


def makes_no_context(library: Library) -> None:
    library.makes_contexts = False


def has_float_pixels(library: Library) -> None:
    library.ports["image"] = (Mode.INPUT, Kind.FLOAT)


def has_one_more_port(library: Library) -> None:
    library.ports["extra"] = (Mode.OUTPUT, Kind.UINT8)


def has_another_size(library: Library) -> None:
    library.engine_shape = (1, 48, 96, 3)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (does_not_load, "cannot load the engine 'a.engine': Engine plan file is for another GPU$"),
        (makes_no_context, "cannot make an execution context for 'a.engine': out of memory"),
        (has_float_pixels, "has the ports 'image' INPUT FLOAT"),
        (has_one_more_port, "'extra' OUTPUT UINT8"),
        (has_another_size, r"has 'image' of shape \(1, 48, 96, 3\)"),
    ],
)
def test_engines_that_cannot_be_used(
    library: Library, fault: Callable[[Library], None], complaint: str
) -> None:
    fault(library)
    with pytest.raises(BackendError) as caught:
        session(library)
    assert re.search(complaint, caught.value.found)
    library.told.clear()
    assert library.alive == [] and library.orphans == 0
    assert "edge-restore build" in caught.value.hint


def test_calls_that_the_library_refuses(library: Library) -> None:
    opened = session(library)
    library.accepts_addresses = library.runs = False
    with pytest.raises(
        BackendError, match=r"take an address of 'image' for 'a\.engine': it gave no"
    ):
        opened.bind(1, 2)
    with pytest.raises(BackendError, match="cannot run the engine"):
        opened.enqueue(3)


def test_the_runtime_cache_is_kept_and_read(tmp_path: Path) -> None:
    file = runtime_cache_path(tmp_path / "net-0123.engine")
    assert file.name == "net-0123.runtime_cache"
    first = Library(rtx=True)
    session(first, file).close()
    assert file.read_bytes() == b"compiled kernels"
    assert file.stat().st_mode & 0o777 == MODE
    second = Library(rtx=True)
    opened = session(second, file)
    assert ("cache", b"compiled kernels") in second.told
    second.cache_content = b"more kernels"
    opened.close()
    assert file.read_bytes() == b"more kernels"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def writable_by_all(file: Path) -> None:
    file.chmod(0o666)


def a_link(file: Path) -> None:
    file.rename(file.with_suffix(".other"))
    file.symlink_to(file.with_suffix(".other"))


@pytest.mark.parametrize("damage", [writable_by_all, a_link])
def test_a_runtime_cache_that_others_may_have_changed_is_not_read(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """It holds machine code."""
    file = tmp_path / "net.runtime_cache"
    file.write_bytes(b"somebody else's kernels")
    file.chmod(MODE)
    damage(file)
    library = Library(rtx=True)
    opened = session(library, file)
    assert not [told for told in library.told if isinstance(told, tuple) and told[0] == "cache"]
    opened.close()


def test_a_folder_that_takes_no_cache_is_no_error(tmp_path: Path) -> None:
    session(Library(rtx=True), tmp_path / "nowhere" / "net.runtime_cache").close()
