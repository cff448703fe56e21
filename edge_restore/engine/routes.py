"""Which routes a deformable convolution has into an engine on this machine, for `doctor`.

The routes themselves are described in `plugin`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_restore.engine import flavour
from edge_restore.engine.flavour import Flavour, MissingLibrary
from edge_restore.engine.gpu import Gpu, this_gpu
from edge_restore.engine.plugin import kernels
from edge_restore.engine.plugin import registry as plugin
from edge_restore.errors import UserError

TITLES = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
NO_PLUGINS = "TensorRT-RTX takes no plugins; GridSample is its route"
NO_GPU = "no NVIDIA GPU with a driver is here: build on the machine that will run the engine"

_PLUGIN_FREE = "GridSample"
_OWN = "ModulatedDeformConv2d"


@dataclass(frozen=True)
class RouteStatus:
    """Whether one library can take one route here.

    Attributes:
        library: "TensorRT" or "TensorRT-RTX".
        route: e.g. "GridSample".
        available: whether it can.
        detail: how, or what is missing and how to get it, in one line.
    """

    library: str
    route: str
    available: bool
    detail: str


def statuses() -> list[RouteStatus]:
    """Every route of every library."""
    gpu = this_gpu()
    found = []
    for name, title in TITLES.items():
        try:
            library = flavour.load(name)
        except MissingLibrary as error:
            for route in _ROUTES:
                plugs = name == "rtx" and route != _PLUGIN_FREE
                missing = NO_PLUGINS if plugs else _missing(title, name, error)
                found.append(RouteStatus(title, route, False, missing))
            continue
        for route, look in _ROUTES.items():
            found.append(RouteStatus(title, route, *look(library, gpu)))
    return found


Answer = tuple[bool, str]


def _ahead_of_time(library: Flavour, gpu: Gpu | None) -> Answer:
    if not plugin.takes_plugins(library.trt):
        return False, NO_PLUGINS
    if "aot" not in plugin.routes(library.trt):
        return False, f"{_named(library)} has no ahead-of-time plugins; they came with 10.9"
    return _with_kernel(gpu, "the engine holds the kernel, and needs no plugin library")


def _python(library: Flavour, gpu: Gpu | None) -> Answer:
    if not plugin.takes_plugins(library.trt):
        return False, NO_PLUGINS
    if "python" not in plugin.routes(library.trt):
        return False, f"{_named(library)} has no IPluginV3; it came with 10.0"
    return _with_kernel(gpu, "engines with it run in Python alone")


def _gridsample(library: Flavour, gpu: Gpu | None) -> Answer:
    if gpu is not None:
        return True, f"{_named(library)} builds and runs it on {gpu.name}"
    if library.chooses_targets:
        return True, f"{_named(library)} builds it here for other machines; running needs a GPU"
    return False, NO_GPU


def _own_plugin(library: Flavour, gpu: Gpu | None) -> Answer:
    trt = library.trt
    if not plugin.takes_plugins(trt):
        return False, NO_PLUGINS
    trt.init_libnvinfer_plugins(trt.Logger(trt.Logger.ERROR), "")
    registry = trt.get_plugin_registry()
    creators = [registry.get_creator(_OWN, version, "") for version in "12"] if registry else []
    if not any(creator is not None for creator in creators):
        return False, f"{_named(library)} has no {_OWN}; it came with 10.1"
    if gpu is None:
        return False, NO_GPU
    return True, "FP32 only, to measure against: in FP16 it rounds sampling coordinates"


_ROUTES: dict[str, Callable[[Flavour, Gpu | None], Answer]] = {
    "plugin in the engine": _ahead_of_time,
    "plugin in Python": _python,
    _PLUGIN_FREE: _gridsample,
    "the library's own plugin": _own_plugin,
}


def _with_kernel(gpu: Gpu | None, detail: str) -> Answer:
    if gpu is None:
        return False, NO_GPU
    try:
        kernel = kernels.choose(gpu.compute_capability, "fp16")
    except UserError as error:
        return False, f"{error.found}; {error.hint}"
    return True, f"kernel for {kernel.arch} on {gpu.target}: {detail}"


def _missing(title: str, name: str, error: MissingLibrary) -> str:
    """Short, where it is only not installed: the line stands there once for each route."""
    if not error.found.endswith("not installed"):
        return error.found
    where = {
        "tensorrt": "pip install 'edge-restore[gpu]'; on a Jetson apt-get install "
        "python3-libnvinfer",
        "rtx": "pip install 'edge-restore[rtx]'",
    }
    return f"{title} is not installed: {where[name]}"


def _named(library: Flavour) -> str:
    return f"{library.title} {library.version}"
