"""The two TensorRT libraries behind one face: the standard one and TensorRT-RTX.

Both have the same Python classes. Where they or their versions differ, the module is asked for the
name (`hasattr`), never for its version.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from edge_restore.engine.gpu import this_gpu
from edge_restore.errors import BackendError, DependencyError, UserError

NAMES = ("tensorrt", "rtx")
CHOICES = ("auto", *NAMES)

_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_TITLES = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
_MEND = {
    "tensorrt": "desktop: pip install 'edge-restore[gpu]'; Jetson: it comes with JetPack, sudo "
    "apt-get install python3-libnvinfer, in a venv made with --system-site-packages",
    "rtx": "pip install 'edge-restore[rtx]'",
}


class MissingLibrary(DependencyError):
    """A TensorRT library that is not installed, or that cannot be loaded here."""

    def __init__(self, names: tuple[str, ...], reason: str) -> None:
        self.package = _MODULES[names[0]]
        titles = " and ".join(_TITLES[name] for name in names)
        UserError.__init__(
            self,
            f"{titles} cannot be used here: {reason}",
            expected=f"the Python package {' or '.join(_MODULES[name] for name in names)}, "
            "which builds engines",
            hint="; or ".join(_MEND[name] for name in names),
        )


@dataclass(frozen=True)
class Flavour:
    """One of the libraries, loaded.

    Attributes:
        name: "tensorrt" or "rtx".
        trt: the module.
        version: of the library, e.g. "11.4.0.106".
    """

    name: str
    trt: Any
    version: str

    @property
    def title(self) -> str:
        """Its name as its maker writes it."""
        return _TITLES[self.name]

    @property
    def network_flags(self) -> int:
        """For `create_network`: strongly typed where the library knows that."""
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    @property
    def chooses_targets(self) -> bool:
        """Whether it can build for GPUs that are not here."""
        trt = self.trt
        return hasattr(trt, "ComputeCapability") and hasattr(
            trt.IBuilderConfig, "set_compute_capability"
        )

    @property
    def has_timing_cache(self) -> bool:
        """Whether measured kernel times are kept. RTX has the calls, but they ask for a GPU."""
        return self.name == "tensorrt" and hasattr(self.trt.IBuilderConfig, "create_timing_cache")


def load(name: str) -> Flavour:
    """The flavour `name`; "auto" takes the standard library where there is a GPU, else RTX.

    Raises:
        BackendError: no such flavour.
        DependencyError: its library is not installed.
    """
    if name not in CHOICES:
        raise BackendError(
            f"there is no flavour '{name}'",
            expected=f"one of {', '.join(CHOICES)}",
            hint="leave --flavour out to take what is installed",
        )
    if name != "auto":
        return _load(name)
    # The standard library builds only for a GPU that is here.
    order = NAMES if this_gpu() is not None else NAMES[::-1]
    reasons = []
    for candidate in order:
        try:
            return _load(candidate)
        except MissingLibrary as error:
            reasons.append(error.found)
    installed = [reason for reason in reasons if not reason.endswith("not installed")]
    raise MissingLibrary(NAMES, "; ".join(installed) or "neither is installed")


def _load(name: str) -> Flavour:
    try:
        trt = importlib.import_module(_MODULES[name])
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == _MODULES[name]
        reason = "not installed" if missing else f"it cannot be loaded: {error}"
        raise MissingLibrary((name,), reason) from error
    except (OSError, RuntimeError) as error:  # a library of the wheel that cannot be loaded
        raise MissingLibrary((name,), f"it cannot be loaded: {error}") from error
    if not hasattr(trt, "Builder"):  # a folder of that name, or a stub without the library
        raise MissingLibrary((name,), f"the module '{_MODULES[name]}' has no Builder")
    return Flavour(name, trt, str(trt.__version__))
