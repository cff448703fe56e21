"""Registers the deformable convolution with TensorRT, by the route that this TensorRT has.

A deformable convolution comes into an engine by one of four routes:

(a) "aot", from TensorRT 10.9 on: a quick plugin compiled ahead of time (`quick_plugin`). The PTX
    goes into the engine, which then runs under trtexec and C++ without any plugin library.
(b) "python", TensorRT 10.0 to 10.8 (JetPack 6): an IPluginV3 in Python (`plugin_v3`) that launches
    the same PTX. Its creator must be registered before the engine is loaded, and the engine runs
    in Python alone.
(c) GridSample: the export writes the convolution as GridSample and 1x1 convolutions. No plugin, so
    nothing to register; the only route of TensorRT-RTX, which takes no plugins.
(d) TensorRT's own plugin ModulatedDeformConv2d, from 10.1 on, which its ONNX parser uses for the
    standard node DeformConv. A reference to measure against, in FP32 only: in FP16 it rounds the
    sampling coordinate itself to half, which is a step of 1 pixel right of x = 1024. The builder
    refuses it in FP16. It takes linear (NCHW) tensors and 2*25*C*H*W bytes of workspace.

Which of (a) and (b) there is, is asked of the library (`hasattr`), never of its version. Neither
has yet run on a GPU: `pytest -m gpu tests/gpu` checks both. On a CPU, tests/contract calls the
plugin classes through TensorRT's real Python bindings.
"""

from __future__ import annotations

import importlib
from typing import Any

from edge_restore.engine.gpu import this_gpu
from edge_restore.engine.plugin import kernels
from edge_restore.engine.plugin.deform_conv import NAMESPACE, OPERATOR, VERSION
from edge_restore.engine.plugin.kernels import Kernel
from edge_restore.errors import BackendError

ROUTES = ("aot", "python")
"""Best first."""

_creators: list[Any] = []
"""Creators given to a registry, which does not keep them alive itself."""


def register(
    trt: Any, *, route: str | None = None, compute_capability: tuple[int, int] | None = None
) -> str:
    """Make the node `deform_conv.OPERATOR` known to TensorRT; harmless when it is already.

    Call it before an ONNX file with that node is parsed, and before an engine of the route "python"
    is loaded.

    Args:
        trt: the module `tensorrt`.
        route: one of `ROUTES`; None takes the best one that there is.
        compute_capability: of the GPU that kernels are chosen for; None asks the driver when the
            kernel is wanted.

    Returns:
        The route, one of `ROUTES`.

    Raises:
        BackendError: this library takes no plugins, or lacks `route`, or the node is already known
            by another route.
    """
    possible = routes(trt)
    if route is not None and route not in possible:
        raise BackendError(
            f"{_named(trt)} has no plugins of the route '{route}'",
            expected=f"one of {', '.join(possible) or '(it has none)'}",
            hint="leave the route out, or export the model with --deformable GridSample",
        )
    if not possible:
        raise BackendError(
            f"{_named(trt)} takes no plugins, so it cannot run the node {OPERATOR}",
            expected="TensorRT 10 or newer, the standard library",
            hint="export the model with --deformable GridSample, which needs no plugin",
        )
    _target.compute_capability = compute_capability
    known = registered(trt)
    if known is None:
        known = route or possible[0]
        if known == "aot":
            from edge_restore.engine.plugin import quick_plugin

            quick_plugin.define(trt, _plugin_module(trt), _target.kernel)
        else:
            from edge_restore.engine.plugin import plugin_v3

            creator = plugin_v3.make_creator(trt, _target.kernel)
            if not trt.get_plugin_registry().register_creator(creator, NAMESPACE):
                raise BackendError(
                    f"{_named(trt)} refused the plugin {NAMESPACE}::{OPERATOR}",
                    expected="a registry without a plugin of that name",
                    hint="start a new process; report it if it happens again",
                )
            _creators.append(creator)
    if route is not None and known != route:
        raise BackendError(
            f"the plugin {NAMESPACE}::{OPERATOR} is already registered by the route '{known}'",
            expected=f"a process that has not, to use '{route}'",
            hint="use one route in one process",
        )
    return known


def routes(trt: Any) -> tuple[str, ...]:
    """The plugin routes that the library `trt` has, best first."""
    if not takes_plugins(trt):
        return ()
    found = []
    if hasattr(trt, "QuickPluginCreationRequest") and _plugin_module(trt) is not None:
        found.append("aot")
    if hasattr(trt, "IPluginV3OneBuild") and hasattr(trt, "IPluginCreatorV3One"):
        found.append("python")
    return tuple(found)


def takes_plugins(trt: Any) -> bool:
    """Whether the library runs plugins. TensorRT-RTX has the classes and does not."""
    return not trt.__name__.startswith("tensorrt_rtx")


def registered(trt: Any) -> str | None:
    """The route by which the node is already known to `trt` in this process, or None."""
    if (module := _plugin_module(trt)) is not None:
        namespace = getattr(module.op, NAMESPACE, None)
        if namespace is not None and hasattr(namespace, OPERATOR):
            return "aot"
    registry = trt.get_plugin_registry()
    if registry is not None and registry.get_creator(OPERATOR, VERSION, NAMESPACE) is not None:
        return "python"
    return None


class _Target:
    """Chooses kernels for the GPU that the engine is for."""

    compute_capability: tuple[int, int] | None = None

    def kernel(self, precision: str, alignment: int) -> Kernel:
        """See `kernels.choose`; BackendError where there is no GPU to ask."""
        capability = self.compute_capability
        if capability is None:
            if (gpu := this_gpu()) is None:
                raise BackendError(
                    f"the kernel of {OPERATOR} cannot be chosen: no GPU is here",
                    expected="an NVIDIA GPU with its driver",
                    hint="build on the machine that will run the engine",
                )
            capability = gpu.compute_capability
        return kernels.choose(capability, precision, alignment)


_target = _Target()


def _plugin_module(trt: Any) -> Any | None:
    """The module tensorrt.plugin with ahead-of-time plugins, or None.

    It is a part of the bindings, which some packages keep under a name of their own.
    """
    if not hasattr(trt, "QuickPluginCreationRequest"):
        return None
    for package in (trt.__name__, "tensorrt_bindings"):
        try:
            module = importlib.import_module(f"{package}.plugin")
        except ImportError:
            continue
        if hasattr(module, "aot_impl") and hasattr(module, "KernelLaunchParams"):
            return module
    return None


def _named(trt: Any) -> str:
    return f"{trt.__name__} {getattr(trt, '__version__', '(unknown version)')}"
