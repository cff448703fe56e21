from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edge_restore.errors import DataError
from edge_restore.pipeline.latency import percentiles
from edge_restore.report import charts
from edge_restore.report.latency_report import (
    MOST_SAMPLES,
    LatencyReport,
    ModelIdentity,
    Quality,
    thinned,
)
from edge_restore.report.page import Picture, html_page

STAGES = {
    "decode": [1.0, 2.0, 1.5, 1.5],
    "queue": [0.0, 30.0, 60.0, 60.5],
    "restore": [30.0, 31.0, 29.0, 90.0],
    "encode": [4.0, 4.5, 4.25, 5.25],
    "total": [35.0, 67.5, 94.75, 157.25],
}


def report(quality: Quality | None = None, source: str = "in.mp4") -> LatencyReport:
    return LatencyReport(
        source=source,
        frames_in=6,
        frames_out=4,
        drops={"interrupted": 2},
        samples_ms=STAGES,
        sample_step=1,
        stages={name: percentiles(samples) for name, samples in STAGES.items()},
        wall_seconds=0.5,
        frames_per_second=8.0,
        width=640,
        height=360,
        model=ModelIdentity("svdn", "a" * 64),
        backend="onnxruntime-cpu",
        precision="fp32",
        machine={"cpu": "A <fast> one", "cores": 2, "gpus": []},
        versions={"numpy": "2.0"},
        interrupted=True,
        quality=quality,
    )


@pytest.mark.parametrize("quality", [None, Quality(24.5, 26.25, 0.75, 0.875)])
def test_round_trip(tmp_path: Path, quality: Quality | None) -> None:
    path = tmp_path / "report.json"
    report(quality).write(path)
    assert LatencyReport.read(path) == report(quality)
    document = json.loads(path.read_text())
    assert document["schema"] == "edge_restore.latency_report/1"
    assert document["stages"]["restore"] == {
        "p50": 30.0, "p90": 90.0, "p99": 90.0, "mean": 45.0, "count": 4, "unit": "ms"
    }  # fmt: skip
    assert document.get("psnr_gain_db") == (None if quality is None else 1.75)
    assert '"restore": [30.0, 31.0, 29.0, 90.0]' in path.read_text()


def test_lost_frames_are_found() -> None:
    document = report().to_json()
    document["drops"] = {}
    with pytest.raises(DataError, match="frames_in 6 is not frames_out 4 plus the drops 0"):
        LatencyReport.from_json(document)


def test_all_errors_at_once() -> None:
    document = report().to_json()
    del document["width"]
    document["stages"]["total"]["unit"] = "s"
    document["samples_ms"]["queue"] = [1, "2"]
    document["model"]["sha256"] = "short"
    with pytest.raises(DataError) as caught:
        LatencyReport.from_json(document)
    for part in ("width is missing", "stages.total.unit", "samples_ms.queue", "model.sha256"):
        assert part in str(caught.value)


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    for name in ("x.json", "missing.json"):
        with pytest.raises(DataError, match=name):
            LatencyReport.read(tmp_path / name)


def test_long_streams_are_thinned() -> None:
    samples, step = thinned({"total": list(range(2 * MOST_SAMPLES + 1)), "decode": [1.0]})
    assert step == 3
    assert samples["total"][:3] == [0, 3, 6]
    assert len(samples["total"]) <= MOST_SAMPLES
    assert samples["decode"] == [1.0]
    assert thinned({"total": [1.0] * MOST_SAMPLES})[1] == 1


class Page(HTMLParser):
    """Collects a page's text and links, and checks that its elements are closed in order."""

    VOID = ("meta", "img", "rect", "line")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.links: list[str] = []
        self.words = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [v or "" for k, v in attributes if k in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def test_page_stands_alone() -> None:
    picture = Picture(b"\xff\xd8jpeg", "four frames")
    html = html_page(report(Quality(24.5, 26.25, 0.75, 0.875)), title="Demo", pictures=[picture])
    page = Page(html)
    assert page.links == ["data:image/jpeg;base64,/9hqcGVn"]
    assert "script" not in page.count
    assert "url(" not in html and "@import" not in html
    assert page.count["svg"] == 3
    for part in ("24.50", "26.25", "+1.75", "dropped: interrupted", "a" * 64, "A <fast> one"):
        assert part in page.words


def test_page_escapes_what_came_from_outside() -> None:
    evil = '<script>alert("x")</script>.mp4'
    page = Page(html_page(report(source=evil), title=evil))
    assert "script" not in page.count
    assert evil in page.words


def test_page_of_a_run_that_restored_nothing() -> None:
    empty = {name: [] for name in STAGES}
    nothing = LatencyReport(
        **{
            **report().__dict__,
            "frames_in": 2,
            "frames_out": 0,
            "samples_ms": empty,
            "stages": {name: percentiles([]) for name in STAGES},
        }
    )
    assert "svg" not in Page(html_page(nothing, title="x")).count


@pytest.mark.parametrize("samples", [[5.0], [0.0, 0.0], [3.0] * 40, [1.0, 2.0, 5000.0]])
def test_histogram_shows_every_sample(samples: list[float]) -> None:
    svg = charts.histogram(samples, "restore")
    assert "nan" not in svg and "inf" not in svg
    heights = [float(part.split('"')[0]) for part in svg.split('height="')[1:]]
    # bars are as high as their counts, on a scale whose top is the last grid line
    top = 4 * -(-max(len(samples), 4) // 4) if len(set(samples)) == 1 else 4
    assert sum(heights) == pytest.approx(charts.PLOT_HEIGHT * len(samples) / top, abs=1)


def test_timeline_stacks_to_the_total() -> None:
    frames = 5 * charts._COLUMNS  # five frames a column
    svg = charts.timeline({stage: [10.0] * frames for stage in charts.TIMELINE_STAGES})
    assert svg.count("<rect") == 4 * charts._COLUMNS
    assert svg.count('class="restore"') == charts._COLUMNS
    heights = [float(part.split('"')[0]) for part in svg.split('height="')[1:]]
    assert sum(heights[:4]) == pytest.approx(charts.PLOT_HEIGHT, abs=0.5)
    tops = [float(part.split('"')[0]) for part in svg.split('" y="')[1:] if "height" in part[:40]]
    for i in range(1, 4):  # each begins where the one below ends
        assert tops[i] + heights[i] == pytest.approx(tops[i - 1], abs=0.2)
