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
from edge_restore.engine import cache, lock
from edge_restore.engine.cache import EngineCache
from edge_restore.engine.lock import locked
from edge_restore.engine.manifest import manifest_path
from edge_restore.errors import BackendError, OptionError, SinkError
from tests.edge_restore.engine.manifests import write_engine

PARTS = {"onnx": "a", "flavour": ["rtx", "1.7"], "size": [720, 1280]}


def fill(folder: Path, ages: dict[str, float], size: int = 1000) -> dict[str, Path]:
    made = {}
    for name, age in ages.items():
        made[name] = write_engine(folder, f"{name}.engine", name.encode() * (size // len(name)))
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


def test_prune_removes_what_was_not_used_for_longest(tmp_path: Path) -> None:
    made = fill(tmp_path, {"old": 300, "new": 100, "middle": 200})
    store = EngineCache(tmp_path)
    assert [entry.engine.stem for entry in store.entries()] == ["new", "middle", "old"]
    store.touch(made["old"])
    compiled = made["middle"].with_suffix(".runtime_cache")
    compiled.write_bytes(b"kernels")
    assert store.entries()[2].bytes == store.entries()[0].bytes + len("kernels")
    each = store.entries()[0].bytes
    assert each > 1000  # its manifest counts too
    removed = store.prune(2 * each + each // 2)
    assert [entry.engine.stem for entry in removed] == ["middle"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "old.engine", "old.manifest.json", "new.engine", "new.manifest.json",
    }  # fmt: skip


def test_prune_keeps_what_was_just_built_and_what_is_being_built(tmp_path: Path) -> None:
    made = fill(tmp_path, {"built": 300, "other": 200, "building": 100})
    store = EngineCache(tmp_path, limit=0)
    with store.building(made["building"]):
        removed = store.prune(keep=made["built"])
    assert [entry.engine.stem for entry in removed] == ["other"]


def test_prune_removes_what_cannot_be_trusted_and_what_was_left(tmp_path: Path) -> None:
    made = fill(tmp_path, {"good": 10, "open": 10, "bare": 10})
    manifest_path(made["open"]).chmod(0o666)
    manifest_path(made["bare"]).unlink()
    left = [
        tmp_path / name
        for name in (
            ".svdn.1a2b3c4d.engine",
            "gone.manifest.json",
            "gone.runtime_cache",
        )
    ]
    for path in left:
        path.write_bytes(b"half")
    fresh = tmp_path / ".svdn.5e6f7a8b.engine"
    fresh.write_bytes(b"being written")
    for path in left:
        os.utime(path, (1, 1))
    removed = EngineCache(tmp_path).prune()
    assert sorted(entry.engine.stem for entry in removed) == ["bare", "open"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "good.engine", "good.manifest.json", fresh.name,
    }  # fmt: skip


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be made"):
        EngineCache(tmp_path / "file" / "below")
    with pytest.raises(OptionError, match="limit is -1"):
        EngineCache(tmp_path, limit=-1)


HOLDER = """
import sys, time
from pathlib import Path
from edge_restore.engine.lock import locked
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
    begun = time.monotonic()
    with (
        pytest.raises(BackendError, match=rf"another process \(pid {process.pid}\) is building"),
        locked(path, wait_seconds=0.3),
    ):
        pass
    assert 0.25 < time.monotonic() - begun < 5


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
from edge_restore.engine.lock import locked
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
    manifest_path(made["two"]).write_text("{")
    folder = ["engines", "--cache", str(tmp_path)]
    assert cli.main(folder) == 0
    listed = capsys.readouterr().out
    assert "tensorrt 11.4.0.106" in listed and "720x1280" in listed
    assert "two.engine  unusable: the manifest" in listed and "2 in" in listed
    assert cli.main([*folder, "--json", "--prune"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["removed"] == ["two.engine"]
    (entry,) = document["engines"]
    assert entry["usable"] and entry["manifest"]["targets"] == ["sm_89"]
    assert cli.main([*folder, "--prune", "--limit", "0"]) == 0
    said = capsys.readouterr().out
    assert "removed one.engine" in said and "no engines in" in said


@pytest.mark.parametrize("options", [["--limit", "5"], ["--prune", "--limit", "-1"]])
def test_engines_refuses(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["engines", "--cache", str(tmp_path), *options]) == 2
    assert "the limit is" in capsys.readouterr().err
