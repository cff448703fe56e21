"""What one picture costs a network: multiply-accumulates and memory, counted without computing.

The network runs once on torch's meta device, where tensors have shapes and no contents, and every
operator that it calls is seen by a dispatch mode. So any size is counted at once and in no memory,
and nothing is missed that a list of layers would not show (a product of two activations, a
convolution called as a function).

Counted as multiply-accumulates: convolutions, transposed ones, matrix products, and of a deformable
convolution both its bilinear gather and its product. Not counted, as is the custom: activations,
additions, pooling, resizing, normalisation, biases.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

from train.networks.deform_conv import DeformConv2d

CORNERS = 4
"""Multiply-accumulates of one bilinear sample: one for each corner, its weight times the mask."""


@dataclass(frozen=True)
class Cost:
    """Of one forward pass in eval mode, one picture.

    Attributes:
        parameters: of the network.
        macs: multiply-accumulates; a floating-point operation count is twice this.
        activation_bytes: the most that is held at once in activations, input and output included,
            when torch runs the network operator by operator without gradients in float32. What an
            engine needs is less, as it fuses operators; weights and a convolution's own workspace
            are not in it.
        moved_numbers: that convolutions and products read and write, weights included, each of a
            tensor's numbers once: what a runtime moves that fuses everything else into them.
    """

    parameters: int
    macs: int
    activation_bytes: int
    moved_numbers: int


def profile(network: nn.Module, size: tuple[int, int]) -> Cost:
    """The cost of a picture of `size` = (height, width). `network` is not changed.

    A network that pads to its multiple is counted with what it adds.
    """
    counted = copy.deepcopy(network).to("meta").eval()
    counter = _Counter()
    for name, layer in list(counted.named_modules()):
        if isinstance(layer, DeformConv2d):
            counted.set_submodule(name, _CountedDeformConv(layer, counter))
    # `no_grad` and not `inference_mode`, under which composite operators are not taken apart. The
    # picture is made inside, so that it is among the activations.
    with torch.no_grad(), counter:
        counted(torch.empty(1, 3, *size, device="meta"))
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, counter.macs, counter.peak, counter.moved)


def convolution(weight: Tensor, pixels: int) -> int:
    """Multiply-accumulates of a convolution.

    Args:
        weight: (Cout, Cin/groups, ...), or of a transposed convolution (Cin, Cout/groups, ...).
        pixels: N * H * W of the output, or of a transposed convolution's input: each of them meets
            every number of the weight once.
    """
    return weight.numel() * pixels


def deformable_convolution(weight: Tensor, in_channels: int, pixels: int) -> int:
    """Multiply-accumulates of a modulated deformable convolution.

    Each of `pixels` output pixels samples every tap of all channels, `CORNERS` each, and then is a
    convolution's. What predicts offsets and masks are layers of their own.

    Args:
        weight: (Cout, in_channels/groups, Kh, Kw).
        in_channels: of the image that is sampled.
        pixels: N * Ho * Wo.
    """
    samples = in_channels * math.prod(weight.shape[2:])
    return (CORNERS * samples + weight.numel()) * pixels


def _pixels(tensor: Tensor) -> int:
    return math.prod((tensor.shape[0], *tensor.shape[2:]))


def _of_convolution(out: Tensor, image: Tensor, weight: Tensor, *rest: Any) -> int:
    transposed = bool(rest[4])  # after bias, stride, padding, dilation
    return convolution(weight, _pixels(image if transposed else out))


def _of_product(out: Tensor, a: Tensor, b: Tensor) -> int:
    return out.numel() * a.shape[-1]


def _of_sum_and_product(out: Tensor, _: Tensor, a: Tensor, b: Tensor, *rest: Any) -> int:
    return _of_product(out, a, b)


_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.convolution: _of_convolution,
    torch.ops.aten.mm: _of_product,
    torch.ops.aten.mv: lambda out, a, b: a.numel(),
    torch.ops.aten.dot: lambda out, a, b: a.numel(),
    torch.ops.aten.bmm: _of_product,
    torch.ops.aten.addmm: _of_sum_and_product,
    torch.ops.aten.baddbmm: _of_sum_and_product,
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: adds up multiply-accumulates, follows which tensors are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = self.moved = self.peak = self._alive = 0
        self._known: dict[int, weakref.finalize[..., Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.macs += formula(out, *args)
            operands = [a for a in args if isinstance(a, Tensor) and a.ndim > 1]
            self.moved += out.numel() + sum(operand.numel() for operand in operands)
        # A view shares its storage with a tensor known already, or with a weight.
        given = {_storage(t)._cdata for t in tree_flatten((args, kwargs))[0] if _is_meta(t)}
        for tensor in tree_leaves(out):
            if _is_meta(tensor) and _storage(tensor)._cdata not in given:
                self._hold(_storage(tensor))
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._alive += storage.nbytes()
        self.peak = max(self.peak, self._alive)
        self._known[key] = weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._alive -= size
        del self._known[key]


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "meta"


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


class _CountedDeformConv(nn.Module):
    """Stands in for a `DeformConv2d`: counts, and gives a tensor of the output's shape.

    As a kernel of its own holds no table of sampled taps, neither does this.
    """

    def __init__(self, layer: DeformConv2d, counter: _Counter) -> None:
        super().__init__()
        self.layer, self.counter = [layer], counter  # in a list: no module of this one

    def forward(self, image: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        weight = self.layer[0].weight
        size = offset.shape[2:]  # `DeformConv2d` checks that it is the output's
        self.counter.macs += deformable_convolution(
            weight, image.shape[1], len(image) * math.prod(size)
        )
        made = image.new_empty(len(image), len(weight), *size)
        operands = (made, image, offset, mask, weight)
        self.counter.moved += sum(operand.numel() for operand in operands)
        return made
