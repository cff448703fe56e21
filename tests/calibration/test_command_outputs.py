"""What `python -m calibration` writes: never an input or another output."""

import os
import shutil

import pytest

from calibration.__main__ import main
from edge_restore.media.images import write_png
from tests.calibration.conftest import picture


@pytest.fixture
def room(models, frames_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for side in ("blurred", "sharp"):
        os.makedirs(f"pairs/{side}")
        write_png(f"pairs/{side}/a.png", picture(1))
    os.mkdir("frames")
    for number in range(5):
        write_png(f"frames/{number}.png", picture(number))
    for name in ("svdn.onnx", "svdn.card.json"):
        shutil.copy(models["fp32"].with_name(name), name)
    shutil.copy(frames_file, "frames.npz")
    for name in ("clip.mp4", "scales.json", "x.safetensors", "recipe.toml"):
        with open(name, "w") as file:
            file.write(name)
    return tmp_path


def content(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


QUANTISE = ["quantise", "svdn.onnx"]
SENSITIVITY = ["sensitivity", "svdn.onnx", "--frames", "frames.npz", "--pairs", "pairs"]


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "clip.mp4", "--out", "clip.mp4"],
        ["collect", "clip.mp4", "--out", "frames/../clip.mp4"],
        ["collect", "frames", "--out", "frames/1.png"],
        ["collect", "frames", "--out", "frames/new.png"],
        ["collect", "frames", "--out", "hard.npz"],
        [*QUANTISE, "--frames", "frames.npz", "--out", "svdn.onnx"],
        [*QUANTISE, "--scales", "scales.json", "--out", "q.onnx", "--scales-out", "scales.json"],
        [*QUANTISE, "--frames", "frames.npz", "--out", "q.onnx", "--scales-out", "frames.npz"],
        [*QUANTISE, "--frames", "frames.npz", "--out", "q.onnx", "--scales-out", "svdn.card.json"],
        [*QUANTISE, "--frames", "frames.npz", "--out", "q.onnx", "--scales-out", "q.card.json"],
        [*QUANTISE, "--frames", "frames.npz", "--out", "q.onnx", "--scales-out", "q.onnx"],
        [*SENSITIVITY[:3], "scales.json", *SENSITIVITY[4:], "--out", "."],
        ["check", "svdn.onnx", "--reference", "svdn.onnx", "--pairs", "pairs"],
        ["qat", "recipe.toml", "--scales", "scales.json", "--init", "x.safetensors",
         "--data", "frames.npz", "--out", "."],
    ],
    ids=" ".join,
)  # fmt: skip
def test_command_refused_when_an_output_is_an_input_or_another_output(words, room, capsys):
    os.link("frames/1.png", "hard.npz")
    before = content(room)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "itself" in error or "same file" in error or "would lie among" in error, error
    assert content(room) == before


@pytest.mark.parametrize("place", ["clip.mp4/x", "/proc/self/x", "y" * 300, "pipe"])
@pytest.mark.parametrize(
    "words",
    [
        ["collect", "frames", "--out", "{}.npz"],
        [*QUANTISE, "--frames", "frames.npz", "--out", "{}.onnx"],
        [*QUANTISE, "--frames", "frames.npz", "--out", "q.onnx", "--scales-out", "{}.json"],
        [*SENSITIVITY, "--out", "{}"],
    ],
)
def test_command_refused_when_its_place_takes_no_file(words, place, room, capsys):
    words = [word.replace("{}", place) for word in words]
    if place == "pipe":
        os.mkfifo(words[-1])
    before = content(room)
    assert main(words) == 2
    assert "expected" in capsys.readouterr().err
    assert content(room) == before


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "pipe", "--out", "x.npz"],
        [*QUANTISE, "--frames", "pipe", "--out", "x.onnx"],
        [*QUANTISE, "--scales", "pipe", "--out", "x.onnx"],
        ["quantise", "pipe.onnx", "--frames", "frames.npz", "--out", "x.onnx"],
        ["check", "pipe.onnx", "--reference", "svdn.onnx", "--pairs", "pairs"],
        ["check", "svdn.onnx", "--reference", "pipe.onnx", "--pairs", "pairs"],
        ["layers", "pipe.onnx"],
        ["qat", "recipe.toml", "--scales", "pipe", "--init", "x.safetensors",
         "--data", "frames.npz", "--out", "new"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_command_refused_at_once_when_an_input_is_a_pipe(words, room, capsys):
    os.mkfifo("pipe")
    os.mkfifo("pipe.onnx")
    shutil.copy("svdn.card.json", "pipe.card.json")
    assert main(words) == 2
    assert "a pipe" in capsys.readouterr().err
