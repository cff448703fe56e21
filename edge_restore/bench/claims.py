"""What papers say of their speed, and whether it can be.

The claims of the four papers, with those of the methods that they compare with, lie in claims.json
beside this file: figures, where they stand, and what is known of hardware, size and timing. A field
that a paper does not give is None, never guessed. The same file has the peak rates of the hardware.

Where the hardware and the size of a claim are known and the network is one of ours, arithmetic
gives a floor: the network's operations over the device's peak rate, or the bytes that must pass
(weights, one frame in, one out) over its bandwidth, whichever takes longer. No program beats that.
A paper that does not name its precision is taken to mean floating point, in whichever form the
device is faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge_restore.bench.costs import KIND, NUMBER_BYTES, FrameCost, frame_cost
from edge_restore.bench.peaks import Peaks
from edge_restore.errors import InternalError
from edge_restore.storage.json_fields import JsonFields, is_number
from edge_restore.storage.json_file import read_json

SCHEMA = "edge_restore.claims/1"
FILE = Path(__file__).with_name("claims.json")

WAYS = ("network", "host to host", "camera to sink")
"""How a time can be meant: the network alone; with the copies; through the whole pipeline."""

AS_SOME_DO = ("not waited for", "256x256")
"""Two ways to a smaller figure, measured to show what they give here: the network alone, the clock
stopped when its call returns and not when its picture is there; and on a picture of 256x256."""

VERDICTS = ("met", "not met", "cannot be", "cannot be compared", "not measured")

_NETWORKS = ("svdn", "lmfn", "drcnet", "fcn")


@dataclass(frozen=True)
class Claim:
    """One figure of a paper.

    Attributes:
        id: unique.
        paper: in which of the four it stands, "svdn" and so on.
        where: table, section or abstract.
        method: as the paper calls it.
        network: which of our networks it is; None for another method.
        milliseconds: for one picture; None where the paper gives words or a ratio.
        published: as it is printed.
        hardware: that it was measured on; None where that is not said.
        height, width: of the picture, or None.
        precision: "fp32" or so, or None.
        synchronised: whether the device was waited for; None where that is not said.
        parameters_millions: None where the same place does not give them.
        psnr: likewise, in dB.
        note: what is unclear.
    """

    id: str
    paper: str
    where: str
    method: str
    network: str | None
    milliseconds: float | None
    published: str
    hardware: str | None
    height: int | None
    width: int | None
    precision: str | None
    synchronised: bool | None
    parameters_millions: float | None
    psnr: float | None
    note: str


@dataclass(frozen=True)
class Floor:
    """The least time of a frame on a device.

    Attributes:
        milliseconds: by arithmetic.
        precision: in which it is reached, "fp32" or "fp16".
        bound: "operations" or "bytes": what takes that long.
    """

    milliseconds: float
    precision: str
    bound: str


@dataclass(frozen=True)
class Judgement:
    """What became of a claim.

    Attributes:
        claim: the figure.
        verdict: one of `VERDICTS`.
        why: the reason.
        floor: where hardware and size are known, and the network is ours.
        measured: milliseconds here by `WAYS`, where that was measured.
    """

    claim: Claim
    verdict: str
    why: str
    floor: Floor | None = None
    measured: Mapping[str, float] | None = None


@cache
def claims() -> tuple[Claim, ...]:
    """All claims, in the order of the papers."""
    fields = _document()
    found = fields.sequence("claims", _claim)
    if fields.errors:
        raise InternalError(f"claims.json:{fields.listing()}")
    return found


@cache
def hardware() -> dict[str, Peaks]:
    """The peak rates of the devices by name."""
    fields = _document()
    found = fields.sequence("hardware", _peaks)
    if fields.errors:
        raise InternalError(f"claims.json:{fields.listing()}")
    return {peaks.name: peaks for peaks in found}


def floor(cost: FrameCost, pixels: int, peaks: Peaks, precisions: Sequence[str]) -> Floor | None:
    """The least time of a frame in the best of some precisions; None where no peak is known."""
    found = []
    for precision in precisions:
        rate = peaks.operations(precision)
        if rate is None or peaks.bandwidth is None:
            continue
        moved = cost.compulsory_bytes(NUMBER_BYTES[precision], pixels)
        times = {"operations": 2 * cost.macs / rate, "bytes": moved / peaks.bandwidth}
        bound = max(times, key=lambda name: times[name])
        found.append(Floor(1000 * times[bound], precision, bound))
    return min(found, key=lambda one: one.milliseconds, default=None)


def judge(claim: Claim, measured: Mapping[str, float] | None = None) -> Judgement:
    """The verdict over a claim.

    Args:
        claim: the figure.
        measured: milliseconds here by `WAYS`, for the claim's network and size; None where that
            was not measured.
    """
    if claim.milliseconds is None:
        return Judgement(claim, "cannot be compared", "no time is given, only words or a ratio")
    if claim.network is None:
        return Judgement(claim, "cannot be compared", "not one of this project's networks")
    if claim.height is None or claim.width is None:
        return Judgement(claim, "cannot be compared", _lacking(claim))
    cost = frame_cost(claim.network, claim.height, claim.width)
    least = _published_floor(claim, claim.height, claim.width)
    if least is not None and claim.milliseconds < least.milliseconds:
        giga = 2 * cost.macs / 1e9
        why = (
            f"{giga:.0f} GFLOP take {claim.hardware} {least.milliseconds:.1f} ms at its peak in "
            f"{least.precision.upper()}"
        )
        return Judgement(claim, "cannot be", why, least, measured)
    if measured is None:
        return Judgement(claim, "not measured", "no run of this network and size here", least)
    way = WAYS[0]
    verdict = "met" if measured[way] <= claim.milliseconds else "not met"
    where = "" if claim.hardware is None else f" (published on {claim.hardware})"
    why = f"{measured[way]:.1f} ms for the {way} here{where}"
    return Judgement(claim, verdict, why, least, measured)


def _published_floor(claim: Claim, height: int, width: int) -> Floor | None:
    """Of a claim's network at a size on its hardware; None where that is not known."""
    if claim.network is None or claim.hardware is None or claim.hardware not in hardware():
        return None
    kinds = [claim.precision] if claim.precision else ["fp32", "fp16"]
    cost = frame_cost(claim.network, height, width)
    return floor(cost, height * width, hardware()[claim.hardware], kinds)


def _lacking(claim: Claim) -> str:
    """What a claim without a size does not say, and what is known all the same."""
    if claim.hardware is None:
        return "hardware and size of the picture not given"
    height, width = 720, 1280
    least = _published_floor(claim, height, width)
    known = "" if least is None else (
        f"; {width}x{height} takes at least {least.milliseconds:.1f} ms there "
        f"in {least.precision.upper()}"
    )  # fmt: skip
    return f"size of the picture not given{known}"


def _document() -> JsonFields:
    fields = JsonFields(read_json(FILE, KIND))
    fields.choice("schema", (SCHEMA,))
    return fields


def _claim(fields: JsonFields) -> Claim:
    def maybe(key: str, expected: str, accepts: Any) -> Any:
        return fields.take(key, f"{expected} or null", lambda v: v is None or accepts(v), None)

    return Claim(
        id=fields.text("id"),
        paper=fields.choice("paper", _NETWORKS),
        where=fields.text("where"),
        method=fields.text("method"),
        network=maybe("network", "a network", lambda v: v in _NETWORKS),
        milliseconds=maybe("milliseconds", "a positive number", _positive),
        published=fields.text("published"),
        hardware=maybe("hardware", "a name", lambda v: isinstance(v, str) and v),
        height=maybe("height", "a positive number", _positive),
        width=maybe("width", "a positive number", _positive),
        precision=maybe(
            "precision", "a precision", lambda v: isinstance(v, str) and v in NUMBER_BYTES
        ),
        synchronised=maybe("synchronised", "true, false", lambda v: isinstance(v, bool)),
        parameters_millions=maybe("parameters_millions", "a positive number", _positive),
        psnr=maybe("psnr", "a positive number", _positive),
        note=fields.take("note", "a string", lambda v: isinstance(v, str), ""),
    )


def _positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _peaks(fields: JsonFields) -> Peaks:
    def rate(key: str, unit: float) -> float | None:
        expected = "a positive number or null"
        value: Any = fields.take(key, expected, lambda v: v is None or _positive(v), None)
        return None if value is None else value * unit

    return Peaks(
        name=fields.text("name"),
        source=fields.text("source"),
        fp32=rate("fp32_tflops", 1e12),
        fp16=rate("fp16_tflops", 1e12),
        int8=rate("int8_tops", 1e12),
        bandwidth=rate("memory_gb_s", 1e9),
    )
