"""What a card says of an INT8 graph: how it was quantised, and whether it passed the gate."""

from __future__ import annotations

from dataclasses import dataclass

from edge_restore.storage.json_fields import MAX_SIDE, JsonFields


@dataclass(frozen=True)
class Quantisation:
    """How a graph was made INT8.

    Attributes:
        rest: what everything else computes in, "fp32" or "fp16".
        method: how thresholds were chosen, or "qat" after training with them.
        layers: INT8 convolutions.
        macs_share: of the network's multiply-accumulates that are INT8, 0 to 1.
        frames: of the calibration set.
        set_sha256: of the calibration set.
    """

    rest: str
    method: str
    layers: int
    macs_share: float
    frames: int
    set_sha256: str


@dataclass(frozen=True)
class GateSet:
    """One set of pairs, restored in FP32 and in INT8; PSNR in dB, means over the images.

    Attributes:
        set: the folder's name.
        images: how many pairs.
        psnr: of the FP32 graph's pictures against the truth.
        psnr_int8: of the INT8 graph's.
        psnr_fp16: of the FP16 graph's, where one was compared.
        ssim: of the FP32 graph's.
        ssim_int8: of the INT8 graph's.
        worst_image: the name of the one that loses most.
        worst_drop: what it loses, in dB.
        brightness_shift: mean level of INT8 less that of FP32, in levels of 255.
        worst_column: the column, 0 at the left, at which INT8 is farthest from FP32.
        worst_column_psnr: of INT8 against FP32 there.
        psnr_between: of INT8 against FP32 over all columns.
    """

    set: str
    images: int
    psnr: float
    psnr_int8: float
    psnr_fp16: float | None
    ssim: float
    ssim_int8: float
    worst_image: str
    worst_drop: float
    brightness_shift: float
    worst_column: int
    worst_column_psnr: float
    psnr_between: float

    @property
    def drop(self) -> float:
        """What INT8 loses on the mean, in dB."""
        return self.psnr - self.psnr_int8


@dataclass(frozen=True)
class Gate:
    """The verdict over an INT8 graph.

    Attributes:
        passed: whether every set is within the limits and, where engines were timed, INT8 is
            faster than FP16.
        reference_sha256: of the FP32 ONNX file that it was compared with.
        run_sha256: of the INT8 ONNX file that was run: the card's own, or one with the same
            quantised weights and scales where the card's runs in engines alone.
        greatest_drop: the limit of a set's mean loss, in dB.
        greatest_shift: the limit of a set's brightness shift, in levels of 255, either way.
        sets: what was measured.
        latency: what is known of the engines' speed, in words.
        failures: why it did not pass.
    """

    passed: bool
    reference_sha256: str
    run_sha256: str
    greatest_drop: float
    greatest_shift: float
    sets: tuple[GateSet, ...]
    latency: str
    failures: tuple[str, ...]


def read_quantisation(fields: JsonFields) -> Quantisation:
    """The card's field `quantisation`."""
    return Quantisation(
        rest=fields.choice("rest", ("fp32", "fp16")),
        method=fields.text("method"),
        layers=fields.integer("layers", 1),
        macs_share=fields.number("macs_share", 0, 1),
        frames=fields.integer("frames", 1, 1 << 20),
        set_sha256=fields.digest("set_sha256"),
    )


def read_gate(fields: JsonFields) -> Gate:
    """The card's field `gate`; noted as wrong where the verdict and its reasons disagree."""
    gate = Gate(
        passed=fields.boolean("passed"),
        reference_sha256=fields.digest("reference_sha256"),
        run_sha256=fields.digest("run_sha256"),
        greatest_drop=fields.number("greatest_drop"),
        greatest_shift=fields.number("greatest_shift"),
        sets=fields.sequence("sets", _set),
        latency=fields.text("latency"),
        failures=tuple(fields.items("failures", lambda v: isinstance(v, str), "strings")),
    )
    if gate.passed and (gate.failures or not gate.sets):
        fields.errors.append("gate.passed is true though it names failures, or no set")
    return gate


def _set(fields: JsonFields) -> GateSet:
    fp16 = fields.document.get("psnr_fp16") is not None
    return GateSet(
        set=fields.text("set"),
        images=fields.integer("images", 1),
        psnr=fields.number("psnr"),
        psnr_int8=fields.number("psnr_int8"),
        psnr_fp16=fields.number("psnr_fp16") if fp16 else None,
        ssim=fields.number("ssim"),
        ssim_int8=fields.number("ssim_int8"),
        worst_image=fields.text("worst_image"),
        worst_drop=fields.number("worst_drop"),
        brightness_shift=fields.number("brightness_shift"),
        worst_column=fields.integer("worst_column", 0, MAX_SIDE),
        worst_column_psnr=fields.number("worst_column_psnr"),
        psnr_between=fields.number("psnr_between"),
    )
