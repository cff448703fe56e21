"""The benchmark's results to read, as plain text or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from edge_restore.bench.claims import AS_SOME_DO, WAYS, Claim, Judgement, claims, floor, judge
from edge_restore.bench.costs import frame_cost
from edge_restore.bench.document import BenchReport, Run
from edge_restore.bench.timing import Timing
from edge_restore.pipeline.latency import percentiles, upper_bound
from edge_restore.report import cells

Table = tuple[tuple[str, ...], list[tuple[str, ...]], int]
"""Header, rows, and how many columns stand on the left."""

_HEADER = (
    "network", "size", "backend", "precision", "way", "p50 ms", "95 % of it", "p90 ms",
    "p90 at most", "p99 ms", "p99 at most", "samples", "floor ms", "of the peak",
)  # fmt: skip


def results(report: BenchReport) -> Table:
    """One row for each run and way."""
    rows: list[tuple[str, ...]] = []
    for run in report.runs:
        floor_ms = _floor_ms(report, run)
        for way, timing in run.ways.items():
            least = None if way in AS_SOME_DO else floor_ms
            p = percentiles(timing.samples_ms)
            low, high = timing.interval_ms
            bounds = (upper_bound(timing.samples_ms, share) for share in (0.9, 0.99))
            p90_at_most, p99_at_most = (
                "-" if bound is None else cells.milliseconds(bound) for bound in bounds
            )
            rows.append(
                (
                    run.network, f"{run.width}x{run.height}", run.backend, run.precision, way,
                    cells.milliseconds(timing.median_ms),
                    f"{cells.milliseconds(low)} to {cells.milliseconds(high)}",
                    cells.milliseconds(p.p90), p90_at_most,
                    cells.milliseconds(p.p99), p99_at_most, cells.count(p.count),
                    "-" if least is None else cells.milliseconds(least),
                    "-" if least is None else f"{least / timing.median_ms:.0%}",
                )
            )  # fmt: skip
    return _HEADER, rows, 5


def notes(report: BenchReport) -> list[str]:
    """What a reader must know of the figures, a sentence each."""
    found = [
        f"{report.machine.get('cpu', 'unknown processor')}, {report.machine.get('cores')} cores"
    ]
    if report.peaks is not None:
        found.append(_peaks_line(report))
    if report.readings:
        found.append(", ".join(f"{what} {value}" for what, value in report.readings.items()))
    found += [f"in doubt: {warning}" for warning in report.warnings]
    for run in report.runs:
        for way, timing in run.ways.items():
            if way not in AS_SOME_DO:
                found += _doubts(f"{run.title}, {way}", timing)
    return found


def comparison(a: BenchReport, b: BenchReport, names: tuple[str, str]) -> Table:
    """The runs that both reports have: how many times faster the second is, and beyond noise?"""
    header = (
        "network",
        "size",
        "way",
        *(f"{name} ms" for name in names),
        "ratio",
        "95 %",
        "verdict",
    )
    theirs = {_key(run): run for run in b.runs}
    rows: list[tuple[str, ...]] = []
    for run in a.runs:
        other = theirs.get(_key(run))
        if other is None:
            continue
        for way, timing in run.ways.items():
            if way not in other.ways or way in AS_SOME_DO:
                continue
            ratio, low, high = ratio_of_reports(timing, other.ways[way])
            verdict = "within noise"
            if low > 1 or high < 1:
                verdict = "faster" if ratio > 1 else "slower"
            rows.append(
                (
                    run.network, f"{run.width}x{run.height}", way,
                    cells.milliseconds(timing.median_ms),
                    cells.milliseconds(other.ways[way].median_ms),
                    f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", verdict,
                )
            )  # fmt: skip
    return header, rows, 3


def ratio_of_reports(a: Timing, b: Timing) -> tuple[float, float, float]:
    """How many times faster b is, with the least and the greatest that both intervals allow.

    Their rounds did not take turns, so each keeps its own uncertainty.
    """
    (a_low, a_high), (b_low, b_high) = a.interval_ms, b.interval_ms
    return a.median_ms / b.median_ms, a_low / b_high, a_high / b_low


def verdicts(report: BenchReport | None) -> list[Judgement]:
    """Every claim with its verdict; measured is what the report has of that network and size."""
    return [judge(claim, _measured(report, claim)) for claim in claims()]


def claims_table(judgements: Sequence[Judgement]) -> Table:
    """One row for each claim."""
    header = ("paper", "where", "method", "published", "hardware", "size", "floor ms",
              f"here ms: {', '.join(WAYS)}", f"as some do: {', '.join(AS_SOME_DO)}",
              "verdict", "because")  # fmt: skip
    rows: list[tuple[str, ...]] = [
        (
            j.claim.paper, j.claim.where, j.claim.method, j.claim.published,
            j.claim.hardware or "not given",
            f"{j.claim.width}x{j.claim.height}" if j.claim.height else "not given",
            "-" if j.floor is None else f"{cells.milliseconds(j.floor.milliseconds)} "
            f"({j.floor.precision})",
            _listed(j, WAYS), _listed(j, AS_SOME_DO), j.verdict, j.why,
        )
        for j in judgements
    ]  # fmt: skip
    return header, rows, len(header)


def _listed(judgement: Judgement, ways: Sequence[str]) -> str:
    measured = judgement.measured
    if measured is None:
        return "-" if judgement.claim.network is None else "not measured"
    return ", ".join(cells.milliseconds(measured[way]) if way in measured else "-" for way in ways)


def as_text(table: Table) -> str:
    """The table in columns."""
    return cells.text_table(*table)


def as_markdown(table: Table) -> str:
    """The table for an issue or a README."""
    header, rows, left = table
    rule = ["---" if i < left else "--:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, tuple(rule), *rows))


def _key(run: Run) -> tuple[str, int, int]:
    """What runs of two reports, or a run and a claim, have in common."""
    return run.network, run.height, run.width


def _measured(report: BenchReport | None, claim: Claim) -> dict[str, float] | None:
    wanted = claim.network, claim.height, claim.width
    found = [
        run for run in (report.runs if report else ())
        if _key(run) == wanted and "network" in run.ways
    ]  # fmt: skip
    if not found:
        return None
    best = min(found, key=lambda run: run.ways["network"].median_ms)
    return {way: timing.median_ms for way, timing in best.ways.items()}


def _floor_ms(report: BenchReport, run: Run) -> float | None:
    """The least time of a frame on the peaks that were measured, in the run's precision."""
    if report.peaks is None:
        return None
    cost = frame_cost(run.network, run.height, run.width)
    least = floor(cost, run.height * run.width, report.peaks, [run.precision])
    return None if least is None else least.milliseconds


def _peaks_line(report: BenchReport) -> str:
    peaks = report.peaks
    assert peaks is not None
    rates = [
        f"{rate / 1e9:.0f} G{unit}/s in {name}"
        for name, rate, unit in (
            ("FP32", peaks.fp32, "FLOP"), ("FP16 or bfloat16", peaks.fp16, "FLOP"),
            ("INT8", peaks.int8, "OP"),
        )
        if rate is not None
    ]  # fmt: skip
    if peaks.bandwidth is not None:
        rates.append(f"{peaks.bandwidth / 1e9:.0f} GB/s")
    return f"peaks ({peaks.source}): {', '.join(rates)}"


def _doubts(title: str, timing: Timing) -> list[str]:
    found = []
    if timing.noisy:
        low, high = timing.interval_ms
        found.append(
            f"too noisy: {title}: the median lies between {cells.milliseconds(low)} and "
            f"{cells.milliseconds(high)} ms; close other programs and measure again"
        )
    if not timing.settled:
        found.append(f"not settled: {title}: times still fell when the warm-up ended")
    return found
