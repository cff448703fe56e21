"""The scales file: which convolutions of a network are INT8, and with which steps.

It is found once, on the FP32 graph with DeformConv nodes, and serves every form of the network
(with GridSample, with our plugin's node, typed FP16), because nodes have the same names in all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from calibration.ranges import METHODS as RANGE_METHODS
from edge_restore.errors import DataError
from edge_restore.storage.files import write_text
from edge_restore.storage.json_fields import JsonFields, is_number
from edge_restore.storage.json_file import abridged, encode, read_json
from edge_restore.storage.plain_file import Kind

SCHEMA = "edge_restore.int8_scales/1"

_MIN_SCALE, _MAX_SCALE = 1e-30, 1e18
_KIND = Kind(
    "a scales file",
    "a file that `python -m calibration quantise --scales-out` wrote",
    "write it anew from the FP32 model and a calibration set",
    DataError,
)

METHODS = (*RANGE_METHODS, "qat")
"""How scales came about; the last is training with scales that one of the others gave."""


@dataclass(frozen=True)
class Scales:
    """The quantisation of one network's weights.

    Attributes:
        network: "svdn", ...
        weights_sha256: of the safetensors file that the graph was exported from.
        layers: names of the convolutions that become INT8, with the scale of what each reads.
        skips: names of the additions that take their skip connection from the INT8 tensor too.
        method: how thresholds were chosen, see `calibration.ranges.threshold`, or "qat".
        frames: of the calibration set.
        set_sha256: of the calibration set.
        macs_share: of the network's multiply-accumulates that are INT8, 0 to 1.
    """

    network: str
    weights_sha256: str
    layers: dict[str, float]
    skips: tuple[str, ...]
    method: str
    frames: int
    set_sha256: str
    macs_share: float
    schema: str = field(default=SCHEMA)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(path, encode(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Scales:
        """The file's content.

        Raises:
            DataError: it is missing or malformed; lists everything that is wrong.
        """
        fields = JsonFields(read_json(path, _KIND))
        layers = fields.child("layers")
        bad = [
            k
            for k, v in layers.document.items()
            if not is_number(v) or not _MIN_SCALE <= v <= _MAX_SCALE
        ]
        fields.errors += [
            f"layers.{abridged(name)[1:-1]} is not a positive number that FP32 holds"
            for name in bad
        ]
        scales = cls(
            network=fields.text("network"),
            weights_sha256=fields.digest("weights_sha256"),
            layers=dict(layers.document),
            skips=tuple(fields.items("skips", lambda v: isinstance(v, str), "strings")),
            method=fields.choice("method", METHODS),
            frames=fields.integer("frames", 1, 1 << 20),
            set_sha256=fields.digest("set_sha256"),
            macs_share=fields.number("macs_share", 0, 1),
            schema=fields.choice("schema", (SCHEMA,)),
        )
        if fields.errors:
            raise _bad(path, fields.listing())
        return scales


def _bad(path: Path, problem: str) -> DataError:
    return DataError(
        f"'{path}' is not a scales file: {problem}", expected=_KIND.expected, hint=_KIND.hint
    )
