"""In a child process: which of the given dotted names TensorRT has, and how they are called."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from typing import Any

from tests.contract.bindings import answer

NOTHING = object()


def describe(module: Any, path: list[str]) -> dict[str, Any]:
    found: Any = module
    for place, name in enumerate(path):
        if name == "plugin" and not hasattr(found, "plugin"):
            try:
                importlib.import_module(f"{module.__name__}.plugin")
            except ImportError:
                return {"exists": False, "missing": place}
        found = inspect.getattr_static(found, name, NOTHING) if inspect.isclass(found) else getattr(
            found, name, NOTHING
        )  # fmt: skip
        if found is NOTHING:
            return {"exists": False, "missing": place}
    called = found.__init__ if inspect.isclass(found) else found
    python = inspect.isfunction(called)
    return {
        "exists": True,
        "python": _python_signature(called) if python else None,
        "doc": "" if python else str(getattr(called, "__doc__", None) or ""),
        "member": isinstance(found, int) or "enum" in type(found).__name__.lower(),
    }


def _python_signature(function: Any) -> list[list[Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [[p.name, p.default is not p.empty] for p in parameters]


def main() -> None:
    module = importlib.import_module(os.environ.get("TENSORRT_MODULE", "tensorrt_bindings"))
    sys.modules.setdefault("tensorrt", module)
    paths = json.load(sys.stdin)
    answer({".".join(path): describe(module, path) for path in paths})


if __name__ == "__main__":
    main()
