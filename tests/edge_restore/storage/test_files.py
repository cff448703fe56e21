from __future__ import annotations

import hashlib
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_restore.errors import DataError, SinkError
from edge_restore.storage.files import (
    atomic_path,
    check_input,
    check_writable,
    make_folder,
    open_input,
    sha256,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_published_on_success(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mp4"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["clip.mp4"]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["clip.mp4"]


def test_failure_to_publish_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with (
        pytest.raises(SinkError, match="taken"),
        atomic_path(tmp_path / "taken") as temporary,
    ):
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["taken"]


def test_who_reads_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"new")
        assert reader.read() == b"old"


def test_sha256_of_more_than_one_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_write_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "é\n")
    assert (tmp_path / "x.txt").read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, "is a directory"),
        (lambda folder: folder / "missing" / "x.mp4", "does not exist"),
        (lambda folder: folder / "file" / "x.mp4", "is not a directory"),
    ],
)
def test_unwritable_is_found_before_the_work(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=message):
        check_writable(make(tmp_path), DataError)
    assert names(tmp_path) == ["file"]


def test_read_only_folder_is_unwritable() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("there is no /proc, a folder that nobody can write in")
    with pytest.raises(SinkError, match="cannot be written"):
        check_writable("/proc/self/x.mp4")


def test_check_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "x.mp4")
    assert names(tmp_path) == []


def test_make_folder(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be created"):
        make_folder(tmp_path / "file" / "b")


@pytest.mark.parametrize("name", ["x" * 251 + ".mp4", "a." + "b" * 253, "é" * 127, "." + "x" * 254])
def test_atomic_path_takes_every_legal_name(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "new")
    assert names(tmp_path) == [name]


def test_name_that_is_too_long_is_a_sink_error(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="name too long"), atomic_path(tmp_path / ("x" * 256)):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["device", "pipe", "link", "dangling", "socket"])
def test_atomic_path_replaces_nothing_but_plain_files(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target, other = Path("out"), Path("other")
    other.write_text("other")
    if what == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(target, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    elif what == "pipe":
        os.mkfifo(target)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(target))
    else:
        target.symlink_to("other" if what == "link" else "nowhere")
    before = os.lstat(target)
    for write in (lambda: write_text(target, "x"), lambda: atomic_path(target).__enter__()):
        with pytest.raises(SinkError, match="expected: the name of a plain file"):
            write()
    # Reading a link changes its time of access.
    assert os.lstat(target)[:7] == before[:7]
    assert other.read_text() == "other"
    assert names(tmp_path) == ["other", "out"]


def test_atomic_path_refuses_what_took_the_place_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(SinkError, match="symbolic link"), atomic_path(target) as temporary:
        temporary.write_text("new")
        target.symlink_to("nowhere")
    assert target.is_symlink()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_mode_is_the_old_file_s_or_that_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "new", "x")
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o640)
        write_text(tmp_path / "old", "x")
        with atomic_path(tmp_path / "chosen") as temporary:
            temporary.chmod(0o604)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"new": 0o666 & ~mask, "old": 0o640, "chosen": 0o604}


WRITER = """
import sys, time
from pathlib import Path
from edge_restore.storage.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that is writing into the folder, and its temporary file's name."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "clip.mp4")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_leftovers_are_removed_when_their_writer_was_killed(
    tmp_path: Path, writer: tuple[subprocess.Popen[str], str]
) -> None:
    process, temporary = writer
    kept = [
        ".edge-restore-0123456789abcdef.tmp.d",
        ".edge-restore-0123456789abcdeg.tmp",
        ".edge-restore-0123456789abcdef.txt",
        "edge-restore-0123456789abcdef.tmp",
        ".clip.0123abcd.mp4",
    ]
    (tmp_path / kept[0]).mkdir()
    for name in kept[1:]:
        (tmp_path / name).touch()
    link = tmp_path / ".edge-restore-fedcba9876543210.tmp"
    link.symlink_to(kept[1])
    write_text(tmp_path / "other", "x")
    assert names(tmp_path) == sorted([*kept, link.name, temporary, "other"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_writable(tmp_path / "third")
    assert names(tmp_path) == sorted([*kept, link.name, "other"])


def test_leftovers_are_removed_by_the_next_writer(
    tmp_path: Path, writer: tuple[subprocess.Popen[str], str]
) -> None:
    process, temporary = writer
    process.kill()
    process.wait()
    assert names(tmp_path) == [temporary]
    with atomic_path(tmp_path / "clip.mp4") as mine:
        assert names(tmp_path) == [mine.name]


def test_temporary_files_of_many_writers_survive_each_other(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edge_restore.storage import files\n"
        "for i in range(200):\n"
        "    files.remove_leftovers(Path(sys.argv[1]), always=True)\n"
        "    files.write_text(Path(sys.argv[1]) / f'{sys.argv[2]}-{i % 7}', str(i))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert names(tmp_path) == sorted(f"{n}-{i}" for n in range(3) for i in range(7))


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", str(folder)],
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("only root can mount a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_is_a_sink_error_and_the_old_file_stays(full_disk: Path) -> None:
    write_text(full_disk / "report.json", "old")
    with pytest.raises(SinkError, match=r"No space left on device\n.*\n.*free space"):
        write_text(full_disk / "report.json", "x" * 100_000)
    assert (full_disk / "report.json").read_text() == "old"
    assert names(full_disk) == ["report.json"]


def test_file_size_limit_is_a_sink_error_and_the_old_file_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "report.json", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(SinkError, match=r"File too large\n.*\n.*ulimit -f"):
            write_text(tmp_path / "report.json", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "report.json").read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_read_only_disk_is_a_sink_error() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("there is no /proc, a folder that nobody can write in")
    for write in (lambda p: write_text(p, "x"), lambda p: atomic_path(p).__enter__()):
        with pytest.raises(SinkError, match="cannot be written"):
            write(Path("/proc/self/x.json"))


@pytest.mark.parametrize("check", [check_input, open_input])
@pytest.mark.parametrize("what", ["a pipe", "a directory", "a device", "a socket"])
def test_input_refused_unopened_when_it_is_no_plain_file(  # type: ignore[no-untyped-def]
    tmp_path: Path, what: str, check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("in")
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a directory":
        path.mkdir()
    elif what == "a device":
        path = Path(os.devnull)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    with pytest.raises(DataError, match=f"the pack '{path}' is {what}"):
        check(path, "the pack")


def test_input_is_opened_when_it_is_a_plain_file_or_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        check_input(tmp_path / name, "the pack")
        with open_input(tmp_path / name, "the pack") as file:
            assert file.read() == b"content"
    check_input(tmp_path / "missing", "the pack")
    for missing in ("missing", "file/below", "x" * 300):
        with pytest.raises(DataError, match=r"the pack '.*' (does not exist|cannot be read)"):
            open_input(tmp_path / missing, "the pack")
