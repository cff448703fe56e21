"""From a finished run of the pipeline to its report."""

from __future__ import annotations

from edge_restore.backends.restorer import Restorer
from edge_restore.machine.describe import library_versions, this_machine
from edge_restore.pipeline.latency import percentiles
from edge_restore.pipeline.run import StreamResult
from edge_restore.report.latency_report import LatencyReport, ModelIdentity, Quality, thinned


def run_report(
    result: StreamResult,
    *,
    source: str,
    size: tuple[int, int],
    restorer: Restorer,
    quality: Quality | None = None,
) -> LatencyReport:
    """The report of a run on this machine.

    Args:
        result: what the pipeline counted and timed.
        source: what was restored, as the user named it.
        size: (height, width) of a frame in pixels.
        restorer: what restored.
        quality: against the ground truth, where there is one.
    """
    failure = result.failure
    samples, step = thinned(result.stages)
    return LatencyReport(
        source=source,
        frames_in=result.frames_in,
        frames_out=result.frames_out,
        drops=result.drops,
        samples_ms=samples,
        sample_step=step,
        stages={name: percentiles(times) for name, times in result.stages.items()},
        wall_seconds=result.wall_seconds,
        frames_per_second=result.frames_out / result.wall_seconds if result.wall_seconds else 0.0,
        width=size[1],
        height=size[0],
        model=ModelIdentity(restorer.card.name, restorer.card.onnx.sha256),
        backend=restorer.name,
        precision=restorer.precision,
        machine=this_machine().to_json(),
        versions=library_versions(),
        interrupted=result.interrupted,
        quality=quality,
        ended_early=f"at frame {failure.frame}: {failure.error}" if failure is not None else "",
        warnings=result.warnings,
    )
