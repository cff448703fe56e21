"""What the machine says of itself while something is timed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edge_restore.bench import conditions
from edge_restore.bench.conditions import Conditions

QUIET = Conditions(100.0, 0.0, 10.0, 0.0, "performance", 3000.0, 3000.0, 50.0)


def later(**changes: object) -> Conditions:
    return replace(QUIET, **{"at": 10.0, **changes})  # type: ignore[arg-type]


def test_own_work_is_not_background() -> None:
    before = conditions.now()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    after = conditions.now()
    assert after.own_seconds - before.own_seconds > 0.25
    assert after.busy_seconds is not None and before.busy_seconds is not None
    assert after.busy_seconds - before.busy_seconds > 0.2
    assert conditions.background(before, after, os.cpu_count() or 1) is not None


def test_background_is_what_others_took() -> None:
    after = later(busy_seconds=115.0, own_seconds=20.0)
    assert conditions.background(QUIET, after, 2) == pytest.approx(0.25)
    stolen = later(busy_seconds=110.0, own_seconds=20.0, stolen_seconds=4.0)
    assert conditions.background(QUIET, stolen, 2) == pytest.approx(0.2)
    assert conditions.background(replace(QUIET, busy_seconds=None), after, 2) is None


def test_a_quiet_machine_has_no_warnings() -> None:
    assert conditions.warnings(QUIET, later(busy_seconds=110.0, own_seconds=20.0), 2) == []


def test_warnings_name_what_was_seen() -> None:
    after = later(busy_seconds=118.0, own_seconds=20.0, governor="powersave", clock_mhz=1200.0)
    said = " / ".join(conditions.warnings(QUIET, after, 2))
    assert "other programs took 40%" in said
    assert "'powersave'" in said and "1200 of 3000 MHz" in said


def test_a_machine_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CPUS", "_ZONES", "_STAT", "_ENERGY", "_DEVFREQ"):
        monkeypatch.setattr(conditions, name, tmp_path / "nothing")
    monkeypatch.setattr(conditions, "_ASK_GPU", ("no-such-tool",))
    found = conditions.now(gpu=True)
    assert found.gpu is None and conditions.readings(found, found) == {}
    assert found.busy_seconds is None and found.celsius is None and found.clock_mhz is None
    assert conditions.warnings(found, found, 2) == []


def test_files_of_a_machine_that_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, current in enumerate((1_000_000, 2_000_000)):
        folder = tmp_path / f"cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{current}\n")
        (folder / "scaling_max_freq").write_text("2000000\n")
        (folder / "scaling_governor").write_text("schedutil\n")
    for number, heat in enumerate((40_000, 71_500)):
        zone = tmp_path / f"zones/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(f"{heat}\n")
    monkeypatch.setattr(conditions, "_CPUS", tmp_path)
    monkeypatch.setattr(conditions, "_ZONES", tmp_path / "zones")
    found = conditions.now()
    assert (found.governor, found.clock_mhz, found.max_clock_mhz) == ("schedutil", 1500, 2000)
    assert found.celsius == 71.5


def test_power_is_the_mean_between() -> None:
    before = replace(QUIET, joules=100.0)
    assert conditions.readings(before, later(joules=350.0)) == {
        "governor": "performance", "clock": "3000 MHz", "temperature": "50 °C", "power": "25 W",
    }  # fmt: skip
    assert "power" not in conditions.readings(before, later(joules=20.0))  # the meter began anew


def test_the_energy_of_every_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, microjoules in (
        ("intel-rapl:0", 5_000_000), ("intel-rapl:1", 2_000_000), ("intel-rapl:0:0", 9_000_000),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    monkeypatch.setattr(conditions, "_ENERGY", tmp_path)
    assert conditions.now().joules == 7.0  # a core's is in its package's


@pytest.mark.parametrize(
    ("said", "read", "slowed"),
    [
        ("1980, 1980, 118.33, 45\n", "1980 MHz, 118 W, 45 °C", False),
        ("600, 1980, [N/A], 45\n", "600 MHz, None, 45 °C", True),
    ],
)
def test_a_graphics_card_is_asked(
    said: str, read: str, slowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{said}'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(conditions, "_ASK_GPU", (str(tool), *conditions._ASK_GPU[1:]))
    monkeypatch.setattr(conditions, "_DEVFREQ", tmp_path / "nothing")
    assert conditions.now().gpu is None  # nobody asked
    after = replace(later(), gpu=conditions.now(gpu=True).gpu)
    found = conditions.readings(QUIET, after)
    shown = ", ".join(str(found.get(f"GPU {what}")) for what in ("clock", "power", "temperature"))
    assert shown == read
    assert any("the GPU ran at" in one for one in conditions.warnings(QUIET, after, 2)) == slowed


def test_a_jetson_tells_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "17000000.gpu"
    device.mkdir()
    (device / "cur_freq").write_text("306000000\n")
    (device / "max_freq").write_text("918000000\n")
    monkeypatch.setattr(conditions, "_DEVFREQ", tmp_path)
    after = replace(later(), gpu=conditions.now(gpu=True).gpu)
    assert conditions.readings(QUIET, after)["GPU clock"] == "306 MHz"
    assert "the GPU ran at 306 of 918 MHz" in conditions.warnings(QUIET, after, 2)
