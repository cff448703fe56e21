"""Packages that not every installation has: loaded when they are needed, and named when they fail.

A package that is not installed and one that cannot be loaded are two things. OpenCV's usual wheel
wants libraries of a desktop, for example, which no server has; to install it again helps nobody.
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib import metadata
from types import ModuleType

from edge_restore.errors import DependencyError

_DISTRIBUTIONS = {
    # module: the distribution that pip knows, and the extra of edge-restore that brings it
    "numpy": ("numpy", ""),
    "cv2": ("opencv-python", ""),
    "av": ("av", ""),
    "onnxruntime": ("onnxruntime", ""),
    "openvino": ("openvino", "openvino"),
    "onnx": ("onnx", "export"),
    "onnxscript": ("onnxscript", "export"),
    "onnxsim": ("onnxsim", "export"),
    "polygraphy": ("polygraphy", "export"),
    "triton": ("triton", "export"),
    "torch": ("torch", "train"),
    "safetensors": ("safetensors", "train"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "tomli": ("tomli", "train"),
    "tensorrt": ("tensorrt", "gpu"),
    "tensorrt_rtx": ("tensorrt-rtx", "rtx"),
    "pycuda": ("pycuda", ""),
    "cuda": ("cuda-bindings", "gpu"),
}

_MISSING_LIBRARY = re.compile(r"\b(lib[\w.+-]+\.so[.\d]*): cannot open shared object file")


def require(module: str, *, needed_for: str) -> ModuleType:
    """Import `module`, of an optional package.

    Args:
        needed_for: what needs it, for the message, e.g. "reading video files".

    Raises:
        DependencyError: it is not installed, or is and cannot be loaded, with the loader's reason.
    """
    if module.partition(".")[0] == "openvino":
        # Imported, OpenVINO tells its maker, unless this package of its own cannot be imported.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(module)
    except Exception as error:  # extension modules raise whatever they like while they load
        raise explained(error, module, needed_for=needed_for) from error


def explained(
    error: BaseException, module: str = "", *, needed_for: str, extras: str = ""
) -> DependencyError:
    """What is said of an `error` that was raised by the import of `module`, or names it itself.

    Args:
        extras: of edge-restore that bring all that is needed, where the package's own does not.
    """
    named = (getattr(error, "name", None) or "").partition(".")[0]
    asked = module.partition(".")[0] or named
    distribution, extra = _DISTRIBUTIONS.get(asked, (asked, ""))
    extra = extra and (extras or extra)
    if isinstance(error, ModuleNotFoundError) and named == asked:
        return DependencyError(distribution, needed_for=needed_for, extra=extra)
    reason = first_line(error)
    return DependencyError(
        distribution, needed_for=needed_for, extra=extra, reason=reason,
        hint=_hint(distribution, error, reason),
    )  # fmt: skip


def is_optional(error: ImportError) -> bool:
    """Whether an import failed that is of a package of ours that may be missing."""
    return (error.name or "").partition(".")[0] in _DISTRIBUTIONS


def first_line(error: BaseException) -> str:
    """What the loader says first."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _hint(distribution: str, error: BaseException, reason: str) -> str:
    if distribution == "opencv-python" and _MISSING_LIBRARY.search(reason):
        wheel = "opencv-python-headless"
        try:
            wheel += f"=={metadata.version(distribution)}"
        except metadata.PackageNotFoundError:  # a system's own OpenCV
            return "apt-get install libgl1 libglib2.0-0"
        return (
            "apt-get install libgl1 libglib2.0-0; or, without them, the wheel for servers: "
            f"pip uninstall {distribution} && pip install {wheel}"
        )
    if missing := _MISSING_LIBRARY.search(reason):
        return f"install the system's package that has {missing[1]}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        other = error.name.partition(".")[0]
        return f"pip install {_DISTRIBUTIONS.get(other, (other, ''))[0]}"
    return f"pip install --force-reinstall {distribution}"
