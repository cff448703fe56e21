"""VGG-16 and VGG-19 (Simonyan and Zisserman, ICLR 2015) as fixed features for losses.

Layers are numbered as torchvision numbers `features`: every convolution, ReLU and pooling counts.
The weights come from a file that the user names; none are shipped.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_restore.errors import DataError, ModelError
from train.weights import read_tensors

_WIDTHS = (64, 128, 256, 512, 512)
_DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks; a block ends with a pooling that halves the sides."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in [0, 1], which the weights expect to be taken out."""


def _stack(name: str) -> list[tuple[int, int] | str]:
    """Layer by layer: (inputs, outputs) of a 3x3 convolution, "relu" or "pool"."""
    layers: list[tuple[int, int] | str] = []
    inputs = 3
    for width, count in zip(_WIDTHS, _DEPTHS[name], strict=True):
        for _ in range(count):
            layers += [(inputs, width), "relu"]
            inputs = width
        layers.append("pool")
    return layers


LAYERS = {name: len(_stack(name)) for name in _DEPTHS}
"""How many layers each has: 31 and 37."""


def first_of_blocks(name: str) -> tuple[int, ...]:
    """The ReLU after the first convolution of each block: 1, 6, 11, 18, 25 in VGG-16."""
    poolings = [i for i, layer in enumerate(_stack(name)) if layer == "pool"]
    return (1, *(pooling + 2 for pooling in poolings[:-1]))


def _shape(shapes: dict[str, tuple[int, ...]], key: str) -> str:
    return f"{key} {list(shapes[key])}" if key in shapes else f"no {key}"


def _fit(tensors: dict[str, Tensor], name: str, last: int, path: Path) -> dict[str, Tensor]:
    """The tensors of the layers up to `last` in float32, checked (see `VGG`)."""
    whole: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(_stack(name)):
        if isinstance(layer, tuple):
            whole[f"features.{index}.weight"] = (layer[1], layer[0], 3, 3)
            whole[f"features.{index}.bias"] = (layer[1],)
    needed = {key for key in whole if int(key.split(".")[1]) <= last}
    theirs = {k: tuple(v.shape) for k, v in tensors.items() if k.startswith("features.")}
    # What is not needed is looked at too: VGG-19 and VGG-16 begin alike.
    wrong = sorted(k for k in needed | theirs.keys() if theirs.get(k) != whole.get(k))
    if wrong:
        found = ", ".join(_shape(theirs, key) for key in wrong[:3])
        wanted = ", ".join(_shape(whole, key) for key in wrong[:3])
        raise ModelError(
            f"{path} does not hold {name}'s features: {len(wrong)} of its tensors differ, "
            f"such as: {found}",
            expected=f"{wanted}; in all {len(needed)} tensors, named and shaped as in torchvision",
            hint=f"name a file of {name}'s weights, or the other of {', '.join(_DEPTHS)}",
        )
    unusable = [k for k in sorted(needed) if not tensors[k].float().isfinite().all()]
    if unusable:
        raise ModelError(
            f"{path} holds values that are not finite, such as in {unusable[0]}",
            expected="finite weights",
            hint="fetch or convert the file again",
        )
    return {key: tensors[key].float() for key in needed}


class VGG(nn.Module):
    """Feature maps of chosen layers. Nothing here is trained, and nothing goes into checkpoints.

    Args:
        name: "vgg16" or "vgg19".
        layers: numbers of the layers whose outputs are wanted; 12 in VGG-16 is the convolution
            conv3_2, before its ReLU.
        path: safetensors with `features.N.weight` and `features.N.bias`, any floating type, at
            least up to the last layer wanted. Keys that do not begin with `features.` are ignored.

    Raises:
        DataError: there is no such file, or it is not safetensors.
        ModelError: a tensor is missing, of another shape, or not of this network.
    """

    def __init__(self, name: str, layers: set[int], path: Path) -> None:
        super().__init__()
        if not path.is_file():
            raise DataError(
                f"there is no VGG weights file at '{path}'",
                expected=f"a safetensors file of {name}'s ImageNet weights under torchvision's "
                "names (features.N.weight, features.N.bias)",
                hint="name it as 'vgg_file' in the recipe's [loss]",
            )
        self.layers = frozenset(layers)
        self._stack = _stack(name)[: max(layers) + 1]
        for key, tensor in _fit(read_tensors(path), name, max(layers), path).items():
            self.register_buffer(key.replace(".", "_"), tensor, persistent=False)
        for key, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """RGB in [0, 1], (N, 3, H, W), to the feature map (N, C, h, w) of each chosen layer.

        The maps have the picture's type; under autocast they are rounded on the way.
        """
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        x = (image - mean) / deviation
        x = x.contiguous(memory_format=torch.channels_last)
        features = {}
        for index, layer in enumerate(self._stack):
            if layer == "relu":
                x = F.relu(x)
            elif layer == "pool":
                x = F.max_pool2d(x, 2)
            else:
                weight = self.get_buffer(f"features_{index}_weight")
                x = F.conv2d(x, weight, self.get_buffer(f"features_{index}_bias"), padding=1)
            if index in self.layers:
                features[index] = x.to(image.dtype)
        return features
