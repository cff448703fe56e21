"""Launching kernels through the driver: what it is called with, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from edge_restore.engine.gpu import this_gpu
from edge_restore.engine.plugin import driver
from edge_restore.errors import BackendError
from tests.edge_restore.engine import cuda_stand_in

LAUNCH = """
from edge_restore.engine.plugin import driver
from edge_restore.errors import BackendError
try:
    function = driver.load(b".version 8.5", "deform_conv")
    assert driver.load(b".version 8.5", "deform_conv") == function
    other = driver.load(b".version 8.50", "deform_conv")
    assert other != function
    driver.launch(
        function, (7, 2, 3), 128, 16384, 0xABC0, range(0x7FFF00000000, 0x7FFF00000005),
        [-1, 2**31 - 1, *range(18)], [0x9000],
    )
except BackendError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = cuda_stand_in.compile_stand_in(tmp_path_factory.mktemp("cuda"))
    if folder is None:
        pytest.skip("gcc is missing: it compiles the stand-in for the CUDA driver")
    return folder


def run(stand_in: Path, log: Path, fail: str = "") -> str:
    result = subprocess.run(
        [sys.executable, "-c", LAUNCH],
        env=cuda_stand_in.environment(stand_in, log, fail=fail),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_arguments_arrive_as_they_were_given(stand_in: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(stand_in, log) == ""
    calls = log.read_text().splitlines()
    (launch,) = [line for line in calls if line.startswith("cuLaunchKernel ")]
    text_length = len(".version 8.5")
    pointers = " ".join(hex(address) for address in range(0x7FFF00000000, 0x7FFF00000005))
    numbers = " ".join(str(n) for n in [-1, 2**31 - 1, *range(18)])
    assert launch == (
        f"cuLaunchKernel {hex(0x12000 + text_length)} 7,2,3 128,1,1 16384 0xabc0 "
        f"{pointers} {numbers} 0x9000"
    )
    assert calls.count("cuModuleLoadDataEx") == 2  # one for each text
    assert calls.count("cuInit") == 1


def test_the_primary_context_is_entered_once_where_there_is_none(
    stand_in: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    run(stand_in, log)
    calls = log.read_text().splitlines()
    assert calls.count("cuDevicePrimaryCtxRetain") == 1
    assert calls.index("cuCtxSetCurrent") < calls.index("cuModuleLoadDataEx")


@pytest.mark.parametrize(
    ("function", "doing"),
    [
        ("cuInit", "start"),
        ("cuDevicePrimaryCtxRetain", "make a context"),
        ("cuModuleLoadDataEx", "compile the kernel 'deform_conv' (line 1: what is this?)"),
        ("cuModuleGetFunction", "find the kernel 'deform_conv'"),
        ("cuLaunchKernel", "launch a kernel"),
    ],
)
def test_a_call_that_fails_says_what_and_why(
    stand_in: Path, tmp_path: Path, function: str, doing: str
) -> None:
    said = run(stand_in, tmp_path / "log", fail=function)
    assert f"the CUDA driver cannot {doing}" in said
    assert "a PTX JIT compilation failed (error 218)" in said
    assert "hint:" in said


@cache
def has_driver() -> bool:
    return this_gpu() is not None


def test_no_driver() -> None:
    if has_driver():
        pytest.skip("this machine has a driver")
    with pytest.raises(BackendError, match=r"there is no CUDA driver: libcuda\.so\.1") as caught:
        driver.load(b"", "nothing")
    assert "--backend onnxruntime" in caught.value.hint
