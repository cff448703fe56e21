"""``python -m tests.attacks``: feed damaged and hostile input to every command, and count."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import Queue

from tests.attacks import registry, table
from tests.attacks.sandbox import REPOSITORY, Sandbox, remove
from tests.attacks.worker import Result, prepared, run_case

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # it has a thread; cases that start afresh do without this
}
"""For a worker, which must not have a second thread when it forks."""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    p = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    p.add_argument("--cases", type=int, default=1000, help="all together (default: %(default)s)")
    p.add_argument("--kind", action="append", choices=registry.names(), help="only this; repeat")
    p.add_argument(
        "--case", type=int, metavar="N", help="with --kind: run case N alone and show it"
    )
    p.add_argument("--seed", type=int, default=0, help="other cases (default: %(default)s)")
    p.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--out", type=Path, metavar="FILE", help="write FILE.json and FILE.md")
    p.add_argument("--keep", action="store_true", help="with --case: leave the case's folder")
    return p


@contextmanager
def run_folder(keep: bool = False) -> Iterator[Path]:
    """A folder of this run's own, which everybody may enter: cases are run as nobody."""
    folder = Path(tempfile.mkdtemp(prefix="edge-restore-attacks-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if not keep:
            remove(folder)


def run_all(
    cases: int, chosen: list[str], *, seed: int, workers: int, root: Path
) -> Iterator[Result]:
    """The results of all cases, as they come.

    Raises:
        RuntimeError: a worker died.
    """
    shares = registry.shares(cases, chosen)
    found: Queue[Result | None] = Queue()
    children, readers = [], []
    for its in registry.jobs(shares, workers):
        job = {"root": str(root), "jobs": its, "seed": seed}
        child = subprocess.Popen(
            [sys.executable, "-B", "-m", "tests.attacks.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
            env={**os.environ, **ONE_THREAD},
        )  # fmt: skip
        assert child.stdin is not None
        child.stdin.write(json.dumps(job))
        child.stdin.close()
        children.append(child)
        readers.append(threading.Thread(target=_read, args=(child, found)))
        readers[-1].start()
    try:
        running = workers
        while running:
            result = found.get()
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        for child in children:
            if child.poll() is None and running:
                child.terminate()
        for reader, child in zip(readers, children, strict=True):
            reader.join()
            child.wait()
    if dead := [child.returncode for child in children if child.returncode]:
        raise RuntimeError(f"a worker ended with exit code {dead[0]}")


def _read(child: subprocess.Popen[str], found: Queue[Result | None]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        fields = json.loads(line)
        found.put(Result(**{**fields, "command": tuple(fields["command"])}))
    found.put(None)


def _one(kind: str, case: int, seed: int, keep: bool) -> int:
    os.environ.update(ONE_THREAD)
    with run_folder(keep) as root:
        sandbox = Sandbox(root)
        result = run_case(prepared(kind, sandbox), case, seed, sandbox, keep=True)
        print(f"fed: {result.fed}")
        print(f"command: {' '.join(map(repr, result.command))}")
        print(f"{result.told.strip()}\n")
        print(f"{result.verdict}: {result.why} ({result.seconds:.2f} s)")
        if keep:
            print(f"kept in {root}/{kind}-{case}")
    return int(result.verdict in table.FAULTS)


def main() -> int:
    """0 when no case was a fault, 1 otherwise."""
    options = parser().parse_args()
    if options.case is not None:
        if not options.kind or len(options.kind) != 1:
            parser().error("--case needs one --kind")
        return _one(options.kind[0], options.case, options.seed, options.keep)
    started = time.monotonic()
    results = []
    with run_folder() as root:
        chosen = [name for name in registry.names() if name in (options.kind or registry.names())]
        for result in run_all(
            options.cases, chosen, seed=options.seed, workers=options.workers, root=root
        ):
            results.append(result)
            if result.verdict in table.FAULTS:
                print(table.line(result), flush=True)
    minutes = (time.monotonic() - started) / 60
    text = table.markdown(results, minutes)
    print(text)
    if options.out is not None:
        faults = [asdict(result) for result in results if result.verdict in table.FAULTS]
        document = {
            "cases": len(results), "seed": options.seed, "minutes": round(minutes, 1),
            "kinds": table.counts(results), "faults": faults,
        }  # fmt: skip
        options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(text)
    return int(any(result.verdict in table.FAULTS for result in results))


if __name__ == "__main__":
    sys.exit(main())
