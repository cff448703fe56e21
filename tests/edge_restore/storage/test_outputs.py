"""The one check of outputs: against inputs, each other, and what stands in their place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge_restore.errors import DataError, SinkError
from edge_restore.storage.outputs import InputFolder, check_outputs


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.mp4"
    path.write_bytes(b"footage")
    return path


def spellings(source: Path) -> dict[str, Path]:
    folder = source.parent
    (folder / "below").mkdir()
    (folder / "door").symlink_to(folder, target_is_directory=True)
    hard = folder / "hard.mp4"
    hard.hardlink_to(source)
    return {
        "itself": source,
        "dots": folder / "below" / ".." / source.name,
        "a linked folder": folder / "door" / source.name,
        "a hard link": hard,
        "relative": Path(os.path.relpath(source)),
    }


@pytest.mark.parametrize("which", ["itself", "dots", "a linked folder", "a hard link", "relative"])
def test_output_refused_when_it_is_an_input(source: Path, which: str) -> None:
    out = spellings(source)[which]
    before = tree(source.parent)
    with pytest.raises(SinkError, match=r"--out '.*' is SOURCE itself"):
        check_outputs([("--out", out)], [("SOURCE", source)])
    assert tree(source.parent) == before


def test_output_refused_when_an_input_is_a_link_to_it(source: Path) -> None:
    link = source.with_name("link.mp4")
    link.symlink_to(source)
    with pytest.raises(SinkError, match="is SOURCE itself"):
        check_outputs([("--out", source)], [("SOURCE", link)])


@pytest.mark.parametrize("through", ["a.json", "below/../a.json", "door/a.json"])
def test_outputs_refused_when_they_are_the_same_new_file(tmp_path: Path, through: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "door").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(SinkError, match=r"--html .* and --json .* are the same file"):
        check_outputs([("--json", tmp_path / "a.json"), ("--html", tmp_path / through)])
    check_outputs([("--json", tmp_path / "a.json"), ("--html", tmp_path / "A.json"), ("x", None)])


def test_outputs_refused_when_they_are_one_in_a_folder_to_be_made(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep"
    outputs = [("a", out / "x.png"), ("b", out / ".." / "deep" / "x.png")]
    with pytest.raises(SinkError, match="are the same file"):
        check_outputs(outputs, folders=[("--save", out)])
    check_outputs(outputs[:1], folders=[("--save", out)])
    assert not out.parent.exists()
    with pytest.raises(SinkError, match="does not exist"):
        check_outputs(outputs[:1])


def make_special(path: Path, what: str) -> None:
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif what == "a directory":
        path.mkdir()
    elif what == "a symbolic link":
        path.symlink_to("elsewhere")
    elif what == "a device":
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root can make a device")


@pytest.mark.parametrize(
    "what", ["a pipe", "a socket", "a directory", "a symbolic link", "a device"]
)
def test_output_refused_when_its_place_is_no_plain_file(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    out = Path("out.json")
    make_special(out, what)
    before = os.lstat(out)
    with pytest.raises(SinkError, match=f"is {what}"):
        check_outputs([("--json", out)])
    # Reading a link changes its time of access.
    assert os.lstat(out)[:7] == before[:7]
    assert os.listdir() == ["out.json"]


@pytest.mark.parametrize("what", ["a pipe", "a socket", "a device"])
def test_input_refused_when_it_is_no_plain_file(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_special(Path("in.npz"), what)
    with pytest.raises(DataError, match=f"--frames 'in.npz' is {what}"):
        check_outputs([], [("--frames", Path("in.npz"))])


def test_missing_input_is_left_to_its_reader(tmp_path: Path) -> None:
    check_outputs([("--out", tmp_path / "x")], [("SOURCE", tmp_path / "no" / "such")])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("photos/new.png", "would lie among the files of PAIRS"),
        ("photos/NEW.PNG", "would lie among"),
        ("photos/old.png", "is PAIRS itself, or lies in it"),
        ("outside.png", "is PAIRS itself, or lies in it"),
    ],
)
def test_output_refused_among_input_images(tmp_path: Path, out: str, message: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "old.png").touch()
    (tmp_path / "outside.png").hardlink_to(folder / "old.png")
    photos = InputFolder(folder, {".png"})
    with pytest.raises(SinkError, match=message):
        check_outputs([("--sheet", tmp_path / out)], [("PAIRS", photos)])


def test_output_beside_input_images_is_allowed_when_it_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("old.csv", "below/old.png"):
        (tmp_path / name).touch()
    here = [("IMAGES", InputFolder(tmp_path, {".png"}))]
    for name in ("new.csv", "old.csv", "below/new.png", "below/old.png"):
        check_outputs([("--out", tmp_path / name)], here)
    deep = [("IMAGES", InputFolder(tmp_path, {".png"}, below=True))]
    for name in ("below/new.png", "below/old.png"):
        with pytest.raises(SinkError):
            check_outputs([("--out", tmp_path / name)], deep)


def test_name_refused_when_too_long(tmp_path: Path) -> None:
    check_outputs([("--out", tmp_path / ("x" * 251 + ".mp4"))])
    for name in ("x" * 252 + ".mp4", "é" * 126 + ".mp4"):
        with pytest.raises(SinkError, match="File name too long"):
            check_outputs([("--out", tmp_path / name)])
    new = tmp_path / "new"
    with pytest.raises(SinkError, match="255 bytes"):
        check_outputs([("--out", new / ("x" * 256))], folders=[("--save", new)])
    with pytest.raises(SinkError, match=r"too long|255 bytes"):
        check_outputs([("--out", tmp_path / "n")], folders=[("--save", tmp_path / ("y" * 300))])


@pytest.mark.parametrize("parent", ["file", "file/deeper", "dangling", "loop"])
def test_folder_refused_when_it_cannot_be_made(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "file" / "nowhere")
    (tmp_path / "loop").symlink_to("loop")
    folder = tmp_path / parent
    for folders in ((), [("--save", folder)]):
        with pytest.raises(SinkError):
            check_outputs([("--out", folder / "x.png")], folders=folders)


NOBODY = """
import os, sys
from pathlib import Path
from edge_restore.errors import UserError
from edge_restore.storage.outputs import check_outputs
os.setgroups([]); os.setgid(65534); os.setuid(65534)
folder = Path(sys.argv[1])
for outputs, inputs, folders in (
    ([("o", folder / "closed" / "x.json")], [], []),
    ([("o", folder / "closed" / "deep" / "x.json")], [], []),
    ([("o", folder / "closed" / "deep" / "x.json")], [], [("f", folder / "closed" / "deep")]),
    ([("o", folder / "readable" / "x.json")], [], []),
    ([("o", folder / "readable" / "new" / "x.json")], [], [("f", folder / "readable" / "new")]),
    ([("o", folder / "open" / "root's.json")], [], []),
    ([("o", folder / "sticky" / "root's.json")], [], []),
    ([], [("i", folder / "closed" / "x.json")], []),
    ([], [("i", folder / "closed")], []),
):
    try:
        check_outputs(outputs, inputs, folders=folders)
    except UserError as error:
        print(str(error).splitlines()[0])
    else:
        print("accepted", outputs, inputs)
check_outputs([("o", folder / "open" / "mine.json")])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_places_refused_when_the_user_may_not(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):  # pytest closes its folders
        if folder.stat().st_mode & 0o005 != 0o005 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    for name, mode in (("closed", 0o700), ("readable", 0o755), ("open", 0o777), ("sticky", 0o1777)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "root's.json").touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "sticky" / "root's.json").chmod(0o666)
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, str(tmp_path)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 9
    assert all("cannot be" in line for line in lines), lines
    assert "sticky" in lines[6]
