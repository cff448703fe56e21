"""How much memory and processor time this process may have: of the machine, and of its container.

A container, a service (systemd's MemoryMax=, CPUQuota=) or a batch job is limited by control groups
of the kernel, version 1 or 2, which form a tree: each group above the process is a limit. All is
read from files below `root`, which is / but in tests.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FALLBACK_BYTES = 2 << 30
"""Taken as free on systems that do not tell."""

_NO_LIMIT = 1 << 60
"""Version 1 says "no limit" with the largest number of pages."""

_ROOT = Path("/")


def available_bytes(root: Path = _ROOT) -> int:
    """Memory that a new allocation can have without swapping, in bytes."""
    free = [_machine_free(root), *_rlimits(root)]
    for group in _groups(root, "memory"):
        free += _group_free(group)
    return max(0, min(free))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Processors that the control groups allow, such as 0.5; None for no limit."""
    quotas = []
    for group in _groups(root, "cpu"):
        if group.version == 2:
            quota_text, _, period = _text(group.folder / "cpu.max").partition(" ")
        else:
            quota_text = _text(group.folder / "cpu.cfs_quota_us")
            period = _text(group.folder / "cpu.cfs_period_us")
        quota, length = _whole(quota_text), _whole(period)
        if quota is not None and length and quota > 0:
            quotas.append(quota / length)
    return min(quotas, default=None)


def usable_cores(root: Path = _ROOT) -> int:
    """How many processors this process can keep busy: of its affinity and its quota the less."""
    cores = _allowed_cores()
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def threads(root: Path = _ROOT) -> int | None:
    """How many threads to compute with where something limits them; None to let a library choose.

    More threads than processors are slower than as many: they wait for each other, and a group that
    has used its quota up stands still until the next period.
    """
    cores = usable_cores(root)
    return cores if cores < (os.cpu_count() or 1) else None


@dataclass(frozen=True)
class _Group:
    folder: Path
    version: int


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """The control groups of this process that may limit `controller`, the innermost first."""
    paths = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            paths[1] = path
        elif number == "0" and not names:
            paths[2] = path
    for mount in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = mount.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        version = {"cgroup": 1, "cgroup2": 2}.get(kind[0])
        if version not in paths or (version == 1 and controller not in kind[2].split(",")):
            continue
        top = root / _unescaped(fields[4]).lstrip("/")
        inner = _below(paths[version], _unescaped(fields[3]))
        for folder in (top / inner, *(top / each for each in inner.parents)):
            if folder.is_dir():
                yield _Group(folder, version)


def _below(path: str, mounted: str) -> PurePosixPath:
    """A group's path under a mount of the group `mounted`; its top where it is not below that."""
    given, top = PurePosixPath(path), PurePosixPath(mounted)
    # In a namespace of its own a process sees "/", or "/../other" for a group outside.
    if ".." in given.parts:
        return PurePosixPath()
    if given.is_relative_to(top):
        return given.relative_to(top)
    return given.relative_to("/") if str(top).startswith("/..") else PurePosixPath()


def _group_free(group: _Group) -> list[int]:
    """What each limit of one group leaves; pages of files that were not used lately are free."""
    statistics = dict(
        line.split(" ", 1)
        for line in _text(group.folder / "memory.stat").splitlines()
        if " " in line
    )
    if group.version == 2:
        names, used_name, cache = ["memory.max", "memory.high"], "memory.current", "inactive_file"
    else:
        names, used_name = ["memory.limit_in_bytes"], "memory.usage_in_bytes"
        cache = "total_inactive_file"
    limits = [_whole(_text(group.folder / name)) for name in names]
    # Of groups above that are not seen from here.
    limits.append(_whole(statistics.get("hierarchical_memory_limit", "")))
    used = _whole(_text(group.folder / used_name)) or 0
    used = max(0, used - (_whole(statistics.get(cache, "")) or 0))
    return [limit - used for limit in limits if limit is not None and limit < _NO_LIMIT]


def _rlimits(root: Path) -> list[int]:
    """What `ulimit -v` and `ulimit -d` leave."""
    used = {}
    for line in _text(root / "proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmSize", "VmData") and value.split():
            used[name] = (_whole(value.split()[0]) or 0) * 1024
    left = []
    for line in _text(root / "proc/self/limits").splitlines():
        for title, name in (("Max address space", "VmSize"), ("Max data size", "VmData")):
            if line.startswith(title):
                limit = _whole(line.removeprefix(title).split()[0])
                if limit is not None and limit < _NO_LIMIT:
                    left.append(limit - used.get(name, 0))
    return left


def _machine_free(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:") and (free := _whole(line.split()[1])) is not None:
            return free * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return FALLBACK_BYTES


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _unescaped(path: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escape, character)
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""


def _whole(text: str) -> int | None:
    """The number that a file holds; None when it is missing or holds a word, as "max"."""
    return int(text) if text.removeprefix("-").isdecimal() and text.isascii() else None
