"""The benchmark's report as one HTML page that needs nothing else."""

from __future__ import annotations

from edge_restore.bench import charts, tables
from edge_restore.bench.charts import RooflinePoint
from edge_restore.bench.costs import NUMBER_BYTES, frame_cost
from edge_restore.bench.document import BenchReport, Run
from edge_restore.report import cells, page
from edge_restore.report.cells import escaped
from edge_restore.report.charts import histogram


def html_page(report: BenchReport) -> str:
    """The page as text: figures, results, charts, claims, machine."""
    networks = ", ".join(dict.fromkeys(run.network.upper() for run in report.runs))
    title = f"How long {networks} takes"
    header, rows, _ = tables.results(report)
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f'<p class="sub">{escaped(_subtitle(report))}</p>',
        _figures(report),
        "<h2>Time per frame</h2>",
        f'<div class="dense">{page.table(header, rows)}</div>',
        *(f'<p class="note">{escaped(note)}</p>' for note in tables.notes(report)),
        _charts(report),
        _claims(report),
        "<h2>Machine</h2>",
        page.table(["", ""], _facts(report), head=False),
    ]
    return page.document(title, parts)


def roofline_points(report: BenchReport) -> list[RooflinePoint]:
    """Each run's network alone: what it computes for each byte, and how fast that went."""
    points = []
    for run in report.runs:
        if (timing := run.ways.get("network")) is None:
            continue
        cost = frame_cost(run.network, run.height, run.width)
        operations = 2 * cost.macs
        points.append(
            RooflinePoint(
                f"{run.network} {run.width}x{run.height}",
                operations / cost.moved_bytes(NUMBER_BYTES[run.precision]),
                operations / (timing.median_ms / 1000),
            )
        )
    return points


def _subtitle(report: BenchReport) -> str:
    return f"{report.machine.get('cpu', 'unknown processor')}, {report.machine.get('cores')} cores"


def _figures(report: BenchReport) -> str:
    shown = []
    for run in report.runs:
        timing = run.ways.get("camera to sink") or next(iter(run.ways.values()))
        shown.append(
            f"<div><b>{cells.milliseconds(timing.median_ms)}</b>"
            f'<span class="unit">ms</span><i>{escaped(run.title)}</i></div>'
        )
    return f'<section class="figures">{"".join(shown)}</section>'


def _charts(report: BenchReport) -> str:
    shown = []
    for run in report.runs:
        shown += _of_run(run)
    if report.peaks is not None and (
        drawn := charts.roofline(roofline_points(report), report.peaks)
    ):
        shown.append(f"<div><h3>roofline: the network alone</h3>{drawn}</div>")
    return f'<section class="charts">{"".join(shown)}</section>'


def _of_run(run: Run) -> list[str]:
    way = "host to host" if "host to host" in run.ways else next(iter(run.ways))
    timing = run.ways[way]
    name = escaped(f"{run.title}, {way}")
    return [
        f"<div><h3>{name}</h3>{histogram(timing.samples_ms, name)}</div>",
        f"<div><h3>{name}, in order</h3>{charts.series(timing)}</div>",
    ]


def _claims(report: BenchReport) -> str:
    header, rows, _ = tables.claims_table(tables.verdicts(report))
    return (
        "<h2>What papers say</h2>"
        '<div class="wide dense claims">' + page.table(header, rows) + "</div>"
        '<p class="note">“Cannot be”: below what the published hardware can do at its peak. '
        "“Cannot be compared”: hardware or size are not given, or it is no network of this "
        "project. “Met” and “not met” are by the network alone on this machine. “As some do”: the "
        "network alone, the clock stopped when its call returned; and on a crop of 256x256.</p>"
    )


def _facts(report: BenchReport) -> list[list[str]]:
    rows = []
    for name, value in report.machine.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        if text:
            rows.append([name.replace("_mib", " (MiB)"), text])
    if report.background is not None:
        rows.append(["other programs", f"{report.background:.0%} of the processors' time"])
    rows += [[what, value] for what, value in report.readings.items()]
    return rows + [[name, version] for name, version in report.versions.items()]
