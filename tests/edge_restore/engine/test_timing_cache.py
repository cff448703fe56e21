"""Where measured kernel times are kept; the library itself needs a GPU (tests/gpu/test_builder)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge_restore.engine import timing_cache
from edge_restore.engine.flavour import Flavour
from edge_restore.storage import trusted_file
from tests.edge_restore.engine.test_plan import planned


class Config:
    """Stands for IBuilderConfig: a timing cache is made of bytes and gives bytes back."""

    def create_timing_cache(self, known: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(known + b"+"))

    def set_timing_cache(self, timings: Any, ignore_mismatch: bool) -> None:
        assert ignore_mismatch is False
        self.timings = timings

    def get_timing_cache(self) -> Any:
        return self.timings


PLAN = replace(
    planned("fp16"), flavour=Flavour("tensorrt", SimpleNamespace(IBuilderConfig=Config), "11.4.0")
)


def build(folder: Path) -> bytes:
    config = Config()
    path = timing_cache.attach(config, PLAN, folder)
    timing_cache.keep(config, path)
    assert path is not None
    return path.read_bytes()


def test_times_are_kept_between_builds(tmp_path: Path) -> None:
    assert [build(tmp_path) for _ in range(3)] == [b"+", b"++", b"+++"]
    (path,) = tmp_path.iterdir()
    assert path.name == "tensorrt-11_4_0-sm_89.timing"
    assert path.stat().st_mode & 0o777 == trusted_file.MODE


def test_each_version_and_gpu_has_its_own(tmp_path: Path) -> None:
    others = [
        replace(PLAN, targets=("sm_86",)),
        replace(PLAN, flavour=replace(PLAN.flavour, version="10.16.1.11")),
    ]
    assert len({timing_cache.file(plan, tmp_path) for plan in (PLAN, *others)}) == 3


def test_what_others_could_have_written_is_not_read(tmp_path: Path) -> None:
    build(tmp_path)
    path = timing_cache.file(PLAN, tmp_path)
    path.chmod(0o666)
    assert build(tmp_path) == b"+"  # measured anew
    assert path.stat().st_mode & 0o777 == trusted_file.MODE


def test_nowhere(rtx: Flavour, tmp_path: Path) -> None:
    assert timing_cache.attach(Config(), PLAN, None) is None
    assert timing_cache.attach(Config(), replace(PLAN, flavour=rtx), tmp_path) is None
    timing_cache.keep(Config(), None)


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    config = Config()
    timing_cache.attach(config, PLAN, tmp_path)
    timing_cache.keep(config, tmp_path / "none" / "x.timing")
    assert not list(tmp_path.iterdir())
