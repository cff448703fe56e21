"""The cache: keys, the lock between processes, the limit, the two commands' view of it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_restore import cli
from edge_restore.engine import cache
from edge_restore.engine.cache import EngineCache
from edge_restore.engine.manifest import manifest_path
from edge_restore.errors import BackendError, OptionError, SinkError
from edge_restore.storage import lock
from edge_restore.storage.lock import locked
from tests.edge_restore.engine.manifests import make_manifest, write_engine

PARTS = {"onnx": "a", "flavour": ["rtx", "1.7"], "size": [720, 1280]}


KEY = "0123456789abcdef01234567"


def fill(folder: Path, ages: dict[str, float], size: int = 1000) -> dict[str, Path]:
    made = {}
    for name, age in ages.items():
        file = f"{name}-{KEY}.engine"
        made[name] = write_engine(folder, file, name.encode() * (size // len(name)))
        used = time.time() - age
        os.utime(made[name], (used, used))
    return made


def test_a_key_is_the_content_s(tmp_path: Path) -> None:
    assert cache.key(PARTS) == cache.key(dict(reversed(PARTS.items())))
    others = [{**PARTS, "onnx": "b"}, {**PARTS, "size": [720, 1282]}, {**PARTS, "kernel": None}]
    assert len({cache.key(parts) for parts in (PARTS, *others)}) == 4
    store = EngineCache(tmp_path)
    assert store.path("../svdn x", cache.key(PARTS)).parent == tmp_path
    assert store.path("svdn", "ab" * 32).name == "svdn-" + "ab" * 12 + ".engine"


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "edge-restore" / "engines"
    assert EngineCache().folder.stat().st_mode & 0o777 == 0o700
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache.default_folder() == Path.home() / ".cache" / "edge-restore" / "engines"


def listed(folder: Path) -> set[str]:
    """The folder's files, the key left out of their names."""
    return {path.name.replace(f"-{KEY}", "") for path in folder.iterdir()}


def models(entries: list[cache.Entry]) -> list[str]:
    return [entry.engine.stem.removesuffix(f"-{KEY}") for entry in entries]


def test_prune_removes_what_was_not_used_for_longest(tmp_path: Path) -> None:
    made = fill(tmp_path, {"old": 300, "new": 100, "middle": 200})
    store = EngineCache(tmp_path)
    assert models(store.entries()) == ["new", "middle", "old"]
    store.touch(made["old"])
    compiled = made["middle"].with_suffix(".runtime_cache")
    compiled.write_bytes(b"kernels")
    assert store.entries()[2].bytes == pytest.approx(store.entries()[0].bytes + 7, abs=6)
    each = store.entries()[0].bytes
    assert each > 1000  # its manifest counts too
    removed = store.prune(2 * each + each // 2)
    assert models(removed) == ["middle"]
    assert listed(tmp_path) == {
        "old.engine", "old.manifest.json", "new.engine", "new.manifest.json", cache.MARKER,
    }  # fmt: skip


def test_prune_keeps_what_was_just_built_and_what_is_being_built(tmp_path: Path) -> None:
    made = fill(tmp_path, {"built": 300, "other": 200, "building": 100})
    store = EngineCache(tmp_path, limit=0)
    with store.building(made["building"]):
        removed = store.prune(keep=made["built"])
    assert models(removed) == ["other"]


def test_prune_removes_an_engine_whose_builder_was_killed(tmp_path: Path) -> None:
    made = fill(tmp_path, {"one": 300})
    made["one"].with_suffix(".lock").write_text("12345")
    assert models(EngineCache(tmp_path).prune(0)) == ["one"]


def test_prune_removes_what_cannot_be_trusted_and_what_was_left(tmp_path: Path) -> None:
    made = fill(tmp_path, {"good": 10, "open": 10, "gone": 10})
    manifest_path(made["open"]).chmod(0o666)
    made["gone"].unlink()
    made["gone"].with_suffix(".runtime_cache").write_bytes(b"kernels")
    left = tmp_path / f".svdn-{KEY}.1a2b3c4d.engine"
    fresh = tmp_path / f".svdn-{KEY}.5e6f7a8b.engine"
    ours = tmp_path / ".edge-restore-0123456789abcdef.tmp.engine"
    for path in (left, fresh, ours):
        path.write_bytes(b"half")
    for path in (left, manifest_path(made["gone"])):
        os.utime(path, (1, 1))
    removed = EngineCache(tmp_path).prune()
    assert models(removed) == ["open"]
    assert listed(tmp_path) == {
        "good.engine", "good.manifest.json", ".svdn.5e6f7a8b.engine", cache.MARKER,
    }  # fmt: skip


FOREIGN = (
    ".env",
    "package.json",
    "x.engine",
    ".hidden-0123.json",
    ".clip.0123abcd.mp4",
    "notes.manifest.json",
    "model.runtime_cache",
    "x.layers.json",
    f"backup-{KEY}.engine.old",
    f"bare-{KEY}.engine",
    f"notes-{KEY}.manifest.json",
    f"notes-{KEY}.runtime_cache",
    f"copy-{KEY}.manifest.json",
    "tensorrt-10_3-sm_86.timing",
)


def add_foreign(folder: Path) -> dict[str, bytes]:
    """Files of somebody else, hours old, with a folder and a link; their contents by name."""
    for name in FOREIGN:
        (folder / name).write_bytes(b"{}" if name.endswith("json") else name.encode())
    (folder / f"copy-{KEY}.engine").write_bytes(b"a copy of an engine")
    manifest = make_manifest(f"svdn-{KEY}.engine").to_json()
    (folder / f"copy-{KEY}.manifest.json").write_text(json.dumps(manifest))
    (folder / f"folder-{KEY}.engine").mkdir()
    (folder / f"folder-{KEY}.engine" / "inside").touch()
    (folder / f"link-{KEY}.engine").symlink_to("x.engine")
    for path in folder.iterdir():
        os.utime(path, (1, 1), follow_symlinks=False)
    return {p.name: b"" if p.is_dir() else p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("limit", [[], ["--limit", "0"]])
def test_prune_leaves_a_folder_alone_that_the_cache_has_not_made(
    tmp_path: Path, limit: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = add_foreign(tmp_path)
    made = fill(tmp_path, {"one": 300})["one"]
    assert cli.main(["engines", "--cache", str(tmp_path), "--prune", *limit]) == 0
    assert "not the cache's own" in capsys.readouterr().err
    after = {p.name: b"" if p.is_dir() else p.read_bytes() for p in tmp_path.iterdir()}
    assert after.pop(made.name) and after.pop(manifest_path(made).name)
    assert after == before
    assert not EngineCache(tmp_path).is_own


def test_prune_removes_only_its_own_from_its_own_folder(tmp_path: Path) -> None:
    store = EngineCache(tmp_path)
    assert store.is_own
    before = add_foreign(tmp_path)
    fill(tmp_path, {"one": 300, "two": 200})
    assert models(store.prune(0)) == ["two", "one"]
    assert {p.name: b"" if p.is_dir() else p.read_bytes() for p in tmp_path.iterdir()} == before
    assert EngineCache(tmp_path).is_own


def test_a_folder_is_the_cache_s_own_when_it_was_made_or_empty_or_held_engines_alone(
    tmp_path: Path,
) -> None:
    assert EngineCache(tmp_path / "deep" / "new").is_own
    (tmp_path / "empty").mkdir()
    assert EngineCache(tmp_path / "empty").is_own
    (tmp_path / "old").mkdir()
    made = fill(tmp_path / "old", {"one": 300})["one"]
    made.with_suffix(".runtime_cache").touch()
    (tmp_path / "old" / "rtx-1_4-sm_86.timing").touch()
    (tmp_path / "old" / f".svdn-{KEY}.1a2b3c4d.engine").touch()
    assert EngineCache(tmp_path / "old").is_own
    for name in ("notes.txt", "x.engine"):
        (tmp_path / name[0]).mkdir()
        (tmp_path / name[0] / name).touch()
        assert not EngineCache(tmp_path / name[0]).is_own
    other = tmp_path / "other"
    other.mkdir()
    (other / cache.MARKER).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of others\n")
    assert not EngineCache(other).is_own


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'{"height": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"null", b"[]"],
)
def test_a_damaged_manifest_does_not_hide_the_others(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    made = fill(tmp_path, {"good": 10, "bad": 20})
    manifest_path(made["bad"]).write_bytes(content)
    manifest_path(made["bad"]).chmod(0o644)
    os.utime(made["bad"], (1e15, 1e15))
    assert cli.main(["engines", "--cache", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"bad-{KEY}.engine" in said and "unusable" in said
    assert "tensorrt 11.4.0.106" in said


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be made"):
        EngineCache(tmp_path / "file" / "below")
    with pytest.raises(OptionError, match="limit is -1"):
        EngineCache(tmp_path, limit=-1)


HOLDER = """
import sys, time
from pathlib import Path
from edge_restore.storage.lock import locked
with locked(Path(sys.argv[1]), wait_seconds=0):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock."""
    path = tmp_path / "svdn.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process, path
    process.kill()
    process.wait()


def test_another_process_is_named(holder: tuple[subprocess.Popen[str], Path]) -> None:
    process, path = holder
    started = time.monotonic()
    with (
        pytest.raises(BackendError, match=rf"another process \(pid {process.pid}\) is building"),
        locked(path, wait_seconds=0.3),
    ):
        pass
    assert 0.25 < time.monotonic() - started < 5


def test_a_killed_process_holds_nothing(holder: tuple[subprocess.Popen[str], Path]) -> None:
    process, path = holder
    process.kill()
    process.wait()
    assert path.exists()
    with locked(path, wait_seconds=0):
        assert path.read_text() == str(os.getpid())
    assert not path.exists()


def test_a_lock_file_that_its_holder_removed_in_this_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening it and our locking it: what we would lock then is nobody's lock."""
    path, real, calls = tmp_path / "x.lock", fcntl.flock, []

    def removed_first(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", removed_first)
    with locked(path, wait_seconds=1):
        assert len(calls) == 2
        assert path.read_text() == str(os.getpid())


COUNTER = """
import sys, time
from pathlib import Path
from edge_restore.storage.lock import locked
lock, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(20):
    with locked(lock, wait_seconds=60):
        n = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(n + 1))
"""


def test_one_at_a_time_though_the_lock_file_comes_and_goes(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNTER, str(tmp_path / "x.lock"), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert counter.read_text() == "60"


def test_engines_lists_and_prunes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = fill(tmp_path, {"one": 20, "two": 10})
    made["one"].chmod(0o666)  # the listing does not read engines, loading does
    manifest_path(made["two"]).chmod(0o666)
    folder = ["engines", "--cache", str(tmp_path)]
    assert cli.main(folder) == 0
    listed = capsys.readouterr().out
    assert "tensorrt 11.4.0.106" in listed and "720x1280" in listed
    assert f"two-{KEY}.engine  unusable: " in listed and "2 in" in listed
    assert cli.main([*folder, "--json", "--prune"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["removed"] == [f"two-{KEY}.engine"]
    (entry,) = document["engines"]
    assert entry["usable"] and entry["manifest"]["targets"] == ["sm_89"]
    assert cli.main([*folder, "--prune", "--limit", "0"]) == 0
    said = capsys.readouterr().out
    assert f"removed one-{KEY}.engine" in said and "no engines in" in said


@pytest.mark.parametrize("options", [["--limit", "5"], ["--prune", "--limit", "-1"]])
def test_engines_refuses(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["engines", "--cache", str(tmp_path), *options]) == 2
    assert "the limit is" in capsys.readouterr().err
