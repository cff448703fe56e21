"""The benchmark's result as a versioned JSON file: every single time, and where it was taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_restore.bench.claims import AS_SOME_DO, WAYS
from edge_restore.bench.peaks import Peaks
from edge_restore.bench.timing import Timing
from edge_restore.errors import DataError
from edge_restore.storage.files import write_text
from edge_restore.storage.json_fields import MAX_SIDE, JsonFields, is_number
from edge_restore.storage.json_file import encode, read_json
from edge_restore.storage.plain_file import Kind

SCHEMA = "edge_restore.bench/1"
_MAX_BYTES = 64 << 20
_KIND = Kind(
    "a benchmark report",
    "a JSON file that `edge-restore bench --json` wrote",
    "check the path, or measure again",
    DataError,
)


@dataclass(frozen=True)
class Run:
    """One model at one size on one backend.

    Attributes:
        network: "svdn", ...
        model: file name of the ONNX model.
        model_sha256: its hash.
        backend: as it names itself.
        precision: what it computes in.
        height, width: of a frame, in pixels.
        ways: a timing for each way that was measured, see `claims.WAYS` and `claims.AS_SOME_DO`.
    """

    network: str
    model: str
    model_sha256: str
    backend: str
    precision: str
    height: int
    width: int
    ways: Mapping[str, Timing]

    @property
    def title(self) -> str:
        """What tells runs of one report apart: "svdn 640x360, onnxruntime-cpu, fp32"."""
        return f"{self.network} {self.width}x{self.height}, {self.backend}, {self.precision}"


@dataclass(frozen=True)
class BenchReport:
    """Everything that one call of `edge-restore bench` measured.

    Attributes:
        machine: see `edge_restore.machine.describe.Machine`.
        versions: of the libraries.
        peaks: of the processor that computed, where they were measured.
        runs: in the order of the sizes.
        background: share of the processors that other programs took meanwhile; None where unknown.
        warnings: what may have spoiled the measurement, in sentences.
        readings: of clocks, heat and power, with their units, where the machine tells.
    """

    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    peaks: Peaks | None
    runs: tuple[Run, ...]
    background: float | None
    warnings: tuple[str, ...]
    readings: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object, schema first; times in milliseconds."""
        return {
            "schema": SCHEMA,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "background": self.background,
            "warnings": list(self.warnings),
            "readings": dict(self.readings),
            "peaks": None if self.peaks is None else asdict(self.peaks),
            "runs": [
                {
                    **{name: getattr(run, name) for name in _RUN_FIELDS},
                    "ways": {
                        way: {
                            "warm_up": timing.warm_up,
                            "settled": timing.settled,
                            "rounds_ms": [[round(t, 4) for t in one] for one in timing.rounds_ms],
                        }
                        for way, timing in run.ways.items()
                    },
                }
                for run in self.runs
            ],
        }

    @classmethod
    def from_json(cls, document: Any, origin: str = "the document") -> BenchReport:
        """The report in a decoded JSON object.

        Raises:
            DataError: it is none; lists everything that is wrong.
        """
        fields = JsonFields(document)
        fields.choice("schema", (SCHEMA,))
        versions = fields.child("versions")
        readings = fields.child("readings") if "readings" in fields.document else None
        share = fields.take(
            "background", "a number or null", lambda v: v is None or is_number(v), None
        )
        report = cls(
            machine=fields.child("machine").document,
            versions={name: versions.text(name) for name in versions.document},
            peaks=_peaks(fields.child("peaks")) if fields.document.get("peaks") else None,
            runs=fields.sequence("runs", _run),
            background=share,
            warnings=tuple(fields.items("warnings", lambda v: isinstance(v, str), "strings")),
            readings={} if readings is None else {n: readings.text(n) for n in readings.document},
        )
        if not report.runs and not fields.errors:
            fields.errors.append("runs is empty")
        if fields.errors:
            raise DataError(
                f"{origin} is not a benchmark report that can be used:{fields.listing()}",
                expected=f"a JSON object of schema {SCHEMA}",
                hint="measure again with `edge-restore bench --json FILE`",
            )
        return report

    @classmethod
    def read(cls, path: str | Path) -> BenchReport:
        """The report in the file `path`; DataError when it is missing or malformed."""
        return cls.from_json(read_json(path, _KIND, _MAX_BYTES), f"'{path}'")

    def write(self, path: str | Path) -> None:
        """Write the report to `path`, whole or not at all, a round's times on one line."""
        text = encode(self.to_json(), indent=1)
        write_text(path, re.sub(r"\[([\d.,\s]+)\]", _on_one_line, text) + "\n")


_RUN_FIELDS = (
    "network", "model", "model_sha256", "backend", "precision", "height", "width",
)  # fmt: skip


def _on_one_line(match: re.Match[str]) -> str:
    return f"[{' '.join(match[1].split())}]"


def _run(fields: JsonFields) -> Run:
    ways = fields.child("ways")
    known = (*WAYS, *AS_SOME_DO)
    ways.errors += [f"there is no way '{way}'" for way in ways.document if way not in known]
    return Run(
        network=fields.text("network"),
        model=fields.file_name("model"),
        model_sha256=fields.digest("model_sha256"),
        backend=fields.text("backend"),
        precision=fields.text("precision"),
        height=fields.integer("height", 1, MAX_SIDE),
        width=fields.integer("width", 1, MAX_SIDE),
        ways={way: _timing(ways.child(way)) for way in ways.document},
    )


def _timing(fields: JsonFields) -> Timing:
    def a_round(value: Any) -> bool:
        return (
            isinstance(value, list) and value != [] and all(is_number(t) and t > 0 for t in value)
        )

    rounds = fields.items("rounds_ms", a_round, "lists of positive numbers")
    if not rounds:
        fields.errors.append("a timing has no rounds")
    return Timing(
        tuple(tuple(one) for one in rounds),
        fields.integer("warm_up", 0),
        fields.boolean("settled"),
    )


def _peaks(fields: JsonFields) -> Peaks:
    def rate(key: str) -> float | None:
        expected = "a positive number or null"
        return fields.take(key, expected, lambda v: v is None or (is_number(v) and v > 0), None)

    return Peaks(
        name=fields.text("name"),
        source=fields.text("source"),
        fp32=rate("fp32"),
        fp16=rate("fp16"),
        int8=rate("int8"),
        bandwidth=rate("bandwidth"),
    )
