"""Quantisation-aware training: fine-tuning while convolutions compute as their INT8 forms will.

What an INT8 convolution reads, and its weights, are rounded in the forward pass and left alone in
the backward one (straight-through; Jacob et al., CVPR 2018), on the scales of a scales file. So the
network learns to live with exactly the Q/DQ graph that `calibration.qdq` writes; a test compares
the two. Everything else is the trainer's (`train.trainer`): a recipe, a pack, a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calibration.ranges import LEVELS, SMALLEST_SCALE
from calibration.scales import Scales
from edge_restore.errors import ModelError


class Int8Conv2d(nn.Conv2d):
    """A convolution that rounds its weights per output channel, and what it reads.

    An `nn.Conv2d` becomes one by `attach`; its parameters keep their names.
    """

    step: float

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`, of rounded x and rounded weights."""
        magnitudes = self.weight.detach().float().abs().amax(dim=(1, 2, 3))
        steps = (magnitudes / LEVELS).clamp(min=SMALLEST_SCALE).half().float()
        weight = torch.fake_quantize_per_channel_affine(
            self.weight.float(), steps, torch.zeros_like(steps, dtype=torch.int32), 0,
            -LEVELS, LEVELS,
        )  # fmt: skip
        return F.conv2d(rounded(x, self.step), weight, self.bias, self.stride, self.padding,
                        self.dilation)  # fmt: skip


def rounded(x: Tensor, step: float) -> Tensor:
    """x on the grid of multiples of `step`, clipped at 127 of them; float32."""
    return torch.fake_quantize_per_tensor_affine(x.float(), step, 0, -LEVELS, LEVELS)


def trainable(scales: Scales) -> Scales:
    """`scales` with those additions alone that `attach` can follow.

    The skip connection of a residual block is what the block is given, and can be rounded there.
    One inside of a module (RFDB of LMFN) cannot be reached from outside and stays as it is.
    """
    skips = tuple(name for name in scales.skips if _block_step(name, scales) is not None)
    return replace(scales, skips=skips, method="qat")


def attach(scales: Scales) -> Callable[[nn.Module], None]:
    """What makes a network compute as its INT8 graph, in place.

    Args:
        scales: from `trainable`.

    Returns:
        A function of the network. It raises ModelError when the network lacks a layer.
    """

    def prepare(network: nn.Module) -> None:
        modules = dict(network.named_modules())
        for name, step in scales.layers.items():
            layer = modules.get(_path(name))
            if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
                raise ModelError(
                    f"the network has no convolution '{_path(name)}', which the scales name",
                    expected=f"scales of {type(network).__name__}",
                    hint="find the scales on a graph of this network",
                )
            layer.__class__ = Int8Conv2d
            layer.step = step  # type: ignore[assignment]
        for name in scales.skips:
            given = _block_step(name, scales)
            module = modules.get(_path(name))
            if given is None or module is None:
                raise ModelError(
                    f"the scales name the skip connection of '{name}', which is no block's whose "
                    "first convolution has a scale",
                    expected=f"scales of {type(network).__name__}",
                    hint="find the scales on a graph of this network",
                )
            module.register_forward_pre_hook(_Rounding(given))

    return prepare


class _Rounding:
    """A hook that rounds what a module is given; a class, so that a network can be copied."""

    def __init__(self, step: float) -> None:
        self.step = step

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (rounded(inputs[0], self.step), *inputs[1:])


def _path(node: str) -> str:
    """The module that a node is of: "groups.0.0.body.0" of "groups.0.0.body.0/Conv"."""
    return node.rpartition("/")[0]


def _block_step(addition: str, scales: Scales) -> float | None:
    """The scale of a residual block's input, where the addition is a block's: `block/Add`."""
    path = _path(addition)
    inner = [name for name in scales.layers if name.startswith(f"{path}.body.0/")]
    return scales.layers[inner[0]] if path and inner else None
