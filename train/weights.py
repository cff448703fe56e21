"""Weights: safetensors with a card beside, written by training and read by export."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor, nn

from edge_restore.errors import CardError, DataError, ModelError
from edge_restore.machine import optional
from edge_restore.models.cards import (
    WeightsCard,
    card_path,
    check_digest,
    read_card,
    read_described,
)
from edge_restore.storage import tensor_file
from edge_restore.storage.files import atomic_path
from edge_restore.storage.json_file import abridged as shown
from edge_restore.storage.plain_file import Kind
from train import networks
from train.ranges import argument_problems

_KIND = Kind(
    "weights",
    "a safetensors file; pickles can run code when opened and are refused",
    "name another file, or load it yourself where you trust it and save it with "
    "safetensors.torch.save_file",
    DataError,
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        DataError: missing, another format, or with numbers that are not finite; pickles are
            never opened.
    """
    _check_there(path)
    return parsed_tensors(read_described(path), path)


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"there are no weights at {path}",
            expected="a .safetensors file",
            hint="train some with 'python -m train RECIPE', or name another file",
        )


def parsed_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the content of the safetensors file `path`; as `read_tensors`."""
    optional.require("safetensors", needed_for="reading weights")
    import safetensors.torch

    try:
        tensor_file.read_header(io.BytesIO(content), len(content))
        tensors = safetensors.torch.load(content)
    except ValueError as error:
        raise _KIND.unusable(path, str(error)) from None
    except Exception as error:  # what the library has to say beyond our checks, in its own types
        raise _KIND.unusable(path, f"{type(error).__name__}: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise _KIND.unusable(
                path, f"its tensor {shown(name)} holds numbers that are not finite"
            )
    return tensors


def write_tensors(path: Path, tensors: dict[str, Tensor], network: str) -> None:
    """Write tensors as safetensors, whole or not at all, for everyone who may read the folder.

    The library's own `save_file` makes files that only their owner can read.

    Raises:
        DependencyError: safetensors is not installed.
    """
    optional.require("safetensors", needed_for="writing weights")
    import safetensors.torch

    packed = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(packed, metadata={"network": network}))


def load(path: Path) -> tuple[nn.Module, WeightsCard]:
    """The network that a weights file belongs to, in eval mode, and its card.

    Raises:
        DataError: no such file, or not safetensors.
        CardError: the card is missing or does not match.
        ModelError: the tensors are not those of the card's network.
    """
    _check_there(path)
    content = read_described(path)
    tensors = parsed_tensors(content, path)
    card = read_card(card_path(path))
    if not isinstance(card, WeightsCard) or card.weights.file != path.name:
        raise CardError(
            f"'{card_path(path)}' describes '{card.described.file}', not '{path.name}'",
            expected="the card that was written with these weights",
            hint="copy the weights and their card together, under their own names",
        )
    check_digest(path, content, card.weights.sha256)
    wrong = argument_problems(dict(card.arguments))
    if wrong:
        raise CardError(
            f"'{card_path(path)}' names no network that can be built: {wrong[0]}",
            expected="the arguments that the network was trained with",
            hint="copy the card that was written with these weights",
        )
    network = networks.create(card.network, **card.arguments)
    fit(network, tensors, card.network, path)
    return network.eval(), card


def fit(network: nn.Module, tensors: dict[str, Tensor], name: str, path: Path) -> None:
    """Load `tensors` into `network`.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape.
    """
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in tensors.items()}
    wrong = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if wrong:
        shown = ", ".join(
            f"{k} {theirs.get(k, 'missing')} for {ours.get(k, 'nothing')}" for k in wrong[:3]
        )
        raise ModelError(
            f"{path} does not hold weights of {name}: {len(wrong)} tensors differ ({shown})",
            expected=f"the {len(ours)} tensors of {name}",
            hint="name the network that these weights were trained for",
        )
    network.load_state_dict(tensors)
