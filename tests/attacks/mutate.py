"""Damage to bytes and to JSON that every kind shares."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Damage = tuple[bytes, str]
"""The damaged bytes and what was done to them."""


def truncate(data: bytes, rng: random.Random) -> Damage:
    """Cut off the end: anywhere, or a few bytes."""
    kept = rng.randrange(len(data)) if rng.random() < 0.7 else max(0, len(data) - rng.randint(1, 9))
    return data[:kept], f"cut to {kept} of {len(data)} bytes"


def flip(data: bytes, rng: random.Random) -> Damage:
    """Flip one to eight bits."""
    found = bytearray(data)
    places = sorted(rng.randrange(len(data)) for _ in range(rng.randint(1, 8)))
    for place in places:
        found[place] ^= 1 << rng.randrange(8)
    return bytes(found), f"bits flipped at {places}"


def flip_head(data: bytes, rng: random.Random) -> Damage:
    """Flip bits in the first 512 bytes."""
    head, what = flip(data[:512], rng)
    return head + data[512:], f"in the head {what}"


def overwrite(data: bytes, rng: random.Random) -> Damage:
    """Overwrite a stretch with zeros, ones or noise."""
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 16, 100, 1000, 4096))
    length = min(length, len(data) - start)
    name, patch = rng.choice(
        (("zeros", bytes(length)), ("ones", b"\xff" * length), ("noise", rng.randbytes(length)))
    )
    return data[:start] + patch + data[start + length :], f"{length} {name} at {start}"


def remove(data: bytes, rng: random.Random) -> Damage:
    """Take a stretch out of the middle."""
    start = rng.randrange(len(data))
    length = min(rng.choice((1, 2, 8, 188, 512, 4096)), len(data) - start)
    return data[:start] + data[start + length :], f"{length} bytes removed at {start}"


def insert(data: bytes, rng: random.Random) -> Damage:
    """Put noise, or a copy of a stretch, somewhere."""
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 188, 512))
    source = rng.randrange(len(data))
    patch = rng.choice((rng.randbytes(length), data[source : source + length]))
    return data[:start] + patch + data[start:], f"{len(patch)} bytes inserted at {start}"


def nothing(data: bytes, rng: random.Random) -> Damage:
    """An empty file, or one byte."""
    length = rng.choice((0, 0, 1, 4))
    return data[:length], f"only {length} bytes are left"


def other(data: bytes, rng: random.Random) -> Damage:
    """Something else under that name."""
    name, content = rng.choice(
        (
            ("text", b"This is a text file.\n" * 40),
            ("zeros", bytes(4096)),
            ("noise", rng.randbytes(4096)),
            ("HTML", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
            ("a pickle", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."),
            ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        )
    )
    return content, f"{name} in its place"


GENERAL: tuple[Callable[[bytes, random.Random], Damage], ...] = (
    truncate, truncate, flip, flip, flip_head, overwrite, overwrite, remove, insert, nothing, other,
)  # fmt: skip


def damage(data: bytes, rng: random.Random) -> Damage:
    """One of the general damages."""
    return rng.choice(GENERAL)(data, rng)


NUMBERS: tuple[Any, ...] = (
    0, -1, -0.0, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 1e308, -1e308, 1e-320, 0.5,
    True, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    "", " ", "\0", "\x1b[31mred\x1b[0m", "../../etc/passwd", "/etc/passwd", "a" * 100_000, "\ud800",
    "\u202egnp.exe", "%s%n", "{}", "null", "nan", "1", "ü" * 300, "C:\\x", "a\nb",
)  # fmt: skip
SHAPES: tuple[Any, ...] = (None, [], {}, [[]], [None], {"": None}, [1, 2, 3, 4, 5], False)


def value(rng: random.Random) -> Any:
    """A value that a JSON document may hold and ours should not."""
    return rng.choice(rng.choice((NUMBERS, TEXTS, SHAPES)))


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, as the keys that lead there."""
    found = [at] if at else []
    if isinstance(document, dict):
        for key, its in document.items():
            found += places(its, (*at, key))
    elif isinstance(document, list):
        for index, its in enumerate(document[:8]):
            found += places(its, (*at, index))
    return found


def put(document: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy of the document with another value at a place."""
    found = copy.deepcopy(document)
    _parent(found, at)[at[-1]] = new
    return found


def get(document: Any, at: tuple[Any, ...]) -> Any:
    """What is at a place."""
    return _parent(document, at)[at[-1]]


def _parent(document: Any, at: tuple[Any, ...]) -> Any:
    for key in at[:-1]:
        document = document[key]
    return document


def document(given: Any, rng: random.Random) -> tuple[bytes, str, tuple[Any, ...] | None]:
    """A mutated JSON document: its bytes, what was done, and at which place (None: not at one)."""
    where = places(given)
    at = rng.choice(where)
    how = rng.randrange(10)
    if how < 5:
        new = value(rng)
        return encoded(put(given, at, new)), f"{at} is {new!r:.60}", at
    if how == 5:
        found = copy.deepcopy(given)
        del _parent(found, at)[at[-1]]
        return encoded(found), f"{at} is missing", at
    if how == 6:
        to = rng.choice(where)
        return encoded(put(given, at, get(given, to))), f"{at} has the value of {to}", at
    if how == 7:
        data, what = text(given, rng)
        return data, what, None
    if how == 8:
        data, what = damage(encoded(given), rng)
        return data, what, None
    found, said = given, []
    for one in rng.sample(where, min(3, len(where))):
        new = value(rng)
        try:
            found = put(found, one, new)
            said.append(f"{one} is {new!r:.30}")
        except (TypeError, KeyError, IndexError):  # an earlier one took its parent away
            continue
    return encoded(found), "; ".join(said), ()


def text(given: Any, rng: random.Random) -> Damage:
    """The document in another spelling: some are still it, some are none."""
    plain = json.dumps(given)
    depth = rng.choice((100, 5_000, 200_000))
    name, data = rng.choice(
        (
            ("nested lists", b"[" * depth + b"]" * depth),
            ("nested objects", b'{"a":' * depth + b"1" + b"}" * depth),
            ("unclosed lists", b"[" * depth),
            ("a long integer", b'{"schema": ' + b"9" * rng.choice((5_000, 100_000)) + b"}"),
            ("UTF-16", plain.encode("utf-16")),
            ("UTF-32", plain.encode("utf-32")),
            ("a byte order mark", b"\xef\xbb\xbf" + plain.encode()),
            ("Latin-1", plain.replace('"', '"\xe9', 1).encode("latin-1")),
            ("twice the document", plain.encode() * 2),
            ("duplicate keys", (plain[:-1] + "," + plain[1:]).encode() if plain != "{}" else b"{"),
            ("a trailing comma", (plain[:-1] + ",}").encode()),
            ("comments", b"// a comment\n" + plain.encode()),
            ("a list of it", json.dumps([given]).encode()),
            ("null", b"null"),
            ("a number", b"1e999"),
            ("a string", b'"text"'),
            ("1 MB of spaces", b" " * (1 << 20) + plain.encode()),
            ("NUL bytes after it", plain.encode() + bytes(16)),
        )
    )
    return data, name


def encoded(given: Any) -> bytes:
    """As `json.dumps`, with integers of any length and lone surrogates."""
    import sys

    before = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else None
    if before is not None:
        sys.set_int_max_str_digits(0)
    try:
        return json.dumps(given, indent=1).encode("utf-8", errors="surrogatepass")
    finally:
        if before is not None:
            sys.set_int_max_str_digits(before)
