"""Every command's outputs: never an input or another output, and a message when unwritable."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_restore.cli import main
from edge_restore.models.cards import card_path
from tests.edge_restore.clips import write_clip
from tests.edge_restore.commands.test_evaluate_command import write_pairs
from tests.edge_restore.onnx_models import write_model

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything that a command reads."""
    folder = tmp_path_factory.mktemp("template")
    write_model(folder)
    write_clip(folder / "clip.mp4", gaps=(3000,) * 3)
    write_pairs(folder / "pairs")
    (folder / "pairs" / "pairs.json").write_text('{"severity": "light"}')
    bench = ["--sizes", "64x64", "--samples", "1", "--seconds", "1"]
    model = ["--model", str(folder / "small.onnx"), "--threads", "1"]
    assert main(["bench", *bench, *model, "--json", str(folder / "report.json")]) == 0
    return folder


@pytest.fixture
def room(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    room = tmp_path / "room"
    shutil.copytree(template, room)
    monkeypatch.chdir(room)
    return room


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


MODEL = ["--model", "small.onnx", "--threads", "1"]
BENCH = ["bench", "--sizes", "64x64", "--samples", "1", "--seconds", "1", *MODEL]
EVALUATE = ["evaluate", "pairs", *MODEL]
RUN = ["run", "clip.mp4", *MODEL]
BUILD = ["build", "small.onnx", "--size", "64x96", "--precision", "fp32"]

HARMFUL = [
    [*RUN, "--out", "clip.mp4"],
    [*RUN, "--out", "./pairs/../clip.mp4"],
    [*RUN, "--out", "x.mp4", "--report", "small.card.json"],
    ["run", "missing.mp4", *MODEL, "--out", "missing.mp4"],
    [*BENCH, "--json", "small.onnx"],
    [*BENCH, "--json", "small.card.json"],
    [*BENCH, "--json", "new", "--html", "new"],
    [*BENCH, "--json", "new", "--html", "pairs/../new"],
    ["bench", "claims", "report.json", "--json", "report.json"],
    [*EVALUATE, "--sheet", "pairs/blurred/a.png"],
    [*EVALUATE, "--sheet", "pairs/sharp/new.png"],
    [*EVALUATE, "--csv", "pairs/sharp/a.png"],
    [*EVALUATE, "--csv", "pairs/pairs.json"],
    [*EVALUATE, "--csv", "small.onnx"],
    [*EVALUATE, "--csv", "x", "--sheet", "x"],
    [*EVALUATE, "--save", "pairs/blurred"],
    [*EVALUATE, "--save", "pairs/sharp"],
    [*EVALUATE, "--save", "new", "--sheet", "new/a.png"],
    ["evaluate", "--blurred", "pairs/blurred/a.png", "--sharp", "pairs/sharp/a.png", *MODEL,
     "--sheet", "pairs/sharp/a.png"],
    [*EVALUATE, "--lpips", "pairs/pairs.json", "--csv", "pairs/pairs.json"],
    [*BUILD, "--log", "small.onnx", "-o", "x.engine"],
    [*BUILD, "--log", "small.card.json", "-o", "x.engine"],
    [*BUILD, "--log", "x.engine", "-o", "x.engine"],
    [*BUILD, "--log", "x.manifest.json", "-o", "x.engine"],
    [*BUILD, "--log", "x.layers.json", "-o", "x.engine"],
    [*BUILD, "--log", "report.json", "--compare", "--reference", "report.json"],
]  # fmt: skip


@pytest.mark.parametrize("words", HARMFUL, ids=" ".join)
def test_command_refused_when_an_output_is_an_input_or_another_output(
    words: list[str], room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(room)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "itself" in error or "same file" in error or "would lie among" in error
    assert content(room) == before


@pytest.mark.parametrize("words", [[*RUN, "--out"], [*BENCH, "--json"], [*EVALUATE, "--sheet"]])
def test_command_refused_when_an_output_is_a_hard_link_to_an_input(
    words: list[str], room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = {"run": "clip.mp4", "bench": "small.onnx", "evaluate": "pairs/sharp/a.png"}[words[0]]
    os.link(victim, "hard.mp4")
    before = content(room)
    assert main([*words, "hard.mp4"]) == 2
    assert "itself" in capsys.readouterr().err
    assert content(room) == before


WRITING = {
    "run": [*RUN, "--out", "{}.mp4"],
    "run-report": [*RUN, "--out", "kept.mp4", "--report", "{}.json"],
    "run-html": [*RUN, "--out", "kept.mp4", "--report", "{}.html"],
    "bench-json": [*BENCH, "--json", "{}.json"],
    "bench-html": [*BENCH, "--html", "{}.html"],
    "claims": ["bench", "claims", "report.json", "--json", "{}.json"],
    "csv": [*EVALUATE, "--csv", "{}.csv"],
    "sheet": [*EVALUATE, "--sheet", "{}.png"],
    "save": [*EVALUATE, "--save", "{}"],
    "demo": ["demo", "--frames", "2", "--size", "64x64", *MODEL, "--out", "{}"],
    "engine": [*BUILD, "-o", "{}.engine"],
    "log": [*BUILD, "-o", "kept.engine", "--log", "{}.log"],
}


def filled(words: list[str], path: str) -> list[str]:
    return [word.format(path) if "{}" in word else word for word in words]


def target(words: list[str], path: str) -> Path:
    return Path(next(word for word in words if "{}" in word).format(path))


@pytest.mark.parametrize("what", ["pipe", "link", "folder", "device"])
@pytest.mark.parametrize("name", WRITING)
def test_command_refused_when_an_output_is_no_plain_file(
    name: str, what: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = target(WRITING[name], "out")
    if what == "pipe":
        os.mkfifo(out)
    elif what == "link" and not out.suffix:
        out.symlink_to("nowhere")
    elif what == "link":
        out.symlink_to("small.onnx")
    elif what == "folder" and not out.suffix:
        pytest.skip("a folder is what it wants")
    elif what == "folder":
        out.mkdir()
    elif os.geteuid() == 0:
        os.mknod(out, 0o020600, os.makedev(1, 3))
    else:
        pytest.skip("only root can make a device")
    before, status = content(room), os.lstat(out)
    assert main(filled(WRITING[name], "out")) == 2
    assert "expected" in capsys.readouterr().err
    now = os.lstat(out)  # reading a link changes its time of access
    assert (now.st_ino, now.st_mode, now.st_mtime_ns) == (
        status.st_ino,
        status.st_mode,
        status.st_mtime_ns,
    )
    assert content(room) == before


@pytest.mark.parametrize("place", ["small.onnx/x", "/proc/self/x", "y" * 300, "nowhere/" + "z" * 9])
@pytest.mark.parametrize("name", WRITING)
def test_command_refused_when_a_folder_takes_no_file(
    name: str, place: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if place.startswith("nowhere") and not target(WRITING[name], "x").suffix:
        pytest.skip("a folder that is made")
    before = content(room)
    assert main(filled(WRITING[name], place)) == 2
    assert "cannot be" in capsys.readouterr().err
    assert content(room) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 KiB, of which less than half is free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if (
        os.geteuid() != 0
        or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode
    ):
        pytest.skip("only root can mount a small disk, and not in every container")
    (disk / "filler").write_bytes(b"x" * 8192)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


FULL = [name for name in WRITING if name not in ("engine", "log")]


@pytest.mark.parametrize("name", FULL)
def test_full_disk_is_a_message_and_the_old_file_stays(
    name: str, room: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = target(WRITING[name], str(small_disk / "out"))
    if old.suffix:
        old.touch()
    assert main(filled(WRITING[name], str(small_disk / "out"))) == 2
    assert "No space left on device" in capsys.readouterr().err
    left = {path.name for path in small_disk.rglob("*") if path.is_file()}
    assert left <= {"filler", old.name}
    if old.suffix:
        assert old.read_bytes() == b""


LIMITED = """
import resource, sys
from edge_restore.backends import autoselect as choice
from edge_restore.cli import main
choice.fastest = lambda models, *, threads=None: "onnxruntime"
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", FULL)
def test_file_size_limit_is_a_message_and_the_old_file_stays(name: str, room: Path) -> None:
    assert resource.RLIMIT_FSIZE is not None
    words = [word for word in WRITING[name] if word != "kept.mp4"]
    if len(words) < len(WRITING[name]):
        pytest.skip("the video is cut first")
    old = target(WRITING[name], "out")
    if old.suffix:
        old.write_bytes(b"old")
    before = content(room)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *filled(WRITING[name], "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    if name != "csv" or done.returncode:
        assert done.returncode == 2, done.stderr
        assert "File too large" in done.stderr and "Traceback" not in done.stderr
        assert content(room) == before


@pytest.mark.parametrize(
    "words",
    [
        ["run", "fifo", *MODEL, "--out", "x.mp4"],
        ["run", "/dev/null", *MODEL, "--out", "x.mp4"],
        ["run", "clip.mp4", "--model", "fifo.onnx", "--out", "x.mp4"],
        ["demo", "--model", "fifo.onnx", "--out", "x"],
        ["bench", "--model", "fifo.onnx"],
        ["bench", "claims", "fifo"],
        ["bench", "compare", "report.json", "fifo"],
        ["evaluate", "--blurred", "fifo", "--sharp", "pairs/sharp/a.png", *MODEL],
        ["evaluate", "--blurred", "pairs/blurred/a.png", "--sharp", "fifo.png", *MODEL],
        ["evaluate", "--blurred", "fifos", "--sharp", "pairs/sharp", *MODEL],
        ["evaluate", "pairs", "--lpips", "fifo", *MODEL],
        ["build", "fifo.onnx", "--size", "64x96"],
        ["build", "small.onnx", "--size", "64x96", "--precision", "fp32", "--compare",
         "--reference", "fifo.onnx"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_command_refused_at_once_when_an_input_is_a_pipe(words: list[str], room: Path) -> None:
    for name in ("fifo", "fifo.onnx", "fifo.png"):
        os.mkfifo(name)
    shutil.copy("small.card.json", card_path("fifo.onnx"))
    os.mkdir("fifos")
    for name in os.listdir("pairs/sharp"):
        os.mkfifo(f"fifos/{name}")
    done = subprocess.run(
        [sys.executable, "-m", "edge_restore", *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("x.mp4").exists() and not Path("x").exists()


def test_command_refused_when_source_is_standard_input_from_a_pipe(room: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_restore", "run", "/dev/stdin", *MODEL, "--out", "x.mp4"],
        input=Path("clip.mp4").read_bytes(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and b"is a pipe" in done.stderr
    assert not Path("x.mp4").exists()


def be_bound_by_permissions() -> None:
    """For a child of root: no longer pass over the permissions of files, as any other user."""
    if os.geteuid() == 0:
        prctl_capbset_drop, cap_dac_override, cap_dac_read_search = 24, 1, 2
        for capability in (cap_dac_override, cap_dac_read_search):
            ctypes.CDLL(None).prctl(prctl_capbset_drop, capability, 0, 0, 0)


@pytest.mark.parametrize(
    "words",
    [
        *(filled(words, "closed/out") for words in WRITING.values()),
        [*RUN, "--out", "closed/deep/x.mp4"],
        ["run", "closed/clip.mp4", *MODEL, "--out", "open/x.mp4"],
        ["run", "clip.mp4", "--model", "closed/small.onnx", "--out", "open/x.mp4"],
        ["bench", "--model", "closed/small.onnx"],
        ["bench", "claims", "closed/report.json"],
        ["bench", "compare", "report.json", "closed/report.json"],
        ["evaluate", "closed", *MODEL],
        ["evaluate", "closed/pairs", *MODEL],
        ["evaluate", "--blurred", "closed/a", "--sharp", "pairs/sharp", *MODEL],
        ["evaluate", "pairs", "--lpips", "closed/x", *MODEL],
        ["evaluate", "pairs", "--csv", "protected.csv", *MODEL],
        ["build", "closed/small.onnx", "--size", "64x96"],
        [*BUILD, "--cache", "closed"],
        [*BUILD, "--cache", "closed/new"],
        ["engines", "--cache", "closed"],
        ["engines", "--cache", "closed/new"],
        ["engines", "--cache", "/proc/self/new"],
    ],
    ids=" ".join,
)
def test_command_refused_when_a_folder_cannot_be_searched(words: list[str], room: Path) -> None:
    shutil.copytree("pairs", "closed/pairs")
    Path("protected.csv").touch(0o444)
    Path("open").mkdir()
    for name in ("clip.mp4", "small.onnx", "small.card.json", "report.json"):
        shutil.copy(name, f"closed/{name}")
    Path("closed").chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edge_restore", *words],
            capture_output=True, text=True, timeout=120, check=False,
            preexec_fn=be_bound_by_permissions,
        )  # fmt: skip
    finally:
        Path("closed").chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
