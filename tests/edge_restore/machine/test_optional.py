"""Packages that are missing, and packages that are installed and cannot be loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_restore.errors import DependencyError
from edge_restore.machine import optional

ROOT = Path(optional.__file__).parents[2]

FAILURES = {
    "ImportError('libGL.so.1: cannot open shared object file: No such file or directory')": (
        "libGL.so.1"
    ),
    "OSError('libcudart.so.12: cannot open shared object file: No such file or directory')": (
        "libcudart.so.12"
    ),
    "ImportError('undefined symbol: x')": "undefined symbol",
    "ModuleNotFoundError(\"No module named 'flatbuffers'\", name='flatbuffers')": "flatbuffers",
    "RuntimeError('compiled against another ABI')": "another ABI",
    "AttributeError('_ARRAY_API not found')": "_ARRAY_API",
}


def broken(folder: Path, module: str, failure: str) -> dict[str, str]:
    """An environment in which `module` is installed and fails to load."""
    package = folder / module
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {failure}\n")
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.mark.parametrize("failure", FAILURES)
def test_library_that_cannot_be_loaded_is_not_called_missing(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(tmp_path, "unloadable", failure)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DependencyError) as caught:
        optional.require("unloadable", needed_for="a test")
    assert caught.value.found.startswith(
        "the package 'unloadable' is installed and cannot be loaded: "
    )
    assert FAILURES[failure] in caught.value.found
    assert "not installed" not in str(caught.value)
    assert caught.value.hint != "pip install unloadable"


def test_package_that_is_missing() -> None:
    with pytest.raises(DependencyError, match="'not-there' is not installed") as caught:
        optional.require("not-there", needed_for="a test")
    assert caught.value.hint == "pip install not-there"
    error = ModuleNotFoundError("No module named 'onnxsim'", name="onnxsim")
    assert optional.explained(error, needed_for="x").hint == "pip install 'edge-restore[export]'"


def test_opencv_without_a_desktop_names_both_ways_out() -> None:
    error = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    hint = optional.explained(error, "cv2", needed_for="x").hint
    assert "apt-get install libgl1 libglib2.0-0" in hint
    assert "opencv-python-headless" in hint or "opencv-python" not in _installed()


def _installed() -> set[str]:
    from importlib import metadata

    return {str(each.metadata["Name"]) for each in metadata.distributions()}


COMMANDS = [
    ("cv2", "-m edge_restore evaluate --blurred a.png --sharp b.png"),
    ("av", "-m edge_restore run a.mp4 --out b.mp4"),
    ("numpy", "-m edge_restore run a.mp4 --out b.mp4"),
    ("torch", "-m train networks"),
    ("torch", "-m train train/recipes/svdn_cpu.toml --data x.npz --out y"),
    ("onnx", "-m calibration layers svdn"),
    ("onnx", "-m export svdn --weights x.safetensors --out y.onnx"),
    ("torch", "-m export svdn --weights x.safetensors --out y.onnx"),
    ("triton", "-m export.deform_conv compile --out ptx"),
]


@pytest.mark.parametrize("missing", [False, True], ids=["broken", "missing"])
@pytest.mark.parametrize(("module", "command"), COMMANDS)
def test_commands_say_which(module: str, command: str, missing: bool, tmp_path: Path) -> None:
    failure = (
        f"ModuleNotFoundError('No module named {module}', name='{module}')"
        if missing
        else f"ImportError('libx.so.1: cannot open shared object file', name='{module}')"
    )
    environment = broken(tmp_path, module, failure)
    work = tmp_path / "work"
    work.mkdir()
    for name in ("a.png", "b.png", "a.mp4"):
        (work / name).write_bytes(b"x")
    words = [str(ROOT / word) if word.endswith(".toml") else word for word in command.split()]
    result = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=work,
        check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    expected = "is not installed" if missing else "is installed and cannot be loaded: libx.so.1"
    assert expected in result.stderr, result.stderr


@pytest.mark.parametrize("module", ["cv2", "av", "onnxruntime", "openvino"])
def test_doctor_says_why_a_library_cannot_be_loaded(module: str, tmp_path: Path) -> None:
    failure = "ImportError('libGL.so.1: cannot open shared object file')"
    result = subprocess.run(
        [sys.executable, "-m", "edge_restore", "doctor"], capture_output=True, text=True,
        env=broken(tmp_path, module, failure), check=False, timeout=120,
    )  # fmt: skip
    lines = [line for line in result.stdout.splitlines() if "libGL.so.1" in line]
    assert any("is installed and cannot be loaded" in line for line in lines), result.stdout
    assert result.stderr == ""
