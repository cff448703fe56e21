"""Weights files from outside: whatever is in them, a message or the tensors."""

import json

import numpy as np
import pytest
import torch

from edge_restore.errors import DataError, UserError
from train.weights import read_tensors, write_tensors


def packed(header, size):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

MALFORMED = {
    "empty": b"",
    "one byte": b"\x01",
    "a pickle": b"\x80\x02}q\x00.",
    "a zip": b"PK\x03\x04" + bytes(30),
    "random": np.random.default_rng(0).bytes(4096),
    "longer header than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "deep header": packed(b"[" * 100_000, 0),
    "a name twice": packed(b'{"a":' + json.dumps(A).encode() + b',"a":{}}', 8),
    "overlap": packed({"a": A, "b": A}, 8),
    "gap": packed({"a": A, "b": {**A, "data_offsets": [16, 24]}}, 24),
    "beyond the file": packed({"a": {**A, "shape": [200], "data_offsets": [0, 800]}}, 8),
    "unknown type": packed({"a": {**A, "dtype": "F33"}}, 8),
    "product overflows": packed({"a": {**A, "shape": [2**32, 2**32]}}, 8),
    "many dimensions": packed({"a": {**A, "shape": [1] * 100 + [2]}}, 8),
    "boolean size": packed({"a": {**A, "shape": [True, 2]}}, 8),
    "more bytes": packed({"a": A}, 9),
    "integer without end": packed(b'{"a": 1' + b"0" * 100_000 + b"}", 8),
    "not finite": packed({"a": A}, 4) + b"\x00\x00\x80\x7f",
    "half precision not finite": packed({"a": {**A, "dtype": "F16", "shape": [4]}}, 6)
    + b"\x00\x7c",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_weights_are_a_message(name, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(MALFORMED[name])
    with pytest.raises(DataError, match=r"w\.safetensors' cannot be read as weights"):
        read_tensors(path)


def test_each_value_of_the_header_replaced_is_a_message_or_taken(tmp_path):
    path = tmp_path / "w.safetensors"
    for key in (*A, None):
        for value in (None, True, -1, 0, 10**400, "", "x" * 10**5, [], {}, [[[]]], [-1], [2**63]):
            entry = value if key is None else {**A, key: value}
            path.write_bytes(packed({"a": entry}, 8))
            try:
                read_tensors(path)
            except UserError as error:
                assert len(str(error)) < 1000


def test_sound_weights_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.ones(2, 3), "n": torch.tensor([1, 2]), "h": torch.ones(4).bfloat16()}
    write_tensors(path, tensors, "svdn")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in read_tensors(path).items())
