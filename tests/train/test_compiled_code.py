"""What training compiled and executes again: only from where nobody else can write."""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from edge_restore.errors import UserError
from train.networks import compiler_caches, deform_sample

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder where the kernel is kept, with the kernel in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EDGE_RESTORE_NO_C", raising=False)
    deform_sample._compiled.cache_clear()
    if deform_sample.library() is None:
        deform_sample._compiled.cache_clear()
        pytest.skip("no C compiler here")
    yield tmp_path / "edge-restore"
    monkeypatch.undo()
    deform_sample._compiled.cache_clear()


def kept(cache: Path) -> Path:
    (path,) = cache.glob("deform_sample-*.so")
    return path


EVIL = """#include <stdlib.h>
__attribute__((constructor)) void go(void) { setenv("EDGE_RESTORE_EVIL", "1", 1); }
"""


@pytest.fixture
def evil(tmp_path: Path) -> bytes:
    """A library that says so when it is loaded; `ran` asks it."""
    source = tmp_path / "evil.c"
    source.write_text(EVIL)
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    assert os.system(f"{compiler} -shared -fPIC {source} -o {tmp_path / 'evil.so'}") == 0
    return (tmp_path / "evil.so").read_bytes()


def ran() -> bool:
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    return getenv(b"EDGE_RESTORE_EVIL") is not None


def again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Load the kernel as a new process does; whether it was compiled."""
    compiled: list[str] = []
    real = deform_sample._compile
    monkeypatch.setattr(deform_sample, "_compile", lambda c, f: (compiled.append(c), real(c, f))[1])
    deform_sample._compiled.cache_clear()
    library = deform_sample.library()
    assert library is not None and library.sample_forward
    monkeypatch.setattr(deform_sample, "_compile", real)
    return compiled


def test_it_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept(cache)
    assert path.stat().st_mode & 0o777 == 0o644
    assert cache.stat().st_mode & 0o077 == 0
    assert again(monkeypatch) == []


def replaced(path: Path, evil: bytes) -> None:
    path.write_bytes(evil)


def another_of_its_name(path: Path, evil: bytes) -> None:
    path.with_name(path.name.rpartition("-")[0] + "-" + "0" * 64 + ".so").write_bytes(evil)
    path.unlink()


def under_the_old_name(path: Path, evil: bytes) -> None:
    path.with_name(path.name.rpartition("-")[0] + ".so").write_bytes(evil)
    path.unlink()


def linked(path: Path, evil: bytes) -> None:
    other = path.with_name("other.bin")
    other.write_bytes(evil)
    path.unlink()
    path.symlink_to(other)


def linked_to_a_good_one(path: Path, evil: bytes) -> None:
    other = path.with_name("other.bin")
    path.rename(other)
    path.symlink_to(other)


def written_by_a_group(path: Path, evil: bytes) -> None:
    path.chmod(0o664)


def written_by_all(path: Path, evil: bytes) -> None:
    path.chmod(0o646)


def a_pipe(path: Path, evil: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


def given_away(path: Path, evil: bytes) -> None:
    os.chown(path, 12345, 12345)


def folder_of_a_group(path: Path, evil: bytes) -> None:
    os.chown(path.parent, os.geteuid(), 12345 if os.geteuid() == 0 else -1)
    path.parent.chmod(0o770)


def folder_of_all(path: Path, evil: bytes) -> None:
    path.parent.chmod(0o777)


def folder_given_away(path: Path, evil: bytes) -> None:
    os.chown(path.parent, 12345, 12345)


def cut_off(path: Path, evil: bytes) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path, evil: bytes) -> None:
    path.write_bytes(b"")


AS_ROOT = (given_away, folder_given_away, folder_of_a_group)


@pytest.mark.parametrize(
    "change",
    [
        *(replaced, another_of_its_name, under_the_old_name, linked, linked_to_a_good_one),
        *(written_by_a_group, written_by_all, a_pipe, folder_of_all, cut_off, empty),
        *(pytest.param(change, marks=needs_root) for change in AS_ROOT),
    ],
)
def test_what_others_could_have_written_is_never_loaded(
    change: Callable[[Path, bytes], None], cache: Path, evil: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(kept(cache), evil)
    assert len(again(monkeypatch)) == 1
    assert not ran()


def test_a_folder_like_tmp_will_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.chmod(0o1777)
    assert again(monkeypatch) == []


def test_a_file_swapped_after_its_check_is_not_loaded(
    cache: Path, evil: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deform_sample._loaded

    def swapped(content: bytes) -> ctypes.CDLL:
        replaced(kept(cache), evil)
        return real(content)

    monkeypatch.setattr(deform_sample, "_loaded", swapped)
    assert again(monkeypatch) == [] and not ran()


def test_without_files_in_memory_it_loads_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert again(monkeypatch) == []


def test_a_folder_that_cannot_be_written_costs_only_time(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(cache)
    cache.write_text("no folder")
    assert len(again(monkeypatch)) == 1


@pytest.mark.parametrize("variable", ["TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"])
@pytest.mark.parametrize("how", ["sound", "missing", "folder", "below", "file", "link"])
def test_compilers_get_a_folder_that_nobody_else_can_write(
    variable: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "caches"
    inner = folder / "abc"
    if how != "missing":
        inner.mkdir(parents=True)
        (inner / "kernel.so").write_bytes(b"code")
        folder.chmod(0o700)
        (inner / "kernel.so").chmod(0o644)
    if how == "folder":
        folder.chmod(0o777)
    elif how == "below":
        inner.chmod(0o777)
    elif how == "file":
        (inner / "kernel.so").chmod(0o666)
    elif how == "link":
        (folder / "more").symlink_to(inner)
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(folder if name == variable else tmp_path / name))
    compiler_caches.use_trusted.cache_clear()
    compiler_caches.use_trusted()
    compiler_caches.use_trusted.cache_clear()
    used = Path(os.environ[variable])
    assert (used == folder) == (how in ("sound", "missing"))
    assert used.is_dir() and used.stat().st_mode & 0o077 == 0


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    """A pickle that calls something when it is opened is refused, unopened."""
    from train import checkpoint

    class Evil:
        def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"network": Evil()}, tmp_path / "checkpoint.pt")
    recipe = pack = None  # it does not come so far
    with pytest.raises((pickle.UnpicklingError, UserError)):
        checkpoint.load(tmp_path / "checkpoint.pt", recipe, pack, torch.device("cpu"), 1)  # type: ignore[arg-type]
    assert not (tmp_path / "ran").exists()
