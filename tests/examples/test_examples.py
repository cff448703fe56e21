"""The examples run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge_restore

pytest.importorskip("av")
pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

import cv2

from tests.edge_restore.clips import write_clip

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGE = Path(edge_restore.__file__).parents[1]


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )


def test_every_example_has_a_test_here() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))


def test_restore_images(tmp_path: Path) -> None:
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    cv2.imwrite(str(source), np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    done = example("restore_images.py", source, out, "lmfn")
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote" in done.stdout
    assert cv2.imread(str(out)).shape == (48, 64, 3)
    assert example("restore_images.py", tmp_path / "none.png", out).returncode == 1


def test_restore_video(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = example("restore_video.py", write_clip(tmp_path / "clip.mp4", gaps=(3000,) * 3), out)
    assert done.returncode == 0, done.stderr
    assert "3 frames" in done.stdout
    assert out.is_file()
    done = example("restore_video.py", tmp_path / "none.mp4", out)
    assert done.returncode == 1
    assert "there is no file" in done.stderr


def test_own_loop(tmp_path: Path) -> None:
    done = example("own_loop.py", write_clip(tmp_path / "clip.mp4"), 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sharpness") == 2
