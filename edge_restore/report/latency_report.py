"""The latency report: what one run of the pipeline took and gave, as a versioned JSON file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_restore.errors import DataError
from edge_restore.pipeline.latency import Percentiles
from edge_restore.storage.files import write_text
from edge_restore.storage.json_fields import MAX_SIDE, JsonFields, is_number
from edge_restore.storage.json_file import encode, read_json
from edge_restore.storage.plain_file import Kind

SCHEMA = "edge_restore.latency_report/1"
_KIND = Kind(
    "a latency report",
    "a JSON file written by `edge-restore run --report`",
    "check the path, or measure again",
    DataError,
)
MOST_SAMPLES = 10_000
"""Of longer streams every n-th frame's times are kept, so that the report stays small."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which model restored: its card's name and the SHA-256 of the ONNX file."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Quality:
    """Means over the frames against the ground truth, in RGB on 8-bit; PSNR in dB."""

    psnr_before: float
    psnr_after: float
    ssim_before: float
    ssim_after: float

    @property
    def psnr_gain_db(self) -> float:
        """What the restoration gained, in dB."""
        return self.psnr_after - self.psnr_before


@dataclass(frozen=True)
class LatencyReport:
    """One run of the pipeline.

    Attributes:
        source: what was restored, as the user named it.
        frames_in, frames_out, drops: ``frames_in == frames_out + sum(drops.values())``; `drops`
            counts lost frames by cause.
        samples_ms: each frame's time per stage in ms, in order; of more than `MOST_SAMPLES`
            frames every `sample_step`-th.
        stages: percentiles over all frames, by stage.
        wall_seconds, frames_per_second: of the whole run, start and end included.
        width, height: of a frame, in pixels.
        backend, precision: what computed, e.g. "onnxruntime-cpu" in "fp32".
        machine, versions: where, and with which libraries.
        interrupted: whether the run was ended from outside before the source was.
        quality: present where the ground truth is known.
        ended_early: why the run ended before the source did by itself; empty when it did not.
        warnings: what could not be read of the source or kept in the output.
    """

    source: str
    frames_in: int
    frames_out: int
    drops: Mapping[str, int]
    samples_ms: Mapping[str, Sequence[float]]
    sample_step: int
    stages: Mapping[str, Percentiles]
    wall_seconds: float
    frames_per_second: float
    width: int
    height: int
    model: ModelIdentity
    backend: str
    precision: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    interrupted: bool
    quality: Quality | None = None
    ended_early: str = ""
    warnings: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object, schema first, the long lists last."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "source": self.source,
            "frames_in": self.frames_in,
            "frames_out": self.frames_out,
            "drops": dict(self.drops),
            "interrupted": self.interrupted,
            "ended_early": self.ended_early,
            "warnings": list(self.warnings),
            "width": self.width,
            "height": self.height,
            "wall_seconds": round(self.wall_seconds, 3),
            "frames_per_second": round(self.frames_per_second, 3),
        }
        if (quality := self.quality) is not None:
            document |= {
                "psnr_before": round(quality.psnr_before, 4),
                "psnr_after": round(quality.psnr_after, 4),
                "psnr_gain_db": round(quality.psnr_gain_db, 4),
                "ssim_before": round(quality.ssim_before, 6),
                "ssim_after": round(quality.ssim_after, 6),
            }
        stages = {
            name: {
                "p50": round(p.p50, 3),
                "p90": round(p.p90, 3),
                "p99": round(p.p99, 3),
                "mean": round(p.mean, 3),
                "count": p.count,
                "unit": "ms",
            }
            for name, p in self.stages.items()
        }
        return document | {
            "stages": stages,
            "model": {"name": self.model.name, "sha256": self.model.sha256},
            "backend": self.backend,
            "precision": self.precision,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "sample_step": self.sample_step,
            "samples_ms": {k: [round(t, 3) for t in v] for k, v in self.samples_ms.items()},
        }

    @classmethod
    def from_json(cls, document: Any, origin: str = "the document") -> LatencyReport:
        """The report in a decoded JSON object.

        Raises:
            DataError: it is not a latency report; lists everything that is wrong.
        """
        fields = JsonFields(document)
        fields.choice("schema", (SCHEMA,))
        drops, stages, samples = (fields.child(k) for k in ("drops", "stages", "samples_ms"))
        model = fields.child("model")
        report = cls(
            source=fields.text("source"),
            frames_in=fields.integer("frames_in", 0),
            frames_out=fields.integer("frames_out", 0),
            drops={cause: drops.integer(cause, 0) for cause in drops.document},
            samples_ms={k: samples.items(k, is_number, "numbers") for k in samples.document},
            sample_step=fields.integer("sample_step", 1),
            stages={name: _percentiles(stages.child(name)) for name in stages.document},
            wall_seconds=fields.number("wall_seconds"),
            frames_per_second=fields.number("frames_per_second"),
            width=fields.integer("width", 1, MAX_SIDE),
            height=fields.integer("height", 1, MAX_SIDE),
            model=ModelIdentity(model.text("name"), model.digest("sha256")),
            backend=fields.text("backend"),
            precision=fields.text("precision"),
            machine=fields.child("machine").document,
            versions=fields.child("versions").document,
            interrupted=fields.boolean("interrupted"),
            # Reports of earlier versions lack these two.
            ended_early=fields.text("ended_early") if fields.document.get("ended_early") else "",
            warnings=_warnings(fields) if "warnings" in fields.document else (),
            quality=_quality(fields) if "psnr_after" in fields.document else None,
        )
        if report.frames_in != report.frames_out + sum(report.drops.values()):
            fields.errors.append(
                f"frames_in {report.frames_in} is not frames_out {report.frames_out} "
                f"plus the drops {sum(report.drops.values())}"
            )
        if fields.errors:
            raise DataError(
                f"{origin} is not a latency report that can be used:{fields.listing()}",
                expected=f"a JSON object of schema {SCHEMA}",
                hint="measure again with `edge-restore run --report FILE.json`",
            )
        return report

    @classmethod
    def read(cls, path: str | Path) -> LatencyReport:
        """The report in the file `path`; DataError when it is missing or malformed."""
        return cls.from_json(read_json(path, _KIND), f"'{path}'")

    def write(self, path: str | Path) -> None:
        """Write the report to `path`, whole or not at all."""
        text = encode(self.to_json(), indent=2)
        one_line = re.sub(r"\[([\d.,\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", text)
        write_text(path, one_line + "\n")


def thinned(stages: Mapping[str, Sequence[float]]) -> tuple[dict[str, list[float]], int]:
    """Every n-th frame's times of each stage, at most `MOST_SAMPLES` a stage, and the n."""
    longest = max((len(samples) for samples in stages.values()), default=0)
    step = max(1, -(-longest // MOST_SAMPLES))
    return {name: list(samples[::step]) for name, samples in stages.items()}, step


def _percentiles(fields: JsonFields) -> Percentiles:
    fields.choice("unit", ("ms",))
    return Percentiles(
        p50=fields.number("p50"),
        p90=fields.number("p90"),
        p99=fields.number("p99"),
        mean=fields.number("mean"),
        count=fields.integer("count", 0),
    )


def _warnings(fields: JsonFields) -> Sequence[str]:
    return tuple(fields.items("warnings", lambda item: isinstance(item, str), "texts"))


def _quality(fields: JsonFields) -> Quality:
    return Quality(
        psnr_before=fields.number("psnr_before"),
        psnr_after=fields.number("psnr_after"),
        ssim_before=fields.number("ssim_before"),
        ssim_after=fields.number("ssim_after"),
    )
