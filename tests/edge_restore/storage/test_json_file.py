from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from edge_restore.errors import DataError, InternalError
from edge_restore.storage.json_fields import JsonFields
from edge_restore.storage.json_file import MAX_DEPTH, abridged, decode, encode, read_json
from edge_restore.storage.plain_file import Kind

KIND = Kind("a list", "a JSON file", "write it again")

MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "one byte": b"{",
    "no text": b"\xff\xfe\x00{",
    "utf-16": "{}".encode("utf-16"),
    "not a number": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "overflowing": b"[1e999]",
    "many digits after the point": b"[0." + b"1" * 1000 + b"]",
    "integer of 400 digits": b"[1" + b"0" * 400 + b"]",
    "integer of 100,000 digits": b"[1" + b"0" * 100_000 + b"]",
    "negative integer of 100,000 digits": b"[-1" + b"0" * 100_000 + b"]",
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "depth 65": b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
    "a key twice": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "a lone surrogate": rb'{"a": "\ud800"}',
    "a lone surrogate in a key": rb'{"\udfff": 1}',
    "a long key": b'{"' + b"k" * 5000 + b'": 1}',
    "two documents": b"{} {}",
    "a comment": b"// no\n{}",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_json_is_a_message(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(MALFORMED[name])
    began = time.monotonic()
    with pytest.raises(DataError, match=r"x\.json' cannot be read as a list: ") as caught:
        read_json(path, KIND)
    assert time.monotonic() - began < 5
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf[1]", b"[1]", b"[1]\n\n", '["ü"]'.encode()])
def test_sound_json_is_read_with_or_without_a_byte_order_mark(content: bytes) -> None:
    assert decode(content) in ([1], ["ü"])


def test_file_that_is_not_plain_or_too_large_is_a_message(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * 101)
    for path, problem in (
        (tmp_path / "pipe", "not a plain file"),
        (tmp_path, "not a plain file"),
        (Path("/dev/zero"), "not a plain file"),
        (tmp_path / "large", "101 bytes"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "large" / "in", "Not a directory"),
        (tmp_path / ("n" * 300), "too long"),
        (tmp_path / "a\0b", "no file has such a name"),
    ):
        with pytest.raises(DataError, match=problem):
            read_json(path, KIND, limit=100)


def test_sparse_file_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "sparse.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="bytes large"):
        read_json(path, KIND)


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**5000), "x" * 10**6, [[[[[[1]]]]]] * 100, {"a" * 10**5: "\ud800"}, None],
    ids=("large", "huge", "long", "nested", "long key", "null"),
)
def test_any_value_is_shown_briefly(value: Any) -> None:
    assert len(abridged(value)) <= 70
    abridged(value).encode()
    fields = JsonFields({"width": value})
    assert fields.integer("width", 1, 100) == 1
    assert fields.number("width") == 0.0
    assert len(fields.listing()) < 300


def test_integer_and_number_keep_to_their_bounds() -> None:
    fields = JsonFields({"n": 2**60, "x": 1e300, "share": 1.5, "name": "n" * 300, "t": True})
    fields.integer("n", 0)
    fields.number("x")
    fields.number("share", 0, 1)
    fields.file_name("name")
    fields.number("t")
    assert len(fields.errors) == 5


def test_encode_writes_what_decode_reads() -> None:
    document = {"file": os.fsdecode(b"a\xff.mp4"), "ü": [1, 2.5, None]}
    text = encode(document)
    assert decode(text.encode()) == {"file": "a\ufffd.mp4", "ü": [1, 2.5, None]}
    with pytest.raises(InternalError):
        encode({"psnr": float("inf")})
    assert json.loads(encode([1], indent=1)) == [1]
