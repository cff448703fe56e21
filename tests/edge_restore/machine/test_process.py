"""Real processes of the command lines: signals at any moment, lost streams, `python -OO`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_restore.errors import OptionError
from edge_restore.machine import process

ROOT = Path(process.__file__).parents[2]
BUSY = """
import signal, sys
from edge_restore.machine import process
from edge_restore.storage import temporaries
process.guard()
print("guarded", flush=True)
import time
def work():
    with {block} as stop:
        print("working", flush=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not ({ends} and stop.event.is_set()):
            time.sleep(0.01)
    return stop.exit_code
def main():
    return process.run("busy", work, kept="all is kept")
process.finish(main)
"""
STOPS = BUSY.format(block="process.stop_on_signal()", ends=True)
GOES_ON = BUSY.format(block="process.stop_on_signal()", ends=False)
PLAIN = BUSY.format(block="temporaries.temporary(sys.argv[1])", ends=False)


def child(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    for stream in ("stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], text=True, env=environment, **options
    )


def working(code: str, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    started = child("-c", code, *arguments, **options)
    assert started.stdout is not None
    assert started.stdout.readline() == "guarded\n"
    assert started.stdout.readline() == "working\n"
    return started


@pytest.mark.parametrize("number", process.SIGNALS)
def test_first_signal_is_noted_in_a_block(number: int) -> None:
    busy = working(STOPS)
    busy.send_signal(number)
    _, error = busy.communicate(timeout=10)
    assert (busy.returncode, error) == (128 + number, "")


@pytest.mark.parametrize("number", process.SIGNALS)
def test_second_signal_ends_at_once(number: int) -> None:
    busy = working(GOES_ON)
    busy.send_signal(number)
    time.sleep(0.2)
    assert busy.poll() is None
    busy.send_signal(number)
    started = time.monotonic()
    _, error = busy.communicate(timeout=10)
    assert time.monotonic() - started < 2
    assert busy.returncode == 128 + number
    assert error == "busy: interrupted; all is kept\n"


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("number", process.SIGNALS)
def test_signal_removes_temporary_files_and_folders(
    number: int, times: int, tmp_path: Path
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    (folder / "half").touch()
    busy = working(PLAIN, folder)
    for _ in range(times):
        busy.send_signal(number)
    _, error = busy.communicate(timeout=10)
    assert busy.returncode == 128 + number
    assert error == "busy: interrupted; all is kept\n"
    assert not folder.exists()


def test_signal_ends_a_process_that_is_deep_in_c() -> None:
    """Python's handlers wait for the next line of Python; a builder takes minutes."""
    deep = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 80_000_000)"
    stuck = STOPS.replace("time.sleep(0.01)", deep)
    busy = working(stuck)
    for _ in range(2):
        time.sleep(0.2)
        busy.send_signal(signal.SIGTERM)
    _, error = busy.communicate(timeout=10)
    assert (busy.returncode, error) == (143, "busy: interrupted; all is kept\n")


@pytest.mark.parametrize("number", process.SIGNALS)
def test_ignored_signal_stays_ignored(number: int) -> None:
    """As `nohup` has it."""
    ignored = signal.signal(number, signal.SIG_IGN)
    try:
        busy = working(STOPS)
    finally:
        signal.signal(number, ignored)
    busy.send_signal(number)
    time.sleep(0.3)
    assert busy.poll() is None
    busy.kill()
    busy.communicate()


def test_signal_during_the_interpreter_s_end_changes_nothing() -> None:
    code = """
import atexit, os, signal, sys
from edge_restore.machine import process
from edge_restore.storage import temporaries
process.guard()
def late():
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
atexit.register(late)
process.finish(lambda: 0)
"""
    ended = child("-c", code)
    assert ended.communicate(timeout=10) == ("", "")
    assert ended.returncode == 0


def test_worker_processes_end_with_their_parent() -> None:
    code = """
import multiprocessing, time
from edge_restore.machine import process
from edge_restore.storage import temporaries
process.guard()
print("guarded", flush=True)
def main():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print("working", flush=True)
        pool.map(time.sleep, [60, 60])
process.finish(main)
"""
    busy = working(code, start_new_session=True)
    time.sleep(0.3)
    os.killpg(busy.pid, signal.SIGINT)  # as a terminal does
    _, error = busy.communicate(timeout=10)  # its pipes close when all are gone
    assert (busy.returncode, error) == (130, "")


COMMANDS: dict[str, tuple[str, ...]] = {
    "edge_restore": ("models",),
    "train": ("networks",),
    "export": ("svdn", "--weights", "missing", "--out", "x.onnx"),
    "calibration": ("layers", "missing.onnx"),
}


@pytest.mark.parametrize("package", COMMANDS)
def test_ctrl_c_at_any_moment_leaves_no_traceback(package: str, tmp_path: Path) -> None:
    """Once it is ours: a signal in the interpreter's own start is the interpreter's."""
    command = ("-m", package, *COMMANDS[package])
    started = time.monotonic()
    whole = child(*command, cwd=tmp_path)
    whole.communicate(timeout=120)
    seconds = time.monotonic() - started
    start = interpreter_seconds()
    steps = 6
    for step in range(steps):
        started = child(*command, cwd=tmp_path)
        time.sleep(start + (seconds - start) * step / (steps - 1))
        for _ in range(1 + step % 3):
            started.send_signal(signal.SIGINT)
            time.sleep(0.002)
        _, error = started.communicate(timeout=120)
        assert "Traceback" not in error and "Exception ignored" not in error, error
        assert started.returncode in (130, whole.returncode), error


def interpreter_seconds() -> float:
    """How long Python needs until our first line, at most."""
    times = []
    for _ in range(3):
        started = time.monotonic()
        child("-c", "import runpy, edge_restore.machine.process").communicate()
        times.append(time.monotonic() - started)
    return max(times)


# What is printed, and where it goes.


@pytest.mark.parametrize("package", COMMANDS)
@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_help_does_not_come_from_docstrings(package: str, option: str) -> None:
    plain = subprocess.check_output([sys.executable, "-m", package, "--help"], cwd=ROOT, text=True)
    optimised = child(option, "-m", package, "--help", cwd=ROOT)
    assert optimised.communicate(timeout=60) == (plain, "")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = command.replace("edge-restore", f"{sys.executable} -m edge_restore")
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("edge-restore models >&-", 0, ""),
        ("edge-restore models --json >/dev/full", 2, "No space left on device"),
        ("edge-restore models 2>&-", 0, ""),
        ("edge-restore models 2>/dev/full", 0, ""),
        ("edge-restore models <&- >&- 2>&-", 0, ""),
        ("edge-restore run missing.mp4 --out x.mp4 2>&-", 2, ""),
        ("edge-restore run missing.mp4 --out x.mp4 2>/dev/full", 2, ""),
        ("edge-restore unheard 2>/dev/full", 2, ""),
        ("edge-restore --version >/dev/full", 2, "No space left on device"),
        ("edge-restore models --json | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("edge-restore --help | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("edge-restore unheard |& true; exit ${PIPESTATUS[0]}", 2, ""),
    ],
)
def test_lost_streams(command: str, code: int, message: str) -> None:
    if "/dev/full" in command and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    result = shell(command.replace("| true", "| { exec <&-; sleep 2; }"))
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == (3 if message else 0), result.stderr


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    code = (
        "from edge_restore.machine import process\n"
        "process.guard()\n"
        "process.finish(lambda: print('x' * 300_000))"
    )
    started = child("-c", code, stdout=write)
    os.close(write)
    with os.fdopen(read) as stream:
        time.sleep(0.5)
        assert len(stream.read()) == 300_001
    assert started.communicate()[1] == "" and started.returncode == 0


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_a_terminal_that_went_away() -> None:
    master, slave = os.openpty()
    code = """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from edge_restore.machine import process
from edge_restore.progress import Progress
process.guard()
def main():
    with Progress(100, "x") as progress:
        for _ in range(20):
            progress.advance()
            time.sleep(0.1)
    open(__import__("sys").argv[1], "w").write("done")
process.finish(main)
"""
    out = Path(os.environ.get("TMPDIR", "/tmp"), f"process-{os.getpid()}")
    started = child("-c", code, out, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    time.sleep(1)
    os.close(master)
    try:
        assert started.wait(timeout=20) == 0
        assert out.read_text() == "done"
    finally:
        out.unlink(missing_ok=True)


ENCODINGS = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C.UTF-8"},
]


@pytest.mark.parametrize("environment", ENCODINGS, ids=str)
def test_names_that_cannot_be_encoded(environment: dict[str, str], tmp_path: Path) -> None:
    for name in (b"\xff.mp4", "ä漢.mp4".encode(), b"\x1b[31mred\n.mp4"):
        started = subprocess.run(
            [sys.executable, "-m", "edge_restore", "run", name, "--out", b"x" + name],
            capture_output=True, cwd=tmp_path, check=False, timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        assert started.returncode == 2, started.stderr
        assert b"Traceback" not in started.stderr and b"\x1b" not in started.stderr
        assert b"there is no file" in started.stderr
        assert started.stderr.count(b"\n") == 3


# In-process: `main` may be called by a test or another program.


def test_errors_become_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> int:
        raise error

    option = OptionError("a\x1b[2Jb", expected="b", hint="c")
    for error, code, message in (
        (option, 2, "error: a\\x1b[2Jb\n  expected: b"),
        (MemoryError(), 2, "not enough memory"),
        (OSError(28, "No space left on device", "/x\ny"), 2, "'/x\\ny': No space left"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
        (process.Interrupted(signal.SIGHUP), 129, "interrupted; nothing was written"),
    ):
        assert process.run("p", lambda e=error: fail(e), kept="nothing was written") == code
        assert message in capsys.readouterr().err
    assert process.run("p", lambda: None, kept="") == 0
    assert process.run("p", lambda: 1, kept="") == 1


@pytest.mark.parametrize("home", [None, "", "relative", "missing"])
def test_user_whom_the_system_does_not_know(home: str | None, tmp_path: Path) -> None:
    """As `docker run --user 12345`: no home, no entry among the users, no folder to write to."""
    unshare = ["unshare", "--user", "--map-user=12345"]
    try:
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no user namespaces here")
    except FileNotFoundError:
        pytest.skip("no unshare here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "no")}
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    if home is not None:
        environment["HOME"] = str(tmp_path / home) if home == "missing" else home
    for command in ("engines", "models"):
        result = subprocess.run(
            [*unshare, sys.executable, "-m", "edge_restore", command], capture_output=True,
            text=True, env=environment, check=False, timeout=120, cwd="/",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
