"""What `python -m train` writes: never an input or another output, and a message when it cannot."""

import os
import resource
import shutil

import pytest

from edge_restore.errors import SinkError
from tests.train.test_command import TINY
from train import checkpoint
from train.__main__ import main

ABLATION = """
title = "t"
measured = "x"
[recipe]
network = "svdn"
arguments = {width = 8}
[recipe.data]
patch = 32
batch = 2
[recipe.optimiser]
steps = 1
[recipe.validation]
every = 1
patches = 1
size = 32
[[rows]]
name = "row"
psnr = 1.0
ssim = 0.5
"""


@pytest.fixture(scope="module")
def template(photos, pack_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    shutil.copytree(photos, folder / "photos")
    shutil.copy(pack_file, folder / "pack.npz")
    (folder / "tiny.toml").write_text(TINY)
    (folder / "table.toml").write_text(ABLATION)
    (folder / "log").write_text("step 1 3.2 min loss 0.1 rate 1e-03 PSNR 26.3 dB (+0.1) SSIM 0.7\n")
    pack = str(folder / "pack.npz")
    assert main(["run", str(folder / "tiny.toml"), "--data", pack, "--out", str(folder / "a")]) == 0
    return folder


@pytest.fixture
def room(template, tmp_path, monkeypatch):
    room = tmp_path / "room"
    shutil.copytree(template, room)
    monkeypatch.chdir(room)
    return room


def content(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


RUN = ["run", "tiny.toml", "--data", "pack.npz"]
AVERAGE = ["average", "a/svdn.safetensors", "a/svdn.safetensors", "--data", "pack.npz"]
EXPLAIN = ["explain", "photos/photo0.png", "--weights", "a/svdn.safetensors"]


@pytest.mark.parametrize(
    "words",
    [
        ["pack", "photos", "--out", "photos/photo0.png"],
        ["pack", "photos", "--out", "photos/new.jpg"],
        ["pack", "photos", "--out", "photos/new.mp4"],
        ["pack", "--dataset", "pairs", "x", "--photos", "photos", "--out", "photos/photo1.png"],
        [*RUN, "--init", "a/svdn.safetensors", "--out", "a"],
        ["ablation", "ablation.json", "--data", "pack.npz", "--out", "."],
        ["ablation", "table.toml", "--data", "row/checkpoint.pt", "--out", "."],
        [*AVERAGE, "--out", "a/svdn.safetensors"],
        [*AVERAGE, "--out", "a/svdn.new"],
        [*AVERAGE, "--out", "pack.npz"],
        ["blur", "photos", "--out", "photos/..", "--task", "denoise", "--severity", "light"],
        ["blur", "sharp", "--out", "."],
        ["blur", "photos/photo0.png", "--sheet", "photos/photo0.png"],
        [*EXPLAIN, "--out", "photos/photo0.png"],
        [*EXPLAIN, "--out", "a/svdn.card.json"],
        ["curves", "log", "--out", "log"],
    ],
    ids=" ".join,
)
def test_command_refused_when_an_output_is_an_input(words, room, capsys):
    if words[1] == "ablation.json":
        shutil.copy("table.toml", "ablation.json")
    if "row/checkpoint.pt" in words:
        os.mkdir("row")
        shutil.copy("pack.npz", "row/checkpoint.pt")
    if words[:2] == ["blur", "photos"]:
        os.mkdir("input")
        os.link("photos/photo0.png", "input/photo0.png")
    shutil.copytree("photos", "sharp")
    before = content(room)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "itself" in error or "would lie among" in error, error
    assert content(room) == before


WRITING = {
    "pack": ["pack", "photos", "--out", "{}.npz"],
    "run": [*RUN, "--out", "{}"],
    "ablation": ["ablation", "table.toml", "--data", "pack.npz", "--out", "{}"],
    "average": [*AVERAGE, "--out", "{}.safetensors"],
    "blur": ["blur", "photos", "--out", "{}", "--count", "1"],
    "networks": ["networks", "--costs", "{}.json"],
    "explain": [*EXPLAIN, "--out", "{}.png"],
    "curves": ["curves", "log", "--out", "{}.png"],
}


@pytest.mark.parametrize("place", ["log/x", "/proc/self/x", "y" * 300, "pipe"])
@pytest.mark.parametrize("name", WRITING)
def test_command_refused_when_its_place_takes_no_file(name, place, room, capsys):
    words = [word.replace("{}", place) for word in WRITING[name]]
    if place == "pipe":
        os.mkfifo(words[words.index("--costs" if name == "networks" else "--out") + 1])
    before = content(room)
    assert main(words) == 2
    assert "expected" in capsys.readouterr().err
    assert content(room) == before


@pytest.mark.parametrize("name", WRITING)
def test_file_size_limit_is_a_message_and_nothing_is_left(name, room, capsys):
    if name == "networks":
        pytest.skip("takes minutes")
    words = [word.replace("{}", "out") for word in WRITING[name]]
    before = content(room)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        code = main(words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert "File too large" in capsys.readouterr().err
    assert content(room) == before


def test_checkpoint_stays_when_the_next_one_does_not_fit(tmp_path):
    import torch

    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"a": torch.ones(10)})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(SinkError, match="File too large"):
            checkpoint.save(path, {"a": torch.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
