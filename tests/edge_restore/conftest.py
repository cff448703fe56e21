"""What several tests of the runtime share: evaluation data and small ONNX models."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

from edge_restore.backends import autoselect as choice

DATA = Path(os.environ.get("EDGE_RESTORE_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(autouse=True)
def auto_is_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU "auto" measures which backend is fastest; test_choice.py tests that."""
    monkeypatch.setattr(choice, "fastest", lambda models, *, threads=None: "onnxruntime")


@pytest.fixture
def real_clip() -> Path:
    """A real camera's video: H.264 at 30000/1001 frames per second, full range, AAC sound."""
    path = DATA / "eval" / "video" / "gopro_heromode.mp4"
    if not path.is_file():
        pytest.skip(f"evaluation data is missing: {path}; set EDGE_RESTORE_DATA to its folder")
    return path


_WORKBENCH = ("train", "export", "calibration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip commands of the packages that do not come with the wheel, where it is tested alone."""
    absent = [name for name in _WORKBENCH if importlib.util.find_spec(name) is None]
    for item in items:
        if item.path.name not in ("test_process.py", "test_optional.py"):
            continue
        words = re.split(r"[\[\] .-]+", item.name)
        if any(name in words for name in absent):
            item.add_marker(pytest.mark.skip(reason="that package is not beside the wheel"))
