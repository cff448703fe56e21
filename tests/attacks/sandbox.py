"""Running one command on one case: a child of this process with limits, in a folder of its own.

Starting Python for each case would take longer than the case, so a process that has imported what
the command needs forks for each. Nothing outside the run's folder can be touched: arguments that
could be paths are resolved and compared with it; the working directory, HOME and the temporary
folder lie in it; the kernel refuses writes elsewhere, to root too, where it has Landlock; and root
becomes nobody where nobody can read the source.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import os
import pickle
import re
import resource
import runpy
import select
import shutil
import signal
import stat
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.attacks import kind as kinds
from tests.attacks.kind import PROGRAMS, Attack, Outcome, Verdict

REPOSITORY = Path(__file__).parents[2]
SECONDS = 30.0
"""A case that takes longer hangs."""

_MEMORY = 4 << 30
_FILE = 256 << 20
_NOBODY = 65534
_EXCEPTION = re.compile(r"^Traceback \(most recent call last\)", re.MULTILINE)
_DIED = re.compile(r"Fatal Python error|terminate called|Segmentation fault|Aborted")
_WARNING = re.compile(r"^(?:[\w-]+: )?(?:warning: |left out: |skipped: [1-9])", re.MULTILINE)
_TEMPORARY = re.compile(r"^\.|\.tmp$|~$")

_IMPORTED = ("av", "calibration", "cv2", "edge_restore", "export", "numpy", "onnx", "onnxruntime",
             "onnxscript", "safetensors", "torch", "train")  # fmt: skip
"""OpenVINO is none of them: importing it starts a thread."""

T = TypeVar("T")


class OutsideError(Exception):
    """An attack named a path outside the run's folder; it is not run."""


class Sandbox:
    """A folder for cases, and what runs them.

    Args:
        root: of the whole run; no argument may point outside it.
        seconds: see `SECONDS`.
    """

    def __init__(self, root: Path, seconds: float = SECONDS) -> None:
        self.root = root.resolve()
        self.seconds = seconds
        self._learning = False
        self._uid = _NOBODY if os.geteuid() == 0 and _nobody_can_read(self.root) else None

    def run(self, attack: Attack, case: Path, *, afresh: bool = False) -> Outcome:
        """Run the attack in ``case/work``.

        Args:
            attack: what to run; the folder holds its files already.
            case: the case's folder.
            afresh: start a Python of its own, as a user does.
        """
        work = case / "work"
        self.check_arguments(attack.arguments, work)
        for name in ("home", "tmp"):
            (case / name).mkdir(exist_ok=True)
        if self._uid is not None:
            _give(case, self._uid)
        started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _in_child(lambda: self._start(attack, case, afresh))
        code = self._wait(child, self.seconds)
        seconds = time.monotonic() - started
        out, err = (_text(case / name) for name in ("stdout", "stderr"))
        return Outcome(code, out, err, work, seconds)

    def learn(self, attack: Attack, case: Path) -> Outcome:
        """As `run`, and import what the command imported, so that no case has to."""
        self._learning = True
        outcome = self.run(attack, case)
        self._learning = False
        used = set((case / "modules").read_text().split()) if (case / "modules").exists() else set()
        for module in sorted(used - sys.modules.keys()):
            if module.partition(".")[0] in _IMPORTED and not module.endswith("__main__"):
                with contextlib.suppress(ImportError):  # a name that a library made up
                    importlib.import_module(module)
        return outcome

    def call(self, function: Callable[..., T], *arguments: Any, seconds: float = 60.0) -> T:
        """What `function` gives in a child process.

        Raises:
            RuntimeError: it raised or died there.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _in_child(lambda: _answer(function, arguments, writing))
        os.close(writing)
        chunks = []
        with open(reading, "rb") as stream:
            deadline = time.monotonic() + seconds
            while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                if not (chunk := os.read(stream.fileno(), 1 << 16)):
                    break
                chunks.append(chunk)
        code = self._wait(child, max(0.1, deadline - time.monotonic()))
        answer = pickle.loads(b"".join(chunks)) if chunks else ("died", f"exit code {code}")
        if answer[0] != "gave":
            raise RuntimeError(f"{getattr(function, '__name__', function)}: {answer[1]}")
        return answer[1]  # type: ignore[no-any-return]

    def check_arguments(self, arguments: list[str], work: Path) -> None:
        """Make sure that no argument names a file outside the run's folder.

        An argument is looked at whole, after each ``=`` or ``,`` in it, and after the letter of an
        option to which its value is glued.

        Raises:
            OutsideError: one does.
        """
        for argument in arguments:
            parts = {argument, *re.split("[=,]", argument)}
            parts |= {part[2:] for part in parts if part.startswith("-") and part[1:2] != "-"}
            for part in parts:
                if part.startswith("~") or "\0" in part:
                    raise OutsideError(argument)
                path = Path(os.path.realpath(work / part))
                if not path.is_relative_to(self.root):
                    raise OutsideError(f"{argument!r} is {path}")

    def _start(self, attack: Attack, case: Path, afresh: bool) -> None:
        os.setsid()
        # Whoever is killed leaves no grandchild: the case dies with this process.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(case / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), number)
        os.closerange(3, 256)
        if afresh:
            os.environ.pop("ORT_DISABLE_TELEMETRY", None)  # the command's own business
        os.chdir(case / "work")
        environment = {
            "HOME": str(case / "home"),
            "XDG_CACHE_HOME": str(case / "home" / "cache"),
            "TMPDIR": str(case / "tmp"),
            "PYTHONPATH": str(REPOSITORY),
            "EDGE_RESTORE_NO_C": "1",
            **attack.environment,
        }
        os.environ.update(environment)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        room = _MEMORY + (used if not afresh else 1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = int(self.seconds) * 2
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        if self._uid is not None:
            os.setgroups([])
            os.setgid(self._uid)
            os.setuid(self._uid)
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a change of user clears it
        confine(case)
        module = PROGRAMS[attack.program]
        if afresh:
            # No byte code is written into the source's folders.
            os.execv(sys.executable, [sys.executable, "-B", "-m", module, *attack.arguments])
        sys.argv = [attack.program, *attack.arguments]
        # The files stand where pytest or somebody's pipe stood before.
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        tempfile.tempdir = None  # what was found before is not the case's
        # Whoever called this process (pytest, say) may have put its own in their place.
        sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
        threading.excepthook = threading.__excepthook__
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        finally:
            if self._learning:
                (case / "modules").write_text("\n".join(sys.modules))

    def _wait(self, child: int, seconds: float) -> int | None:
        """The exit code, negative for a signal, None where it had to be killed for its time."""
        handle = os.pidfd_open(child)
        try:
            late = not select.select([handle], [], [], seconds)[0]
        finally:
            os.close(handle)
        if late:
            for kill in (os.killpg, os.kill):  # its group is its own, once it has called setsid
                try:
                    kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        _, status = os.waitpid(child, 0)
        return None if late else os.waitstatus_to_exitcode(status)


def confine(folder: Path) -> bool:
    """Let this process and its children write below the folder alone, for good.

    Returns:
        Whether this kernel can: Landlock is in Linux since 5.13, and not switched on everywhere.
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    create, add, restrict = 444, 445, 446
    version = kernel.syscall(create, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    # Writing, removing, making files of each kind; linking and truncating are younger.
    rights = 1 << 1 | sum(1 << bit for bit in range(4, 13))
    rights |= (version >= 2) << 13 | (version >= 3) << 14
    rules = kernel.syscall(create, struct.pack("Q", rights), ctypes.c_size_t(8), 0)
    for place, allowed in ((folder, rights), (Path(os.devnull), rights & (1 << 1 | 1 << 14))):
        place_fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        kernel.syscall(add, rules, 1, struct.pack("=Qi", allowed, place_fd), 0)
        os.close(place_fd)
    kernel.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    done = kernel.syscall(restrict, rules, 0) == 0
    os.close(rules)
    return done


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Every file below `folder` by its relative path: kind, size and content."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in _below(folder):
        status = path.lstat()
        content = ""
        if stat.S_ISREG(status.st_mode) and status.st_size < 1 << 20:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = f"{status.st_mtime_ns} {status.st_ino}"
        size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        found[str(path.relative_to(folder))] = (stat.S_IFMT(status.st_mode), size, content)
    return found


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def verdict(
    attack: Attack, outcome: Outcome, before: dict[str, tuple[Any, ...]], sandbox: Sandbox
) -> Verdict:
    """What came of a case."""
    if fault := _died(attack, outcome):
        return fault
    if fault := _unclean(attack, outcome, before):
        return fault
    if attack.inspect is not None and (fault := sandbox.call(attack.inspect, outcome)):
        return fault
    if outcome.code != 0:
        said = outcome.err.strip()
        return (kinds.MESSAGE, "") if said else (kinds.CRASH, f"code {outcome.code}, no message")
    if _WARNING.search(outcome.err) or _WARNING.search(outcome.out):
        return kinds.WARNED, ""
    if attack.judge is None:
        return kinds.EQUAL, "not compared"
    return sandbox.call(attack.judge, outcome)


def _died(attack: Attack, outcome: Outcome) -> Verdict | None:
    code = outcome.code
    if code is None or code == -signal.SIGXCPU:
        return kinds.HANG, f"after {outcome.seconds:.0f} s"
    if code < 0:
        return kinds.CRASH, f"killed by {signal.Signals(-code).name}"
    if _EXCEPTION.search(outcome.err) or _EXCEPTION.search(outcome.out):
        return kinds.TRACEBACK, outcome.err.strip().rpartition("\n")[2][:200]
    if _DIED.search(outcome.err):
        return kinds.CRASH, outcome.err.strip()[-200:]
    if code not in (0, 2, *attack.codes):
        return kinds.CRASH, f"exit code {code}"
    return None


def _unclean(
    attack: Attack, outcome: Outcome, before: dict[str, tuple[Any, ...]]
) -> Verdict | None:
    """A file of the user's that changed, what was left behind, escapes on the terminal."""
    after = snapshot(outcome.work)

    def declared(name: str) -> bool:
        return any(name == out or name.startswith(f"{out}/") for out in attack.outputs)

    for name, was in before.items():
        if after.get(name) != was and not (declared(name) and outcome.code == 0):
            return kinds.UNCLEAN, f"'{name}' was changed or is gone"
    for name in after.keys() - before.keys():
        strange = _TEMPORARY.search(Path(name).name) and name not in attack.outputs
        if strange or not declared(name):
            return kinds.UNCLEAN, f"'{name}' was left behind"
    if left := [path.name for path in (outcome.work.parent / "tmp").iterdir()]:
        return kinds.UNCLEAN, f"left in the temporary folder: {left[0]}"
    if "\x1b" in outcome.out + outcome.err:
        return kinds.UNCLEAN, "a terminal escape was printed"
    return None


def _in_child(block: Callable[[], None]) -> None:
    """Run the block and end this process, as Python would, but without its finalisers."""
    code: object = 1
    try:
        block()
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    try:
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
        threading._shutdown()  # type: ignore[attr-defined]
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    finally:
        os._exit(0 if code is None else code & 255 if isinstance(code, int) else 1)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], writing: int) -> None:
    try:
        answer: tuple[str, Any] = ("gave", function(*arguments))
    except Exception:
        answer = ("raised", traceback.format_exc())
    with open(writing, "wb") as stream:
        pickle.dump(answer, stream)


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(1 << 20).decode(errors="backslashreplace")


def _give(folder: Path, uid: int) -> None:
    """Make everything below the folder that user's; links are not followed."""
    os.chown(folder, uid, uid)
    for path in _below(folder):
        if path.lstat().st_uid == 0:
            os.chown(path, uid, uid, follow_symlinks=False)


def _nobody_can_read(root: Path) -> bool:
    """Whether a process of nobody's can read the source, Python and the run's folder."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            places = (REPOSITORY / "train", Path(sys.executable), Path(os.__file__), root)
            code = 0 if all(os.access(place, os.R_OK) for place in places) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def remove(folder: Path) -> None:
    """Remove a case's folder, also what was made unreadable in it."""
    for path in [folder, *(p for p in _below(folder) if p.is_dir() and not p.is_symlink())]:
        path.chmod(0o700)
    shutil.rmtree(folder)
