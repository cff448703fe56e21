"""Restores blurred video in a streaming pipeline on the machine that films it.

>>> import edge_restore as er
>>> with er.open("svdn") as restorer:
...     sharp = restorer(blurred)
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from edge_restore.api import (
        ImageRestorer,
        Model,
        build_engine,
        evaluate,
        frames,
        models,
        open,
        run,
    )
    from edge_restore.errors import EdgeRestoreError, UserError
    from edge_restore.frames import Frame

__version__ = "0.1.0"

# ONNX Runtime reads this once, when it is loaded. Its wheels for Linux send what they run to their
# maker from 1.29 on unless it is set; no package here does without it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = [
    "EdgeRestoreError",
    "Frame",
    "ImageRestorer",
    "Model",
    "UserError",
    "__version__",
    "build_engine",
    "evaluate",
    "frames",
    "models",
    "open",
    "run",
]

_PLACES = {"EdgeRestoreError": "errors", "UserError": "errors", "Frame": "frames"}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: importing the package is light."""
    if name not in __all__:
        raise AttributeError(f"module 'edge_restore' has no attribute '{name}'")
    import importlib

    module = importlib.import_module(f"edge_restore.{_PLACES.get(name, 'api')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(type(sys)):  # type: ignore[misc]
    """Keeps `frames` and `models` the functions, though a module and a room are called so too."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, type(sys))):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
