"""What this machine can run, asked of the libraries themselves."""

from __future__ import annotations

from dataclasses import dataclass

from edge_restore.errors import DependencyError, UserError
from edge_restore.machine import optional


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what, e.g. "H.264 encoder".
        ok: whether it is there and works.
        required: whether `edge-restore run` needs it.
        detail: what was found.
        hint: what to do about it; empty when there is nothing to do.
    """

    name: str
    ok: bool
    required: bool
    detail: str
    hint: str = ""


def diagnose() -> list[Check]:
    """Look at everything, the required things first."""
    numpy = _library("numpy", "numpy", "frames")
    if not numpy.ok:  # nothing else of the package can even be asked
        return [numpy]
    return [
        numpy,
        _library("cv2", "opencv-python", "images"),
        _library("av", "av", "video files"),
        _codec("h264", "r"),
        _codec("libx264", "w"),
        *_backends(),
        *_models(),
        _optional("tensorrt", "tensorrt", "gpu"),
        _optional("tensorrt_rtx", "tensorrt-rtx", "rtx"),
        _optional("pycuda", "pycuda", "gpu"),
        _optional("cuda.bindings", "cuda-bindings", "gpu"),
        *_routes(),
    ]


def _library(module: str, distribution: str, purpose: str) -> Check:
    name = f"{distribution} ({purpose})"
    try:
        found = optional.require(module, needed_for="edge-restore")
    except DependencyError as error:
        return Check(name, False, True, error.found, error.hint)
    return Check(name, True, True, str(getattr(found, "__version__", "unknown version")))


def _codec(codec: str, mode: str) -> Check:
    name = "H.264 decoder" if mode == "r" else "H.264 encoder (libx264)"
    try:
        av = optional.require("av", needed_for="video files")
        av.codec.Codec(codec, "r" if mode == "r" else "w")
    except DependencyError as error:
        return Check(name, False, True, "cannot be asked without av", error.hint)
    except ValueError:  # PyAV's UnknownCodecError
        return Check(
            name,
            False,
            True,
            "this build of FFmpeg has none",
            "install the av wheel from PyPI, whose FFmpeg has it",
        )
    return Check(name, True, True, "present in PyAV's FFmpeg")


def _backends() -> list[Check]:
    from edge_restore import backends

    statuses = backends.available()
    any_works = any(status.available for status in statuses)
    return [
        Check(
            f"backend {status.name}",
            status.available,
            required=not any_works and status.name == "onnxruntime",
            detail=status.detail,
            hint=status.hint,
        )
        for status in statuses
    ]


def _models() -> list[Check]:
    """Make a restorer of each shipped model, as `run` would."""
    from edge_restore import backends
    from edge_restore.models import zoo

    checks = []
    for name in zoo.names():
        try:
            restorer = backends.first(zoo.find(name))
        except UserError as error:
            checks.append(Check(f"model {name}", False, True, error.found, error.hint))
        else:
            detail = f"{restorer.card.onnx.file} by {restorer.name}"
            checks.append(Check(f"model {name}", True, True, detail))
            restorer.close()
    if not checks:
        missing = "none is shipped with this build"
        hint = "export one with `python -m export`, and give its path to --model"
        checks.append(Check("models", False, True, missing, hint))
    return checks


def _routes() -> list[Check]:
    """How deformable convolutions can get into an engine, one line for each library and route."""
    from edge_restore.engine import routes

    return [
        Check(f"{status.library}, {status.route}", status.available, False, status.detail)
        for status in routes.statuses()
    ]


def _optional(module: str, distribution: str, extra: str) -> Check:
    try:
        found = optional.require(module, needed_for=f"edge-restore[{extra}]")
    except DependencyError as error:
        return Check(distribution, False, False, error.found, error.hint)
    return Check(distribution, True, False, str(getattr(found, "__version__", "installed")))
