"""Engines are executable content: whatever was tampered with or is stale is refused unloaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from edge_restore.engine.manifest import (
    SCHEMA,
    EngineError,
    EngineManifest,
    Expectation,
    load_checked,
    manifest_path,
    read_manifest,
)
from edge_restore.errors import BackendError
from edge_restore.storage import trusted_file
from tests.edge_restore.engine.manifests import ENGINE, EXPECTED, make_manifest, write_engine

Attack = Callable[[Path], None]


@pytest.fixture(autouse=True)
def no_private_group(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The test's user may have a group of its own, where others' groups are meant."""
    if request.function is not test_private_groups:
        monkeypatch.setattr(trusted_file, "is_private_group", lambda _: False)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path)


def test_an_engine_as_it_was_built(engine: Path) -> None:
    loaded = load_checked(engine, EXPECTED)
    assert loaded.engine == ENGINE
    assert loaded.manifest == make_manifest()
    assert load_checked(engine) == loaded


def test_round_trip() -> None:
    manifest = make_manifest(kernel_sha256=None, gpu=None, driver=None)
    document = manifest.to_json()
    assert next(iter(document)) == "schema"
    assert document["targets"] == ["sm_89"]
    assert EngineManifest.from_json(json.loads(json.dumps(document))) == manifest


def test_nothing_is_looked_at_that_was_not_asked_for(engine: Path) -> None:
    load_checked(engine, Expectation())
    for field in fields(Expectation):
        load_checked(engine, replace(EXPECTED, **{field.name: None}))


def edited(**changes: Any) -> Attack:
    """Change fields of the manifest; a name with two underscores is a path; None deletes."""

    def attack(engine: Path) -> None:
        path = manifest_path(engine)
        document = json.loads(path.read_text())
        for name, value in changes.items():
            *parents, key = name.split("__")
            inner = document
            for parent in parents:
                inner = inner[parent]
            if value is DELETE:
                del inner[key]
            else:
                inner[key] = value
        path.write_text(json.dumps(document))

    return attack


DELETE = object()


def content(text: bytes | str) -> Attack:
    def attack(engine: Path) -> None:
        raw = text if isinstance(text, bytes) else text.encode()
        manifest_path(engine).write_bytes(raw)

    return attack


def flipped(place: int) -> Attack:
    def attack(engine: Path) -> None:
        changed = bytearray(ENGINE)
        changed[place] ^= 1
        engine.write_bytes(changed)

    return attack


def linked(which: Callable[[Path], Path], to: str) -> Attack:
    """Replace a file by a link to a copy: inside the folder, or outside of it."""

    def attack(engine: Path) -> None:
        path = which(engine)
        target = (path.parent if to == "inside" else path.parent.parent) / "real"
        path.rename(target)
        path.symlink_to(target)

    return attack


def mode(which: Callable[[Path], Path], bits: int) -> Attack:
    return lambda engine: which(engine).chmod(bits)


def owner(which: Callable[[Path], Path]) -> Attack:
    def attack(engine: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(which(engine), 12345, -1)

    return attack


def replaced(which: Callable[[Path], Path], make: Callable[[Path], None]) -> Attack:
    def attack(engine: Path) -> None:
        path = which(engine)
        path.unlink()
        make(path)

    return attack


def of_another(engine: Path) -> None:
    other = write_engine(engine.parent, "other.engine", b"other")
    manifest_path(other).rename(manifest_path(engine))


def self_(path: Path) -> Path:
    return path


def folder(path: Path) -> Path:
    return path.parent


NONE = Expectation()
HEX = "d" * 64
# name: what is done to the good engine, what is expected of it, what the refusal says
CASES: dict[str, tuple[Attack, Expectation, str]] = {
    # the engine's bytes
    "first byte changed": (flipped(0), NONE, "the engine .* was changed: its SHA-256 is"),
    "last byte changed": (flipped(-1), NONE, "the engine .* was changed"),
    "truncated by one": (lambda e: e.write_bytes(ENGINE[:-1]) and None, NONE, "is truncated"),
    "empty": (lambda e: e.write_bytes(b"") and None, NONE, "is truncated: 0 bytes"),
    "one byte appended": (lambda e: e.write_bytes(ENGINE + b"x") and None, NONE, "is longer than"),
    "another engine": (lambda e: e.write_bytes(ENGINE[::-1]) and None, NONE, "was changed"),
    "hash of another file": (edited(engine__sha256=HEX), NONE, f"was changed(.|\n)*{HEX}"),
    "size of another file": (edited(engine__bytes=7), NONE, "is longer than it was(.|\n)*7 bytes"),
    # the files themselves
    "engine missing": (lambda e: e.unlink(), NONE, "the engine .* does not exist"),
    "manifest missing": (lambda e: manifest_path(e).unlink(), NONE, "the manifest .* not exist"),
    "engine a link inside": (linked(self_, "inside"), NONE, "the engine .* is a symbolic link"),
    "engine a link outside": (linked(self_, "outside"), NONE, "the engine .* is a symbolic link"),
    "manifest a link": (linked(manifest_path, "outside"), NONE, "the manifest .* symbolic link"),
    "engine a dangling link": (
        replaced(self_, lambda p: p.symlink_to("nowhere")), NONE, "symbolic link to 'nowhere'",
    ),
    "engine a folder": (replaced(self_, Path.mkdir), NONE, "the engine .* is not a plain file"),
    "engine a pipe": (replaced(self_, os.mkfifo), NONE, "the engine .* is not a plain file"),
    "manifest a folder": (replaced(manifest_path, Path.mkdir), NONE, "the manifest .* not a plain"),
    "engine of another user": (owner(self_), NONE, "the engine .* belongs to the user .* 12345"),
    "manifest of another user": (owner(manifest_path), NONE, "the manifest .* belongs to"),
    "folder of another user": (owner(folder), NONE, "the folder of the manifest.* belongs to"),
    "engine writable by group": (mode(self_, 0o664), NONE, "the engine .* changed by its group"),
    "engine writable by all": (mode(self_, 0o646), NONE, r"the engine .* by everybody \(mode 646"),
    "manifest writable by group": (mode(manifest_path, 0o660), NONE, "the manifest .* its group"),
    "manifest writable by all": (mode(manifest_path, 0o602), NONE, "the manifest .* everybody"),
    "folder writable by all": (mode(folder, 0o777), NONE, r"the folder .* by others \(mode 777"),
    "folder writable by group": (mode(folder, 0o770), NONE, r"the folder .* by others \(mode 770"),
    # the manifest's text
    "manifest empty": (content(""), NONE, "cannot be used: it is empty"),
    "manifest half": (content('{"schema": "edge'), NONE, r"it is not JSON \(Unterminated"),
    "manifest binary": (content(b"\xff\xfe\x00"), NONE, "it is not UTF-8 text"),
    "manifest nested without end": (content("[" * 100_000), NONE, "nested deeper than 64 levels"),
    "manifest huge": (content(b" " * (2 << 20)), NONE, "is 2097152 bytes large"),
    "manifest a list": (content("[]"), NONE, "the document is not a JSON object"),
    "manifest null": (content("null"), NONE, "the document is not a JSON object"),
    "manifest without anything": (content("{}"), NONE, "schema is missing"),
    "manifest of another engine": (of_another, NONE, "is the manifest of 'other.engine'"),
    "schema of the future": (edited(schema=f"{SCHEMA[:-1]}2"), NONE, "manifest/2', which this"),
    "schema of a card": (edited(schema="edge_restore.model_card/1"), NONE, "model_card/1', which"),
    "schema a number": (edited(schema=1), NONE, 'schema is 1, not "edge_restore'),
    # its fields
    "engine in another folder": (
        edited(engine__file="../evil.engine"), NONE, "engine.file is .*plain file name",
    ),
    "engine by its full path": (edited(engine__file="/e.engine"), NONE, "plain file name"),
    "hash missing": (edited(engine__sha256=DELETE), NONE, "engine.sha256 is missing"),
    "hash in capitals": (edited(engine__sha256="A" * 64), NONE, "engine.sha256 is .*64 lower"),
    "hash too short": (edited(onnx__sha256="a" * 63), NONE, "onnx.sha256 is .*64 lower-case"),
    "hash null": (edited(engine__sha256=None), NONE, "engine.sha256 is null"),
    "size negative": (edited(engine__bytes=-1), NONE, "engine.bytes is -1"),
    "size missing": (edited(engine__bytes=DELETE), NONE, "engine.bytes is missing"),
    "kernel no hash": (edited(kernel_sha256="none"), NONE, 'kernel_sha256 is "none"'),
    "flavour unknown": (edited(flavour="tensorflow"), NONE, 'flavour is "tensorflow"'),
    "version empty": (edited(flavour_version=""), NONE, 'flavour_version is ""'),
    "targets none": (edited(targets=[]), NONE, "targets is empty"),
    "targets no list": (edited(targets="sm_89"), NONE, 'targets is "sm_89", not a list'),
    "targets strange": (edited(targets=["gfx90a"]), NONE, r'targets is \["gfx90a"\], not a list'),
    "height true": (edited(height=True), NONE, "height is true"),
    "width fractional": (edited(width=1280.5), NONE, "width is 1280.5"),
    "precision unknown": (edited(precision="fp64"), NONE, 'precision is "fp64"'),
    "port dynamic": (edited(input__shape=[1, None, 1280, 3]), NONE, r"input.shape is \[1, null"),
    "port of another type": (edited(output__dtype="float16"), NONE, "output.dtype is"),
    "counts missing": (edited(layers__matrix=DELETE), NONE, "layers.matrix is missing"),
    "counts negative": (edited(layers__all__fp16=-3), NONE, "layers.all.fp16 is -3"),
    "verified by nobody": (edited(verified_by="hope"), NONE, 'verified_by is "hope"'),
    # a good engine of something else
    "another ONNX file": (
        edited(), replace(EXPECTED, onnx_sha256=HEX), "from another ONNX file: its SHA-256 is aaa",
    ),
    "another flavour": (
        edited(), replace(EXPECTED, flavour="rtx"), "by another flavour of TensorRT: tensorrt",
    ),
    "another version": (
        edited(), replace(EXPECTED, flavour_version="10.3.0"), "another version .* 11.4.0.106",
    ),
    "another GPU": (edited(), replace(EXPECTED, target="sm_87"), "for other GPUs: sm_89"),
    "another height": (edited(), replace(EXPECTED, height=1080), "for another height: 720"),
    "another width": (edited(), replace(EXPECTED, width=1920), "for another width: 1280"),
    "another precision": (edited(), replace(EXPECTED, precision="fp32"), "another precision: fp16"),
    "another kernel": (
        edited(), replace(EXPECTED, kernel_sha256=HEX), "with another deformable kernel: bbb",
    ),
    "a kernel where none was": (
        edited(kernel_sha256=None), EXPECTED, "with another deformable kernel: None",
    ),
    "the manifest made to fit": (
        edited(precision="fp32"), EXPECTED, "in another precision: fp32",
    ),
}  # fmt: skip


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("name", CASES)
def test_refused_with_its_own_message(name: str, tmp_path: Path) -> None:
    inner = tmp_path / "engines"
    inner.mkdir(mode=0o700)
    engine = write_engine(inner)
    load_checked(engine, EXPECTED)  # good, so far
    attack, expected, message = CASES[name]
    attack(engine)
    with pytest.raises(EngineError) as caught:
        load_checked(engine, expected)
    assert isinstance(caught.value, BackendError)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert caught.value.expected and caught.value.hint


def test_every_kind_of_problem_has_a_message_of_its_own(tmp_path: Path) -> None:
    """No two attacks are answered with the same words, names and numbers aside, unless they are
    the same attack at another place."""
    said: dict[str, list[str]] = {}
    for number, (name, (attack, expected, _)) in enumerate(CASES.items()):
        inner = tmp_path / str(number)
        inner.mkdir(mode=0o700)
        engine = write_engine(inner)
        if "another user" in name and os.geteuid() != 0:
            continue
        attack(engine)
        with pytest.raises(EngineError) as caught:
            load_checked(engine, expected)
        words = caught.value.found.replace(str(inner), "").replace(str(tmp_path), "")
        said.setdefault(words, []).append(name)
    same = {names[0]: names for names in said.values() if len(names) > 1}
    alike = [
        {"engine a folder", "engine a pipe"},
        {"engine a link inside", "engine a link outside"},
        {"manifest a list", "manifest null"},
        {"first byte changed", "last byte changed", "another engine", "hash of another file"},
    ]
    for names in same.values():
        assert any(set(names) <= group for group in alike), names


def test_the_manifest_is_read_without_the_engine(engine: Path) -> None:
    engine.unlink()
    assert read_manifest(engine).precision == "fp16"


def test_a_folder_of_the_user_s_own_group_is_good_enough(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.parent.chmod(0o770)
    monkeypatch.setattr(trusted_file, "is_private_group", lambda _: True)
    assert load_checked(engine, EXPECTED)
    engine.parent.chmod(0o777)
    with pytest.raises(EngineError, match="can be changed by others"):
        load_checked(engine, EXPECTED)


def test_private_groups() -> None:
    import grp
    import pwd

    user = pwd.getpwuid(os.geteuid()).pw_name
    for group in grp.getgrall():
        alone = set(group.gr_mem) <= {user}
        assert trusted_file.is_private_group(group.gr_gid) == (group.gr_name == user and alone)
    assert not trusted_file.is_private_group(54321)


def test_a_sticky_folder_is_good_enough(engine: Path) -> None:
    engine.parent.chmod(0o1777)  # as /tmp is
    assert load_checked(engine, EXPECTED)
