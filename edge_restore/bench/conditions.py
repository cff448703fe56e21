"""What else was going on while something was timed: other programs, clocks, heat, power limits."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BUSY = 0.10
"""Share of the processors that other programs may take before a measurement is in doubt."""

SLOWED = 0.90
"""Share of its greatest clock below which a processor counts as slowed down."""

_CPUS = Path("/sys/devices/system/cpu")
_ZONES = Path("/sys/class/thermal")
_STAT = Path("/proc/stat")
_ENERGY = Path("/sys/class/powercap")
_DEVFREQ = Path("/sys/class/devfreq")
_ASK_GPU = (
    "nvidia-smi", "--id=0", "--format=csv,noheader,nounits",
    "--query-gpu=clocks.sm,clocks.max.sm,power.draw,temperature.gpu",
)  # fmt: skip


@dataclass(frozen=True)
class GpuConditions:
    """A GPU's state at one moment; None where it does not tell."""

    clock_mhz: float | None
    max_clock_mhz: float | None
    watts: float | None
    celsius: float | None


@dataclass(frozen=True)
class Conditions:
    """The machine's state at one moment; None where it does not tell.

    Attributes:
        busy_seconds: of all processors since the system started, by anybody.
        stolen_seconds: that the host of a virtual machine gave to others.
        own_seconds: of this process and the children it has waited for.
        at: `time.monotonic` seconds.
        governor: of the processors' frequency, e.g. "performance".
        clock_mhz: mean over the processors.
        max_clock_mhz: that they are allowed.
        celsius: the hottest thermal zone.
        joules: that the processors' packages took since some moment, by their own meter (RAPL).
        gpu: of the first one.
    """

    busy_seconds: float | None
    stolen_seconds: float | None
    own_seconds: float
    at: float
    governor: str | None
    clock_mhz: float | None
    max_clock_mhz: float | None
    celsius: float | None
    joules: float | None = None
    gpu: GpuConditions | None = None


def now(*, gpu: bool = False) -> Conditions:
    """The state of this machine, with that of its GPU if that is what computes."""
    times = os.times()
    busy, stolen = _processor_seconds()
    return Conditions(
        busy_seconds=busy,
        stolen_seconds=stolen,
        own_seconds=times.user + times.system + times.children_user + times.children_system,
        at=time.monotonic(),
        governor=_text(_CPUS / "cpu0/cpufreq/scaling_governor"),
        clock_mhz=_mean(_CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"), 1e-3),
        max_clock_mhz=_mean(_CPUS.glob("cpu[0-9]*/cpufreq/scaling_max_freq"), 1e-3),
        celsius=_greatest(_ZONES.glob("thermal_zone*/temp"), 1e-3),
        joules=_sum(_ENERGY.glob("intel-rapl:?/energy_uj"), 1e-6),
        gpu=_gpu() if gpu else None,
    )


def readings(before: Conditions, after: Conditions) -> dict[str, str]:
    """What the machine tells of clocks, heat and power, with units; what it does not is left out.

    Clocks and temperatures are those at the end, when the last frame was just done; the power of
    the processors is the mean between the two moments, the GPU's that at the end.
    """
    gpu = after.gpu or GpuConditions(None, None, None, None)
    watts = None
    if before.joules is not None and after.joules is not None and after.at > before.at:
        # The meter starts again from zero every few minutes under load.
        taken = after.joules - before.joules
        watts = taken / (after.at - before.at) if taken > 0 else None
    found = {
        "governor": after.governor,
        "clock": _with_unit(after.clock_mhz, "MHz"),
        "temperature": _with_unit(after.celsius, "°C"),
        "power": _with_unit(watts, "W"),
        "GPU clock": _with_unit(gpu.clock_mhz, "MHz"),
        "GPU temperature": _with_unit(gpu.celsius, "°C"),
        "GPU power": _with_unit(gpu.watts, "W"),
    }
    return {what: text for what, text in found.items() if text is not None}


def background(before: Conditions, after: Conditions, processors: int) -> float | None:
    """The share of the processors, 0 to 1, that others took in between; None where unknown."""
    if before.busy_seconds is None or after.busy_seconds is None:
        return None
    span = (after.at - before.at) * processors
    own = after.own_seconds - before.own_seconds
    others = after.busy_seconds - before.busy_seconds - own
    stolen = (after.stolen_seconds or 0.0) - (before.stolen_seconds or 0.0)
    return max(0.0, others + stolen) / span if span > 0 else None


def warnings(before: Conditions, after: Conditions, processors: int) -> list[str]:
    """What may have spoiled a measurement between the two moments, in sentences."""
    found = []
    share = background(before, after, processors)
    if share is not None and share > BUSY:
        found.append(f"other programs took {share:.0%} of the processors' time")
    if after.governor is not None and after.governor != "performance":
        found.append(f"the clock's governor is '{after.governor}': frequencies follow the load")
    if after.clock_mhz and after.max_clock_mhz:
        kept = after.clock_mhz / after.max_clock_mhz
        if kept < SLOWED:
            found.append(
                f"the processors ran at {after.clock_mhz:.0f} of {after.max_clock_mhz:.0f} MHz"
            )
    if (gpu := after.gpu) is not None and gpu.clock_mhz and gpu.max_clock_mhz:
        kept = gpu.clock_mhz / gpu.max_clock_mhz
        if kept < SLOWED:
            found.append(f"the GPU ran at {gpu.clock_mhz:.0f} of {gpu.max_clock_mhz:.0f} MHz")
    return found


def _gpu() -> GpuConditions | None:
    """Of a graphics card by its driver's tool; of a Jetson by the kernel, which tells its clock."""
    clocks, greatest = (
        _mean(_DEVFREQ.glob(f"*gpu*/{name}"), 1e-6) for name in ("cur_freq", "max_freq")
    )
    if clocks is not None:
        return GpuConditions(clocks, greatest, None, None)
    if shutil.which(_ASK_GPU[0]) is None:
        return None
    try:
        said = subprocess.run(_ASK_GPU, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [_number(word) for word in said.stdout.partition("\n")[0].split(",")]
    return GpuConditions(*values) if len(values) == 4 else None


def _number(word: str) -> float | None:
    """A field of the tool's answer; it writes "[N/A]" for what it does not know."""
    try:
        return float(word)
    except ValueError:
        return None


def _with_unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:.0f} {unit}"


def _processor_seconds() -> tuple[float | None, float | None]:
    """Busy and stolen seconds of all processors since the system started."""
    line = (_text(_STAT) or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None, None
    ticks = [int(word) for word in line[1:9]]
    user, nice, system, _idle, _waiting, irq, softirq, steal = ticks
    second = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / second, steal / second


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _numbers(paths: Iterable[Path], scale: float) -> list[float]:
    texts = [_text(path) for path in sorted(paths)]
    return [float(t) * scale for t in texts if t is not None and t.lstrip("-").isdigit()]


def _mean(paths: Iterable[Path], scale: float) -> float | None:
    values = _numbers(paths, scale)
    return sum(values) / len(values) if values else None


def _sum(paths: Iterable[Path], scale: float) -> float | None:
    values = _numbers(paths, scale)
    return sum(values) if values else None


def _greatest(paths: Iterable[Path], scale: float) -> float | None:
    return max(_numbers(paths, scale), default=None)
