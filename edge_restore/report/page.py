"""The latency report as one HTML page that needs nothing else: styles, charts, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from edge_restore.report import cells, charts
from edge_restore.report.cells import escaped
from edge_restore.report.latency_report import LatencyReport, Quality
from edge_restore.report.style import STYLE


@dataclass(frozen=True)
class Picture:
    """An image for the page: JPEG bytes, and what they show."""

    jpeg: bytes
    caption: str


def html_page(
    report: LatencyReport, *, title: str, pictures: Sequence[Picture] = (), note: str = ""
) -> str:
    """The page as text.

    Args:
        report: what to show.
        title: the headline.
        pictures: shown below the key figures.
        note: how the quality was measured, or what else a reader must know.
    """
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f'<p class="sub">{escaped(_subtitle(report))}</p>',
        _key_figures(report),
        *(_picture(picture) for picture in pictures),
        _latency(report),
        _quality_table(report.quality) if report.quality else "",
        f'<p class="note">{escaped(note)}</p>' if note else "",
        _machine(report),
    ]
    return document(title, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """A page of these parts, HTML each, with the style sheet inside."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _subtitle(report: LatencyReport) -> str:
    state = " (interrupted)" if report.interrupted else ""
    return (
        f"{report.source}{state}: {cells.count(report.frames_out)} frames of "
        f"{report.width}x{report.height}, model {report.model.name}, {report.backend} "
        f"{report.precision}"
    )


def _key_figures(report: LatencyReport) -> str:
    figures = []
    if (quality := report.quality) is not None:
        figures = [
            ("PSNR gain", cells.gain(quality.psnr_gain_db), "dB"),
            ("SSIM", f"{quality.ssim_before:.3f} → {quality.ssim_after:.3f}", ""),
        ]
    if restore := report.stages.get("restore"):
        figures.append(("restore, median", cells.milliseconds(restore.p50), "ms"))
    figures.append(("throughput", cells.rate(report.frames_per_second), "frames/s"))
    return (
        '<section class="figures">'
        + "".join(
            f'<div><b>{escaped(value)}</b><span class="unit">{unit}</span>'
            f"<i>{escaped(name)}</i></div>"
            for name, value, unit in figures
        )
        + "</section>"
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.jpeg).decode("ascii")
    caption = escaped(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _latency(report: LatencyReport) -> str:
    rows = [
        [
            name,
            *(cells.milliseconds(value) for value in (p.p50, p.p90, p.p99, p.mean)),
            cells.count(p.count),
        ]
        for name, p in report.stages.items()
    ]
    stages = table(["stage", "p50", "p90", "p99", "mean", "frames"], rows)
    return (
        "<h2>Time per frame</h2>"
        f"{stages}"
        '<p class="note">Milliseconds; percentiles by nearest rank. “queue” is all waiting, before '
        "restoring and before encoding; “total” runs from the begin of decoding to the end of "
        "encoding.</p>"
        f"{_charts(report)}"
    )


def _charts(report: LatencyReport) -> str:
    shown = []
    for stage in ("restore", "total"):
        if samples := report.samples_ms.get(stage):
            shown.append(
                (f"{stage}: how often each time occurred", charts.histogram(samples, stage))
            )
    if all(report.samples_ms.get(stage) for stage in charts.TIMELINE_STAGES):
        legend = "".join(
            f'<span><i class="{stage}"></i>{stage}</span>' for stage in charts.TIMELINE_STAGES
        )
        shown.append(
            (
                f'frame by frame <span class="legend">{legend}</span>',
                charts.timeline(report.samples_ms),
            )
        )
    shown.append(("frames", _accounting(report)))
    return (
        '<section class="charts">'
        + "".join(f"<div><h3>{heading}</h3>{content}</div>" for heading, content in shown)
        + "</section>"
    )


def _quality_table(quality: Quality) -> str:
    rows = [
        [
            "PSNR (dB)",
            cells.decibels(quality.psnr_before),
            cells.decibels(quality.psnr_after),
            cells.gain(quality.psnr_gain_db),
        ],
        [
            "SSIM",
            cells.similarity(quality.ssim_before),
            cells.similarity(quality.ssim_after),
            f"{quality.ssim_after - quality.ssim_before:+.4f}",
        ],
    ]
    return f"<h2>Quality</h2>{table(['mean over the frames', 'before', 'after', 'gain'], rows)}"


def _accounting(report: LatencyReport) -> str:
    """Where every frame went."""
    rows = [["frames in", cells.count(report.frames_in)]]
    rows += [[f"dropped: {cause}", cells.count(n)] for cause, n in report.drops.items()]
    rows += [
        ["frames out", cells.count(report.frames_out)],
        ["wall-clock time", f"{report.wall_seconds:.1f} s"],
    ]
    return table(["", ""], rows, head=False)


def _machine(report: LatencyReport) -> str:
    rows = []
    for name, value in report.machine.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        if text:
            rows.append([name.replace("_mib", " (MiB)"), text])
    versions = [[name, version] for name, version in report.versions.items()]
    model = [["model", report.model.name], ["SHA-256", report.model.sha256]]
    return (
        "<h2>Machine</h2>"
        f"{table(['', ''], rows, head=False)}"
        "<h2>Versions</h2>"
        f"{table(['', ''], versions + model, head=False)}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], head: bool = True) -> str:
    """A table; without `head` one of facts, names on the left."""
    columns = "".join(f"<th>{escaped(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    kind = "numbers" if head else "facts"
    return (
        f'<div class="scroll"><table class="{kind}">'
        + (f"<thead><tr>{columns}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody></table></div>"
    )
