"""The device's package stands alone: no workbench package, no torch, lazy heavy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edge_restore

ROOT = Path(edge_restore.__file__).parent
FORBIDDEN = {"torch", "train", "export", "calibration", "onnx", "safetensors", "tests"}

IMPORT_ALL = """
import importlib, pkgutil, sys
import edge_restore
names = [m.name for m in pkgutil.walk_packages(edge_restore.__path__, "edge_restore.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
loaded = {name.partition(".")[0] for name in sys.modules}
print(len(names), *sorted(loaded & {"torch", "train", "export", "calibration", "onnx"}))
"""

# Stands for a machine where nothing but Python is installed.
BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Absent())
from edge_restore.cli import main
sys.exit(main(sys.argv[2:]))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        check=False,
    )


def test_importing_everything_touches_no_torch() -> None:
    result = python(IMPORT_ALL)
    assert result.returncode == 0, result.stderr
    count, *touched = result.stdout.split()
    assert int(count) > 30
    assert touched == []


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_source_imports_the_workbench(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            roots = {(node.module or "").partition(".")[0]}
        else:
            continue
        assert not roots & FORBIDDEN


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["evaluate"],
        ["models"],
        ["build"],
        ["engines"],
        ["doctor"],
        ["demo"],
        ["bench"],
    ],
)
def test_help_needs_nothing_installed(command: list[str]) -> None:
    result = python(BARE, "numpy,cv2,av,onnxruntime", *command, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: edge-restore")
    assert result.stderr == ""


@pytest.mark.parametrize(
    "absent", ["numpy", "cv2", "av", "onnxruntime,openvino", "cv2,av,onnxruntime,openvino"]
)
def test_doctor_names_what_is_missing(absent: str) -> None:
    result = python(BARE, absent, "doctor")
    assert result.returncode == 2, result.stderr
    for module in absent.split(","):
        name = {"cv2": "opencv-python", "openvino": "'edge-restore[openvino]'"}.get(module, module)
        assert f"pip install {name}" in result.stdout
    assert "cannot work here yet" in result.stdout
    assert result.stderr == ""


def test_every_module_is_small() -> None:
    for path in ROOT.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines < 500, f"{path.name} has {lines} lines"
