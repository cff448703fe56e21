"""A thousand attacks on the commands, and whether the harness would notice each kind of fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

needed = ("av", "cv2", "onnx", "onnxruntime", "torch", "safetensors")
if missing := [name for name in needed if find_spec(name) is None]:
    pytest.skip(f"the attacks need {', '.join(missing)}", allow_module_level=True)
if not sys.platform.startswith("linux"):
    pytest.skip("the attacks' processes need Linux", allow_module_level=True)

from tests.attacks import __main__ as command  # noqa: E402
from tests.attacks import kind as kinds  # noqa: E402
from tests.attacks import registry, table  # noqa: E402
from tests.attacks.kind import Attack, Kind, Outcome  # noqa: E402
from tests.attacks.sandbox import (  # noqa: E402
    REPOSITORY,
    OutsideError,
    Sandbox,
    confine,
    snapshot,
    verdict,
)
from tests.attacks.worker import Result  # noqa: E402

CASES = 1000


@pytest.fixture
def root() -> Iterator[Path]:
    with command.run_folder() as folder:
        yield folder


@pytest.fixture
def planted(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """What comes of a program that is written here."""
    sandbox = Sandbox(root, seconds=8.0)
    monkeypatch.setitem(kinds.PROGRAMS, "planted", "planted_program")
    monkeypatch.syspath_prepend(str(root))

    def judged(source: str, fed: str = "", **options: object) -> kinds.Verdict:
        (root / "planted_program.py").write_text(source)
        case = root / f"case-{len(list(root.iterdir()))}"
        (case / "work").mkdir(parents=True)
        (case / "work" / "input").write_text("sound")
        before = snapshot(case / "work")
        attack = Attack("planted", ["input"], fed, **options)  # type: ignore[arg-type]
        return verdict(attack, sandbox.run(attack, case), before, sandbox)

    yield judged


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ValueError('planted')", kinds.TRACEBACK),
        ("import traceback, sys\ntry:\n 1/0\nexcept Exception:\n traceback.print_exc()\nexit(2)",
         kinds.TRACEBACK),
        ("import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start(); t.join()",
         kinds.TRACEBACK),
        ("import time\ntime.sleep(60)", kinds.HANG),
        ("while True: pass", kinds.HANG),
        ("import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)", kinds.HANG),
        ("import os\nos.abort()", kinds.CRASH),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", kinds.CRASH),
        ("import sys\nsys.exit(3)", kinds.CRASH),
        ("import sys\nsys.exit(2)", kinds.CRASH),  # without a message
        ("bytearray(64 << 30)", kinds.TRACEBACK),
        ("open('.half.tmp', 'w').write('left')", kinds.UNCLEAN),
        ("open('somewhere', 'w').write('left')", kinds.UNCLEAN),
        ("open('input', 'w').write('lost')", kinds.UNCLEAN),
        ("import os\nos.unlink('input')", kinds.UNCLEAN),
        ("import tempfile\ntempfile.mkdtemp()", kinds.UNCLEAN),
        ("print('\\x1b[31m')", kinds.UNCLEAN),
        ("import sys\nprint('error: no', file=sys.stderr)\nsys.exit(2)", kinds.MESSAGE),
        ("import sys\nprint('warning: odd', file=sys.stderr)", kinds.WARNED),
    ],
)  # fmt: skip
def test_harness_counts_a_planted_fault(planted, source, expected):
    assert planted(source)[0] == expected


def test_harness_counts_a_planted_silent_acceptance(planted):
    def judge(outcome: Outcome) -> kinds.Verdict:
        return (kinds.EQUAL, "") if outcome.out == "sound\n" else (kinds.SILENT, outcome.out)

    assert planted("print('sound')", judge=judge)[0] == kinds.EQUAL
    assert planted("print('wrong')", judge=judge)[0] == kinds.SILENT
    assert planted("import sys\nprint('wrong')\nsys.stderr.write('warning: x\\n')", judge=judge)[
        0
    ] == (kinds.WARNED)


def test_harness_asks_a_judge_in_a_process_of_its_own(planted):
    with pytest.raises(RuntimeError, match="exit code -9"):
        planted("pass", judge=lambda _: os.kill(os.getpid(), signal.SIGKILL))


def apart(root: Path, script: str) -> list[str]:
    """The lines that a script prints in a process without threads, which pytest's may have."""
    start = "from pathlib import Path\nfrom tests.attacks.worker import *\n"
    start += f"sandbox = Sandbox(Path({str(root)!r}))\n"
    done = subprocess.run(
        [sys.executable, "-B", "-c", start + textwrap.dedent(script)],
        cwd=REPOSITORY, env={**os.environ, **command.ONE_THREAD, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_planted_reader_that_takes_anything_is_seen_by_a_whole_kind(root):
    """The manifest's hash check is taken out, and the kind's cases notice."""
    found = apart(
        root,
        """
        import hashlib
        kind = prepared("manifest", sandbox)
        sound = hashlib.sha256((kind.corpus / "svdn.engine").read_bytes()).hexdigest()
        from edge_restore.engine import manifest
        manifest.trusted_file.digest = lambda content: sound
        for number in range(60):
            print(run_case(kind, number, 0, sandbox).verdict)
        """,
    )
    assert kinds.SILENT in found


@pytest.mark.parametrize(
    "argument",
    ["/etc/passwd", "../../x", "a/../../../x", "--out=/tmp/x", "-o/tmp/x", "--out=../../x", "~/x",
     "~root", "a,/tmp/x", "link/x", "link"],
)  # fmt: skip
def test_an_argument_outside_the_folder_is_not_run(root, argument):
    work = root / "case" / "work"
    work.mkdir(parents=True)
    (work / "link").symlink_to("/")
    with pytest.raises(OutsideError):
        Sandbox(root / "case").run(Attack("edge-restore", [argument], ""), root / "case")


def test_arguments_inside_the_folder_are_run(root):
    work = root / "work"
    work.mkdir()
    Sandbox(root).check_arguments(
        ["run", "in.mp4", "--out", f"{work}/o.mp4", "--size", "1x1", "-o", "a/../b", "", "\u202e"],
        work,
    )


def test_nothing_outside_the_case_can_be_written(root, planted):
    if os.fork() == 0:
        os._exit(0 if confine(root) else 1)
    if os.waitstatus_to_exitcode(os.wait()[1]):
        pytest.skip("this kernel has no Landlock")
    victim = root / "victim"
    victim.write_text("kept")
    for action in (
        "open(p, 'w')", "os.unlink(p)", "os.rename(p, 'mine')", "os.truncate(p, 0)",
        "os.link(p, 'mine')", "os.mkdir(p + '2')", "os.symlink('x', p + '3')",
    ):  # fmt: skip
        source = f"import os\np = {str(victim)!r}\n{action}"
        assert planted(source) == (kinds.TRACEBACK, planted(source)[1])
        assert victim.read_text() == "kept"
    assert not list(root.glob("victim?*"))


def test_a_case_is_the_same_again(root):
    script = """
        kind = prepared("card", sandbox)
        for number in range(30):
            work = sandbox.root / f"again-{number}"
            work.mkdir()
            attack = kind.attack(random.Random(f"0/card/{number}"), work)
            print(ascii(attack.fed), snapshot(work)["small.card.json"][:2])
            remove(work)
        """
    first = apart(root, script)
    assert len(first) == 30
    assert apart(root, script) == first


def test_every_kind_has_its_own_module_and_says_what_is_silently_wrong():
    for name in registry.names():
        kind = registry.find(name)
        assert issubclass(kind, Kind)
        assert kind.name == name
        text = sys.modules[kind.__module__].__doc__ or ""
        assert "silently wrong" in text.lower() or "has to be refused" in text, name


def test_shares_are_all_cases_and_jobs_hold_each_once():
    for cases, workers in ((1, 1), (1000, 2), (20_000, 2), (333, 40)):
        shares = registry.shares(cases, registry.names())
        assert sum(shares.values()) == cases
        found = [
            (name, number)
            for job in registry.jobs(shares, workers)
            for name, numbers in job
            for number in range(*numbers)
        ]
        assert len(found) == len(set(found)) == cases


def test_table_counts_each_verdict():
    verdicts = (*kinds.GOOD, *kinds.FAULTS)
    results = [Result("card", i, verdict) for i, verdict in enumerate(verdicts)]
    (its,) = table.counts(results).values()
    assert its.pop("cases") == len(verdicts)
    assert set(its.values()) == {1}
    assert "| all | 9 |" in table.markdown(results, 1.0)


def test_a_thousand_attacks_bring_messages_and_nothing_worse(root):
    results = list(command.run_all(CASES, registry.names(), seed=0, workers=2, root=root))
    assert len(results) == CASES
    faults = [table.line(result) for result in results if result.verdict in kinds.FAULTS]
    assert not faults, "\n".join(faults)
