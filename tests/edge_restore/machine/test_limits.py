"""Limits of containers, read from recorded trees of the kernel's files, and from real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_restore.backends import memory, tiles
from edge_restore.errors import OptionError
from edge_restore.machine import limits

MIB = 1 << 20
V2 = "25 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MEMORY = "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V1_CPU = "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
DOCKER_V1 = (
    "33 31 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    "34 31 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
)
HYBRID = V1_MEMORY + V1_CPU + "35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
NO_V1_LIMIT = "9223372036854771712"


def tree(root: Path, files: dict[str, str]) -> Path:
    """A file system with 8 GiB free and `files`."""
    common = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n"}
    for name, text in (common | files).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def v2(path: str, mounts: str = V2, **files: str) -> dict[str, str]:
    """Files of groups in version 2; in the names of files _ is / and - is as it is."""
    return {
        "proc/self/cgroup": f"0::{path}",
        "proc/self/mountinfo": mounts,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }


SERVICE = "/system.slice/restore.service"
MEMORY = {
    "no groups at all": ({}, 8192),
    "no limit": (v2("/a", **{"a/memory.max": "max", "a/memory.current": "1"}), 8192),
    "the process's own group (systemd's MemoryMax=)": (
        v2(SERVICE, **{
            "system.slice/restore.service/memory.max": str(512 * MIB),
            "system.slice/restore.service/memory.current": str(112 * MIB),
        }),
        400,
    ),
    "a group above it": (
        v2(SERVICE, **{
            "system.slice/restore.service/memory.max": "max",
            "system.slice/restore.service/memory.current": str(5 * MIB),
            "system.slice/memory.max": str(1000 * MIB),
            "system.slice/memory.current": str(900 * MIB),
        }),
        100,
    ),
    "memory.high": (
        v2("/a/b", **{
            "a/memory.high": str(300 * MIB),
            "a/memory.max": str(900 * MIB),
            "a/memory.current": str(100 * MIB),
            "a/b/memory.max": "max",
        }),
        200,
    ),
    "the cache of files is free": (
        v2("/a", **{
            "a/memory.max": str(1000 * MIB),
            "a/memory.current": str(950 * MIB),
            "a/memory.stat": f"anon 1\nactive_file {9 * MIB}\ninactive_file {800 * MIB}\n",
        }),
        850,
    ),
    "used up": (
        v2("/a", **{"a/memory.max": str(100 * MIB), "a/memory.current": str(120 * MIB)}), 0,
    ),
    "a container's namespace": (
        v2("/", **{"memory.max": str(256 * MIB), "memory.current": str(56 * MIB)}), 200,
    ),
    "a group outside of the namespace": (
        v2("/../other", **{"memory.max": str(256 * MIB), "memory.current": str(56 * MIB)}), 200,
    ),
    "a mount with a blank in its name": (
        {
            "proc/self/cgroup": "0::/a",
            "proc/self/mountinfo": "25 1 0:22 / /my\\040groups rw - cgroup2 none rw",
            "my groups/a/memory.max": str(64 * MIB),
            "my groups/a/memory.current": "0",
        },
        64,
    ),
    "version 1, Docker's mount of the group": (
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc",
            "proc/self/mountinfo": DOCKER_V1,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(700 * MIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(600 * MIB),
            "sys/fs/cgroup/memory/memory.stat": f"cache 1\ntotal_inactive_file {500 * MIB}",
        },
        600,
    ),
    "version 1, a group above": (
        {
            "proc/self/cgroup": "5:memory:/jobs/17",
            "proc/self/mountinfo": HYBRID,
            "sys/fs/cgroup/memory/jobs/17/memory.limit_in_bytes": NO_V1_LIMIT,
            "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": str(300 * MIB),
            "sys/fs/cgroup/memory/jobs/memory.usage_in_bytes": str(100 * MIB),
        },
        200,
    ),
    "version 1, a group above that is not seen": (
        {
            "proc/self/cgroup": "5:memory:/docker/abc",
            "proc/self/mountinfo": DOCKER_V1,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_V1_LIMIT,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(100 * MIB),
            "sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {350 * MIB}",
        },
        250,
    ),
    "both versions beside each other": (
        {
            "proc/self/cgroup": "5:memory:/a\n0::/b",
            "proc/self/mountinfo": HYBRID,
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(99 * MIB),
            "sys/fs/cgroup/memory/a/memory.usage_in_bytes": str(9 * MIB),
        },
        90,
    ),
    "ulimit -v": (
        {
            "proc/self/limits": f"Max address space         {900 * MIB}            unlimited bytes",
            "proc/self/status": "VmPeak:  1 kB\nVmSize:   409600 kB",
        },
        500,
    ),
    "ulimit -d": (
        {
            "proc/self/limits": f"Max data size             {300 * MIB}            unlimited bytes",
            "proc/self/status": "VmData:   102400 kB",
        },
        200,
    ),
    "files that cannot be understood": (
        v2("/a", "nonsense\n25 1\n - \n" + V2, **{"a/memory.max": "lots", "a/memory.stat": "x"}),
        8192,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MEMORY)
def test_available_memory(case: str, tmp_path: Path) -> None:
    files, expected = MEMORY[case]
    assert limits.available_bytes(tree(tmp_path, files)) == expected * MIB


QUOTAS = {
    "none": ({}, None),
    "no quota": (v2("/a", **{"a/cpu.max": "max 100000"}), None),
    "half a processor": (v2("/a", **{"a/cpu.max": "50000 100000"}), 0.5),
    "one and a half": (v2("/a", **{"a/cpu.max": "150000 100000"}), 1.5),
    "of a group above": (
        v2("/a/b", **{"a/b/cpu.max": "max 100000", "a/cpu.max": "20000 10000"}), 2.0,
    ),
    "the least of all": (v2("/a/b", **{"a/b/cpu.max": "30 10", "a/cpu.max": "10 10"}), 1.0),
    "version 1": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc",
            "proc/self/mountinfo": DOCKER_V1,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        0.5,
    ),
    "version 1, none": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/",
            "proc/self/mountinfo": V1_CPU,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", QUOTAS)
def test_processor_quota(case: str, tmp_path: Path) -> None:
    files, expected = QUOTAS[case]
    assert limits.cpu_quota(tree(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("quota", "allowed", "installed", "expected"),
    [
        ("50000 100000", 8, 8, 1),
        ("150000 100000", 8, 8, 2),
        ("400000 100000", 8, 8, 4),
        ("800000 100000", 8, 8, None),
        ("1600000 100000", 8, 8, None),
        ("max 100000", 2, 8, 2),
        ("400000 100000", 2, 8, 2),
        ("max 100000", 8, 8, None),
    ],
)
def test_threads_fit_what_the_process_may_use(
    quota: str, allowed: int, installed: int, expected: int | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "cpu_count", lambda: installed)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    assert limits.threads(tree(tmp_path, v2("/a", **{"a/cpu.max": quota}))) == expected


def tile_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(limits.available_bytes, "__defaults__", (root,))
    return len(tiles.plan(1080, 1920, memory.max_area(None), 8))


def test_frames_that_do_not_fit_a_container_are_restored_in_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for place, mebibytes in enumerate((16384, 4096, 1024, 512)):
        limit = {"a/memory.max": str(mebibytes * MIB), "a/memory.current": "0"}
        counts.append(tile_count(tree(tmp_path / str(place), v2("/a", **limit)), monkeypatch))
    # 8 GiB are free on the machine: only one frame of this size needs 4.2 GiB.
    assert counts == sorted(counts) and len(set(counts[1:])) == 3
    limit = {"a/memory.max": str(100 * MIB), "a/memory.current": str(99 * MIB)}
    with pytest.raises(OptionError, match="smallest tile") as caught:
        tile_count(tree(tmp_path / "none", v2("/a", **limit)), monkeypatch)
    assert "container" in caught.value.hint


@pytest.fixture(params=["memory", "cpu"])
def real_group(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A group of this kernel's below the one that we are in, with a limit."""
    controller: str = request.param
    group = next(limits._groups(Path("/"), controller), None)
    if group is None or os.geteuid() != 0:
        pytest.skip("no control groups here, or not root")
    folder = group.folder / f"edge-restore-test-{os.getpid()}"
    limit = {
        ("memory", 1): ("memory.limit_in_bytes", str(700 * MIB)),
        ("memory", 2): ("memory.max", str(700 * MIB)),
        ("cpu", 1): ("cpu.cfs_quota_us", "50000"),
        ("cpu", 2): ("cpu.max", "50000 100000"),
    }
    try:
        folder.mkdir()
        name, value = limit[controller, group.version]
        if not (folder / name).exists():
            raise OSError("the controller is not passed on")
        (folder / name).write_text(value)
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no group can be made here: {error}")
    yield controller, folder
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.1)


def test_a_real_group_limits(real_group: tuple[str, Path]) -> None:
    controller, folder = real_group
    code = (
        f"import os; open({str(folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        "from edge_restore.machine import limits\n"
        "print(limits.available_bytes() >> 20, limits.cpu_quota(), limits.usable_cores())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        cwd=Path(limits.__file__).parents[2],
    )  # fmt: skip
    if result.returncode:
        pytest.skip(f"no process can be put there: {result.stderr.splitlines()[-1]}")
    free, quota, cores = result.stdout.split()
    if controller == "memory":
        assert 500 < int(free) <= 700
    else:
        assert (quota, cores) == ("0.5", "1")
