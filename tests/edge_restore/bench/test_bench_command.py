"""`edge-restore bench`: a small model measured for real, its report, claims and comparisons."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_restore import cli
from edge_restore.bench import charts, tables
from edge_restore.bench.document import BenchReport, Run
from edge_restore.bench.peaks import Peaks
from edge_restore.bench.timing import Timing
from edge_restore.errors import DataError
from edge_restore.models.cards import ModelCard, card_path, verify
from tests.edge_restore.onnx_models import write_model

LEVEL = Timing(((10.0,) * 30, (10.1,) * 30, (9.9,) * 30), 8, True)


def a_report(**changes: Any) -> BenchReport:
    ways = {"network": LEVEL, "host to host": LEVEL, "camera to sink": LEVEL}
    run = Run("svdn", "svdn.onnx", "0" * 64, "onnxruntime-cpu", "fp32", 720, 1280, ways)
    peaks = Peaks("a CPU", "a test", 1e14, None, None, 1e11)
    base = BenchReport({"cpu": "a CPU", "cores": 2}, {"numpy": "2"}, peaks, (run,), 0.01, ())
    return replace(base, **changes)


def with_times(report: BenchReport, factor: float) -> BenchReport:
    def scaled(timing: Timing) -> Timing:
        rounds = tuple(tuple(t * factor for t in one) for one in timing.rounds_ms)
        return Timing(rounds, timing.warm_up, timing.settled)

    runs = [replace(r, ways={w: scaled(t) for w, t in r.ways.items()}) for r in report.runs]
    return replace(report, runs=tuple(runs))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model whose card calls it SVDN, because only known networks have a cost."""
    path = write_model(tmp_path)
    card = verify(card_path(path))
    assert isinstance(card, ModelCard)
    replace(card, network="svdn").write(card_path(path))
    return path


def test_a_model_is_measured_for_real(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    words = ["bench", "--model", str(model), "--sizes", "64x96,32x32", "--samples", "66"]
    words += ["--json", str(out), "--html", str(tmp_path / "r.html")]
    assert cli.main([*words, "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "96x64" in said and "32x32" in said and "camera to sink" in said
    assert "GFLOP/s in FP32" in said
    report = BenchReport.read(out)
    assert [(r.height, r.width) for r in report.runs] == [(64, 96), (32, 32)]
    for run in report.runs:
        assert list(run.ways) == ["network", "host to host", "camera to sink"]
        assert all(len(t.samples_ms) == 66 for t in run.ways.values())
    shown = (tmp_path / "r.html").read_text()
    assert "How long SVDN takes" in shown and "roofline" in shown and "cannot be" in shown
    assert shown.count("<svg") == 5 and "http" not in shown
    assert report.peaks is not None and report.peaks.fp32 and report.peaks.fp32 > 1e9
    if importlib.util.find_spec("openvino") is None:
        assert report.peaks.int8 is None


def test_a_report_survives_the_file(tmp_path: Path) -> None:
    report = a_report(
        warnings=("the clock's governor is 'powersave'",), background=None,
        readings={"temperature": "45 °C"},
    )  # fmt: skip
    assert "temperature 45 °C" in tables.notes(report)
    report.write(tmp_path / "r.json")
    assert BenchReport.read(tmp_path / "r.json") == report
    assert len((tmp_path / "r.json").read_text().splitlines()) < 100


def test_what_is_wrong_with_a_report_is_told_at_once(tmp_path: Path) -> None:
    document = a_report().to_json()
    run = document["runs"][0]
    run["ways"]["by hand"] = run["ways"]["network"]
    run["ways"]["host to host"]["rounds_ms"] = [[]]
    run["model_sha256"], document["background"] = "x", "much"
    with pytest.raises(DataError) as caught:
        BenchReport.from_json(document)
    for wrong in ("no way 'by hand'", "rounds_ms", "model_sha256", "background"):
        assert wrong in str(caught.value)
    with pytest.raises(DataError, match="runs is empty"):
        BenchReport.from_json(a_report(runs=()).to_json())
    with pytest.raises(DataError, match="cannot be read as a benchmark report"):
        BenchReport.read(tmp_path / "missing.json")


def test_the_table_has_floor_and_bound() -> None:
    header, rows, _ = tables.results(a_report())
    row = dict(zip(header, rows[0], strict=True))
    assert row["p50 ms"] == "10.0" and row["samples"] == "90"
    assert row["95 % of it"] == "9.90 to 10.1" and row["p90 at most"] == "10.1"
    assert row["floor ms"] == "3.80" and row["of the peak"] == "38%"  # 380 GFLOP over 100 TFLOP/s
    assert row["p99 at most"] == "-"  # which takes 662 samples
    many = replace(LEVEL, rounds_ms=LEVEL.rounds_ms * 8)
    run = replace(a_report().runs[0], ways={"network": many, "256x256": many})
    network, crop = (
        dict(zip(header, row, strict=True)) for row in tables.results(a_report(runs=(run,)))[1]
    )
    assert network["p99 at most"] == "10.1" and network["floor ms"] == "3.80"
    assert crop["floor ms"] == "-"  # which is the whole frame's
    bare = tables.results(a_report(peaks=None))[1][0]
    assert bare[-1] == bare[-2] == "-"


def test_notes_name_every_doubt() -> None:
    noisy = Timing(((10.0,) * 9, (14.0,) * 9, (10.0,) * 9), 4, False)
    run = replace(a_report().runs[0], ways={"network": noisy})
    said = "\n".join(tables.notes(a_report(runs=(run,), warnings=("the fan is loud",))))
    assert "in doubt: the fan is loud" in said
    assert "too noisy: svdn 1280x720, onnxruntime-cpu, fp32, network" in said
    assert "not settled" in said and "a CPU, 2 cores" in said
    assert "too noisy" not in "\n".join(tables.notes(a_report()))


def test_two_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = a_report()
    files = {}
    for name, factor in (("slow", 1.0), ("fast", 0.5), ("same", 1.004)):
        files[name] = tmp_path / f"{name}.json"
        with_times(report, factor).write(files[name])

    def compared(a: str, b: str) -> str:
        assert cli.main(["bench", "compare", str(files[a]), str(files[b])]) == 0
        return capsys.readouterr().out

    assert "2.00" in compared("slow", "fast") and "faster" in compared("slow", "fast")
    assert "slower" in compared("fast", "slow")
    assert compared("slow", "same").count("within noise") == 3


def test_reports_without_a_common_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = a_report()
    report.write(tmp_path / "a.json")
    other = replace(report, runs=(replace(report.runs[0], height=360),))
    other.write(tmp_path / "b.json")
    words = ["bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert cli.main(words) == 2
    assert "have no run in common" in capsys.readouterr().err


def test_claims_without_and_with_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "claims", "--json", str(tmp_path / "c.json")]) == 0
    said = capsys.readouterr().out
    assert "cannot be" in said and "33.5" in said and "Nothing was measured here" in said
    entries = json.loads((tmp_path / "c.json").read_text())
    assert len(entries) == 38
    impossible = {e["claim"] for e in entries if e["verdict"] == "cannot be"}
    assert impossible == {"svdn-table1-ours-a", "svdn-table1-ours-b", "svdn-section4-3-ours"}
    a_report().write(tmp_path / "r.json")
    assert cli.main(["bench", "claims", str(tmp_path / "r.json"), "--markdown"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("| paper | where |") and "Nothing was measured" not in said
    (row,) = [line for line in said.splitlines() if "Ours(B)" in line]
    assert "| 10.0, 10.0, 10.0 | -, - | cannot be |" in row
    run = a_report().runs[0]
    asked = replace(run, ways={**run.ways, "not waited for": Timing(((0.02,) * 9,) * 3, 2, True)})
    a_report(runs=(asked,)).write(tmp_path / "r.json")
    assert cli.main(["bench", "claims", str(tmp_path / "r.json"), "--markdown"]) == 0
    assert "| 10.0, 10.0, 10.0 | 0.02, - | cannot be |" in capsys.readouterr().out
    other = replace(a_report().runs[0], width=720)  # as high, and not as wide
    a_report(runs=(other,)).write(tmp_path / "r.json")
    assert cli.main(["bench", "claims", str(tmp_path / "r.json")]) == 0
    assert "10.0, 10.0" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "no action 'fly'"),
        (["compare", "a.json"], "another number of reports"),
        (["claims", "a", "b"], "another number of reports"),
        (["claims", "missing.json"], "cannot be read as a benchmark report"),
        (["--samples", "-1"], "--samples is -1"),
        (["--sizes", "big"], "big"),
        (["--json", "/nowhere/r.json"], "/nowhere"),
    ],
)
def test_bad_input_is_one_error(
    words: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words, "--model", str(model)]) == 2
    said = capsys.readouterr().err
    assert message in said and "hint" in said and "Traceback" not in said


def test_every_cpu_backend_has_its_peaks(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is called; and a run in bfloat16 has a floor where that can be measured."""
    openvino = pytest.importorskip("edge_restore.backends.openvino")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    backend = "openvino-bf16" if openvino.has_bfloat16() else "openvino"
    words = ["bench", "--model", str(model), "--sizes", "64x96", "--samples", "3"]
    words += ["--backend", backend, "--json", str(tmp_path / "r.json")]
    assert cli.main(words) == 0
    report = BenchReport.read(tmp_path / "r.json")
    assert report.peaks is not None and report.peaks.fp32
    assert (report.peaks.fp16 is not None) == openvino.has_bfloat16()
    eight_bits = "INT8" in openvino._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert (report.peaks.int8 is not None) == eight_bits
    header, rows, _ = tables.results(report)
    assert dict(zip(header, rows[0], strict=True))["floor ms"] != "-"


def test_labels_of_points_that_lie_together_do_not() -> None:
    points = [charts.RooflinePoint(f"p{i}", 50.0 + i / 100, 1e11) for i in range(3)]
    drawn = charts.roofline(points, Peaks("a CPU", "a test", 1e12, None, None, 1e11))
    heights = [float(y) for y in re.findall(r'y="([\d.]+)">p\d</text>', drawn)]
    assert len(heights) == 3
    assert all(b - a >= 13 for a, b in itertools.pairwise(sorted(heights)))


@pytest.mark.parametrize("seconds", ["inf", "nan", "-inf", "0"])
def test_seconds_that_are_no_finite_time_are_refused(seconds, capsys):
    assert cli.main(["bench", "--sizes", "16x16", f"--seconds={seconds}"]) == 2
    assert "a positive, finite number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["claims", "a.json", "--html", "x.html"], "--html"),
        (["claims", "--sizes", "64x64", "--threads", "1"], "--sizes, --threads"),
        (["compare", "a.json", "a.json", "--json", "x.json"], "--json"),
        (
            ["compare", "a.json", "a.json", "--html", "x.html", "--samples", "3"],
            "--samples, --html",
        ),
        (["compare", "a.json", "a.json", "--backend", "openvino"], "--backend"),
    ],
)
def test_options_of_another_action_are_refused(
    words: list[str],
    unused: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    a_report().write(tmp_path / "a.json")
    assert cli.main(["bench", *words]) == 2
    assert f"{unused} beside 'bench {words[0]}'" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_words_after_measure_are_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "measure", "720x1280", "--model", str(model)]) == 2
    assert "another number of reports" in capsys.readouterr().err
