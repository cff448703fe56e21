"""Our own runs, in docs/results: they can be read, and they say what they must."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_restore.bench import tables
from edge_restore.bench.claims import WAYS
from edge_restore.bench.costs import SIZES
from edge_restore.bench.document import BenchReport

FOLDER = Path(__file__).parents[3] / "docs" / "results"
FILES = sorted(FOLDER.glob("*.json"))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the wheel's tests run without docs/")
def test_there_are_some() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_run_can_be_read_and_judged(file: Path) -> None:
    report = BenchReport.read(file)
    assert file.name.startswith(str(report.machine["cpu"]).lower().replace(" ", "-"))
    assert [(run.height, run.width) for run in report.runs] == list(SIZES)
    for run in report.runs:
        assert set(WAYS) <= run.ways.keys()
    judged = {j.claim.id: j for j in tables.verdicts(report)}
    if report.runs[0].network == "svdn":
        found = judged["svdn-table1-ours-b"]
        assert found.verdict == "cannot be" and found.measured is not None
