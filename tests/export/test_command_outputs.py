"""What `python -m export` writes: never an input."""

import os

import pytest

from export.__main__ import main


def export(*words):
    return main(["svdn", *map(str, words)])


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("svdn.safetensors", "svdn.card.json"):
        (tmp_path / name).write_text(name)
    return tmp_path / "svdn.safetensors"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("out", ["svdn.onnx", "./svdn.onnx", "hard.onnx"])
def test_export_refused_when_it_would_overwrite_the_weights_or_their_card(
    weights, out, tmp_path, capsys
):
    os.link(weights, "hard.onnx")
    before = content(tmp_path)
    assert export("--weights", weights, "--out", out) == 2
    assert "itself" in capsys.readouterr().err
    assert content(tmp_path) == before


@pytest.mark.parametrize("out", ["new/x", "svdn.safetensors/x", "/proc/self/x", "y" * 300, "pipe"])
def test_export_refused_when_its_place_takes_no_file(weights, out, tmp_path, capsys):
    os.mkfifo("pipe.onnx")
    before = content(tmp_path)
    assert export("--weights", weights, "--out", f"{out}.onnx") == 2
    assert "expected" in capsys.readouterr().err
    assert content(tmp_path) == before


def test_export_refused_at_once_when_the_weights_are_a_pipe(tmp_path, capsys):
    os.mkfifo(tmp_path / "w.safetensors")
    out = tmp_path / "x.onnx"
    assert export("--weights", tmp_path / "w.safetensors", "--out", out) == 2
    assert "is a pipe" in capsys.readouterr().err
