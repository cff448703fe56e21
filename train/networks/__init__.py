"""The networks by name. RGB in [0, 1], NCHW, any height and width; each states its `multiple`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from edge_restore.errors import OptionError
from train.networks.drcnet import DRCNet
from train.networks.fcn import FCN
from train.networks.lmfn import LMFN
from train.networks.svdn import SVDN

NETWORKS: dict[str, type[nn.Module]] = {
    network.name: network for network in (SVDN, LMFN, DRCNet, FCN)
}


def create(name: str, **arguments: Any) -> nn.Module:
    """A network by its name, with its ablation switches as keyword arguments.

    Raises:
        OptionError: no such network, or an argument that it does not take.
    """
    if name not in NETWORKS:
        raise OptionError(
            f"no network is called '{name}'",
            expected="one of: " + ", ".join(NETWORKS),
            hint="choose one of these names",
        )
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"network '{name}' cannot be built with {arguments}: {error}",
            expected="the switches that its constructor lists",
            hint=f"see the docstring of {NETWORKS[name].__name__}",
        ) from error


def stages(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a network gave in train mode as its stages' images, the last one final."""
    return (output,) if isinstance(output, Tensor) else output
