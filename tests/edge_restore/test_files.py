from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edge_restore.errors import DataError, SinkError
from edge_restore.files import atomic_path, check_writable, make_folder, sha256, write_text


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
