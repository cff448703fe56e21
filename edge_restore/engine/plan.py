"""What is to be built: every question answered before the builder is started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edge_restore.engine import cache, targets
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import Gpu
from edge_restore.engine.manifest import Expectation
from edge_restore.errors import ModelError, OptionError
from edge_restore.media import padding
from edge_restore.models import zoo
from edge_restore.models.cards import PRECISIONS, ModelCard, card_path, verify

REVISION = 1
"""Of the builder's own settings; counted up when they change, so that the cache builds anew."""

LARGEST_PIXELS = 1 << 28
"""16384x16384. Libraries refuse sizes below it with a message; TensorRT-RTX 1.7 crashes at
65536x65536."""


@dataclass(frozen=True)
class Plan:
    """An engine to build.

    Attributes:
        model: the ONNX file, which has its card's hash.
        card: its card.
        flavour: the library.
        gpu: the GPU that is here, or None.
        targets: compute capabilities to build for, e.g. ("sm_86",).
        frame: (height, width) that was asked for.
        height: and `width`: what the engine takes, multiples of the card's.
        kernel_sha256: of the hashes of the PTX files of our deformable convolution that its layers
            may launch, the aligned and the general one, where the plugin is used.
    """

    model: Path
    card: ModelCard
    flavour: Flavour
    gpu: Gpu | None
    targets: tuple[str, ...]
    frame: tuple[int, int]
    height: int
    width: int
    kernel_sha256: str | None

    @property
    def precision(self) -> str:
        """What the graph, and so the engine, computes in."""
        return self.card.precision

    @property
    def expectation(self) -> Expectation:
        """What an engine of this plan is, and is for: the GPU that is here, if it is meant."""
        own = self.gpu.target if self.gpu is not None else ""
        return Expectation(
            onnx_sha256=self.card.onnx.sha256,
            flavour=self.flavour.name,
            flavour_version=self.flavour.version,
            target=own if own in self.targets else self.targets[0],
            height=self.height,
            width=self.width,
            precision=self.precision,
            kernel_sha256=self.kernel_sha256,
        )

    @property
    def key(self) -> str:
        """The engine's key in the cache."""
        return cache.key(
            {
                "revision": REVISION,
                "onnx": self.card.onnx.sha256,
                "flavour": [self.flavour.name, self.flavour.version],
                "targets": list(self.targets),
                # The standard library times its kernels on the GPU that is here.
                "gpu": self.gpu.name if self.gpu and self.flavour.name == "tensorrt" else None,
                "size": [self.height, self.width],
                "precision": self.precision,
                "kernel": self.kernel_sha256,
            }
        )


def make_plan(
    model: str | Path,
    flavour: Flavour,
    *,
    precision: str,
    size: tuple[int, int],
    gpu: Gpu | None,
    wanted_targets: Sequence[str] = (),
    ungated: bool = False,
) -> Plan:
    """Answer every question that can be answered without the builder.

    Args:
        model: a zoo name, whose variant for this flavour and precision is taken, or an ONNX file.
        precision: "fp32", "fp16" or "int8".
        size: (height, width) of the frames; padded up to the network's multiple.
        gpu: the GPU that is here, or None.
        wanted_targets: e.g. ["sm_86"]; none for what suits the machine.
        ungated: take an INT8 graph whose card has no verdict, or a bad one.

    Raises:
        ModelError, CardError: the model is not ours, does not carry the precision, or is INT8 and
            has not passed its gate.
        OptionError: a size or target that cannot be.
        BackendError: nothing can be built on this machine.
    """
    resolved = targets.resolve(flavour, wanted_targets, gpu)
    path = _find(model, flavour, precision)
    card = _card(path, flavour, precision)
    if precision == "int8" and not ungated:
        _check_gate(path, card)
    height, width = _padded(path, card, size)
    plugin = card.deformable == "plugin" and flavour.name == "tensorrt"  # RTX's parser refuses it
    kernel = _kernel_sha256(card, resolved) if plugin else None
    return Plan(path, card, flavour, gpu, resolved, size, height, width, kernel)


def export_command(card: ModelCard, *, precision: str, deformable: str, out: Path) -> str:
    """The command that exports the same network in another form, for messages."""
    words = shlex.split(card.command)
    if words[:3] != ["python", "-m", "export"]:
        words = ["python", "-m", "export", card.network, "--weights", card.weights.file]
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("--out", "--precision", "--deformable", "--form"):
            skip = True
        else:
            kept.append(word)
    added = ["--out", str(out), "--form", "camera", "--precision", precision]
    if card.deformable != "none":
        added += ["--deformable", deformable]
    return shlex.join([*kept, *added])


def _find(model: str | Path, flavour: Flavour, precision: str) -> Path:
    if precision not in PRECISIONS:
        raise OptionError(
            f"there is no precision '{precision}'",
            expected=f"one of {', '.join(PRECISIONS)}",
            hint="fp16 is the usual one on a GPU",
        )
    files = zoo.find(model)
    if str(model) not in zoo.names():
        return files[0]
    variants = zoo.engine_files(str(model), flavour.name, precision)
    if variants:
        return variants[0]
    deformable = _deformable(flavour)
    card = verify(card_path(files[0]))
    assert isinstance(card, ModelCard)
    out = Path(f"{model}-{deformable.lower()}-{precision}.onnx")
    raise _lacks(f"the zoo's '{model}'", card, precision, deformable, out)


def _card(path: Path, flavour: Flavour, precision: str) -> ModelCard:
    card = verify(card_path(path))
    if not isinstance(card, ModelCard) or card.onnx.file != path.name:
        raise ModelError(
            f"'{card_path(path)}' is not the card of '{path.name}'",
            expected="the model's own card",
            hint="copy the model and its card together, under their own names",
        )
    deformable = card.deformable if card.deformable != "DeformConv" else _deformable(flavour)
    if card.form != "camera":
        out = path.with_name(f"{path.stem}-camera.onnx")
        command = export_command(card, precision=precision, deformable=deformable, out=out)
        raise ModelError(
            f"'{path}' takes and gives float32 pictures",
            expected="the camera form (uint8), so that frames cross the bus as they are",
            hint=command,
        )
    if card.precision != precision:
        out = path.with_name(f"{path.stem}-{precision}.onnx")
        raise _lacks(f"'{path}'", card, precision, deformable, out)
    return card


def _check_gate(path: Path, card: ModelCard) -> None:
    """Make sure that an INT8 graph was compared with FP32 and found good enough."""
    if card.gate is not None and card.gate.passed:
        return
    if card.gate is None:
        found = f"'{path}' is INT8, and nobody has compared it with FP32"
    else:
        found = f"'{path}' did not pass its gate: {'; '.join(card.gate.failures)}"
    raise ModelError(
        found,
        expected="an INT8 graph whose card has a good verdict",
        hint="python -m calibration check (docs/int8.md), --precision fp16, or --ungated to build "
        "it all the same",
    )


def _lacks(what: str, card: ModelCard, precision: str, deformable: str, out: Path) -> ModelError:
    """The model does not carry the precision: the types are in the graph, not in the builder."""
    hint = export_command(card, precision=precision, deformable=deformable, out=out)
    if precision == "int8":
        hint = "quantise its graph (python -m calibration, docs/int8.md), or use --precision fp16"
    return ModelError(
        f"{what} has no {precision} graph for this flavour"
        if what.startswith("the zoo")
        else f"{what} does not carry {precision}: its graph is {card.precision}",
        expected=f"an ONNX file that is typed {precision}, as its card says",
        hint=hint,
    )


def _deformable(flavour: Flavour) -> str:
    return "plugin" if flavour.name == "tensorrt" else "GridSample"


def _padded(path: Path, card: ModelCard, size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > LARGEST_PIXELS:
        raise OptionError(
            f"the size {size[0]}x{size[1]} is larger than any engine",
            expected=f"at most {LARGEST_PIXELS} pixels",
            hint="give the size of a frame, e.g. --size 2160x3840",
        )
    if min(size) < 1:
        raise OptionError(
            f"the size is {size[0]}x{size[1]}",
            expected="a height and a width of 1 or more",
            hint="write height x width, e.g. --size 720x1280",
        )
    height, width = padding.padded_size(*size, card.multiple)
    fixed = card.input.shape[1:3]  # NHWC
    if any(side not in (None, given) for side, given in zip(fixed, (height, width), strict=True)):
        raise OptionError(
            f"'{path}' takes {fixed[0]}x{fixed[1]} only; {size[0]}x{size[1]}, padded, is "
            f"{height}x{width}",
            expected="the graph's own size (height x width)",
            hint=f"use --size {fixed[0]}x{fixed[1]}, or export the model with --size dynamic",
        )
    return height, width


def _kernel_sha256(card: ModelCard, resolved: tuple[str, ...]) -> str:
    from edge_restore.engine.plugin import kernels

    number = int(resolved[0].removeprefix("sm_"))
    capability = number // 10, number % 10
    # Which of the two a layer launches follows from its channels, which only the graph knows.
    chosen = [kernels.choose(capability, card.floating, alignment) for alignment in (None, 1)]
    return sha256("".join(kernel.sha256 for kernel in chosen).encode()).hexdigest()
