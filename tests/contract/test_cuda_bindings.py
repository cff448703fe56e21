"""Every name of cuda-bindings in our source exists in the version that is installed.

PyCUDA cannot be checked like that: it is compiled against CUDA where it is installed. Its names
were read in the source of 2026.1.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from edge_restore.backends import cuda

OWNERS = ("driver", "_driver")


def names(text: str) -> set[tuple[str, ...]]:
    """What follows `driver.` or `self._driver.`."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        chain: list[str] = []
        while isinstance(node, ast.Attribute):
            if node.attr in OWNERS:
                break
            chain.insert(0, node.attr)
            node = node.value
        owned = isinstance(node, ast.Name) and node.id in OWNERS
        if chain and (owned or (isinstance(node, ast.Attribute) and node.attr in OWNERS)):
            found.add(tuple(chain))
    return found


def missing(text: str) -> list[str]:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    lacking = []
    for chain in sorted(names(text)):
        owner = driver
        for name in chain:
            owner = getattr(owner, name, None)
        if owner is None:
            lacking.append(".".join(chain))
    return lacking


def test_every_name_exists() -> None:
    text = Path(cuda.__file__).read_text(encoding="utf-8")
    assert ("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL") in names(text)
    assert ("cuGraphLaunch",) in names(text)
    assert len(names(text)) >= 9
    assert missing(text) == []


def test_a_name_that_does_not_exist_is_found() -> None:
    assert missing("self._driver.cuStreamWish(1)\ndriver.CUresult.NO_SUCH") == [
        "CUresult.NO_SUCH", "cuStreamWish",
    ]  # fmt: skip


def test_it_is_the_module_that_the_backend_imports() -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    assert cuda._bindings() is importlib.import_module("cuda.bindings.driver")
