"""Arrays of an .npz file: all that is not as it was written is refused."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge_restore.errors import DataError
from edge_restore.storage.npz_file import read_arrays
from edge_restore.storage.plain_file import Kind

KIND = Kind("a test's archive", "one that this test wrote", "write it anew")
ARRAYS = {
    "header": np.frombuffer(b'{"schema": 1}', np.uint8),
    "frames": np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3),
    "empty": np.zeros((0, 3), np.uint8),
    "one": np.zeros((), np.uint8),
}


def archive(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def npy(array: object, **options: object) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)  # type: ignore[arg-type]
    return stream.getvalue()


def head(text: str, data: bytes = b"") -> bytes:
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", **ARRAYS)  # type: ignore[arg-type]
    return tmp_path / "a.npz"


def test_arrays_are_those_that_were_saved(path: Path) -> None:
    found = read_arrays(path, KIND)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)
        assert found[name].shape == array.shape


def test_every_changed_byte_is_noticed_or_does_no_harm(path: Path) -> None:
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = read_arrays(path, KIND)
        except DataError:
            refused += 1
            continue
        known = set(found) & set(ARRAYS)
        assert all(np.array_equal(found[name], ARRAYS[name]) for name in known)
    assert refused > 400


def test_every_truncation_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="cannot be read as a test's archive"):
            read_arrays(path, KIND)


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (b"", "no array of numpy's format"),
        (b"\x93NUMPY", "no array of numpy's format"),
        (b"\x93NUMPY\x01\x00\xff\xff", "no array of numpy's format"),
        (npy(np.zeros(3)), "not an array of uint8"),
        (npy(np.zeros((3, 3), np.uint8, "F")), "not an array of uint8"),
        (npy(np.array([{}], object), allow_pickle=True), "not an array of uint8"),
        (npy(np.zeros(3, [("a", np.uint8)])), "not an array of uint8"),
        (npy(np.zeros(4, np.uint8))[:-1], "and has 3 bytes"),
        (npy(np.zeros(4, np.uint8)) + b"x", "and has 5 bytes"),
        (head("{'descr': '|u1', 'fortran_order': False, 'shape': (10**12,), }"), "not an array"),
        (head("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }"), "not an array"),
        (head("{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999,), }"), "and has 0"),
        (head("{'descr': '|u1', " + "(" * 60000 + "}"), "not an array"),
        (head("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1" * 60000 + ",), }"),
         "not an array"),
    ],
)  # fmt: skip
def test_a_member_that_is_no_array_of_bytes_is_refused(
    tmp_path: Path, member: bytes, says: str
) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(archive({"frames.npy": member}))
    with pytest.raises(DataError, match=says):
        read_arrays(path, KIND)


@pytest.mark.parametrize("name", ["frames", "../frames.npy", "/frames.npy", "a b.npy", "\x1b.npy"])
def test_a_member_that_is_called_no_array_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(archive({name: npy(np.zeros(3, np.uint8))}))
    with pytest.raises(DataError, match="no name of an array"):
        read_arrays(path, KIND)


def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(archive({"a.npy": bytes(50_000_000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(DataError, match="compressed"):
        read_arrays(path, KIND)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        for value in (1, 2):
            file.writestr("a.npy", npy(np.full(3, value, np.uint8)))
    with pytest.raises(DataError, match="twice"):
        read_arrays(path, KIND)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "none", "."):
        with pytest.raises(DataError):
            read_arrays(tmp_path / name, KIND)


def test_a_huge_directory_is_refused_before_it_is_read(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\5\6")
    content[place + 12 : place + 16] = (1 << 26).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="its directory is larger than 32 MiB"):
        read_arrays(path, KIND)


def test_members_of_the_same_bytes_are_refused(path: Path) -> None:
    array = npy(np.zeros(1000, np.uint8))
    content = archive({"a.npy": array, "b.npy": array})
    first, second = (i for i in range(len(content)) if content.startswith(b"PK\1\2", i))
    changed = bytearray(content)
    changed[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(changed)
    with pytest.raises(DataError, match=r"its member 'b\.npy' lies in the one before"):
        read_arrays(path, KIND)
