"""The oldest and the newest TensorRT-RTX read the shipped graphs as ONNX means them.

The versions are found in the folders of EDGE_RESTORE_RTX_VERSIONS (separated as in PATH), which
`make test` fills. Parsing needs no GPU.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge_restore.models import zoo
from tests.contract.bindings import ROOT, run_child

onnx = pytest.importorskip("onnx", reason="a graph is changed with onnx")

VARIABLE = "EDGE_RESTORE_RTX_VERSIONS"
FOLDERS = [Path(entry) for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
NEAREST = ("1.4.", "1.5.")
"""Versions that take GridSample's mode "linear" for nearest neighbor."""

versions = pytest.mark.parametrize(
    "folder",
    [
        pytest.param(folder, id=folder.name)
        for folder in FOLDERS
        if (folder / "tensorrt_rtx").is_dir()
    ]
    or [pytest.param(None, marks=pytest.mark.skip(reason=f"{VARIABLE} names no versions"))],
)


def read_back(folder: Path, paths: list[Path]) -> tuple[str, list[str]]:
    """The version in a folder, and what it misreads of each file."""
    environment: dict[str, Any] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    answer = run_child("tests.contract.rtx_child", [str(path) for path in paths], environment)
    return answer["version"], list(answer["found"].values())


@versions
def test_the_shipped_graphs_are_read_as_they_are(folder: Path) -> None:
    paths = {
        path
        for name in zoo.names()
        for precision in ("fp32", "fp16", "int8")
        for path in zoo.engine_files(name, "rtx", precision)
        if path.stem not in ("svdn", "svdn-int8")  # DeformConv, which it has not
    }
    version, found = read_back(folder, sorted(paths))
    assert folder.name in (version, folder.resolve().name) and len(found) >= 7
    assert not any(found), found


@versions
def test_a_mode_that_an_old_parser_misreads_is_refused(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(str(zoo.FOLDER / "svdn-gridsample.onnx"))
    model.opset_import[0].version = 20
    for node in model.graph.node:
        if node.op_type == "GridSample":
            next(a for a in node.attribute if a.name == "mode").s = b"linear"
    path = tmp_path / "linear.onnx"
    onnx.save(model, str(path))
    version, (found,) = read_back(folder, [path])
    if version.startswith(NEAREST):
        assert f"TensorRT-RTX {version} misreads" in found
        assert "(GridSample): mode is NEAREST, and LINEAR in the file" in found
        assert "and 5 more" in found
    else:
        assert found == ""
