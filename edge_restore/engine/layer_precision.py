"""What the layers of a built engine compute in, and whether that is what was asked for.

A builder that cannot do what it was asked for may build FP32 without a word (TensorRT 11 dropped
the flags FP16 and INT8, and tools that set them only where they exist go on as if nothing had
been). So the engine itself is looked at, by one of

- the engine inspector's JSON, where the engine can be loaded (a GPU is needed);
- the list of layers that the builder prints at the end of its verbose log. TensorRT-RTX 1.7 prints
  each kernel with the types of its tensors, also on a machine without a GPU.

What neither shows is how a kernel accumulates: FP16 kernels may sum in FP32 or in FP16.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_restore.errors import BackendError
from edge_restore.storage.json_file import decode

KINDS = ("int8", "fp16", "fp32", "other")

_MATRIX = re.compile(r"conv|corr|gemm|matmul|matrix_?multiply|mha|attention", re.IGNORECASE)
_NOT_MATRIX = re.compile(r"reformat|constant|shuffle|convert|conversion", re.IGNORECASE)
_TYPES = (
    (re.compile(r"int8", re.IGNORECASE), "int8"),
    (re.compile(r"half|fp16|float16", re.IGNORECASE), "fp16"),
    (re.compile(r"float|fp32|tf32", re.IGNORECASE), "fp32"),
)


@dataclass(frozen=True)
class Layer:
    """A layer of a built engine.

    Attributes:
        name: as the builder calls it.
        kind: the library's word, e.g. "correlation", "kgen", "CaskConvolution".
        inputs: types of the tensors that it reads, constants aside: "fp16" etc., see `KINDS`.
        outputs: types of the tensors that it writes.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_matrix(self) -> bool:
        """Whether it multiplies matrices: a convolution, transposed or not, or a product."""
        named = f"{self.kind} {self.name}"
        return bool(_MATRIX.search(named)) and not _NOT_MATRIX.search(self.kind)

    @property
    def precision(self) -> str:
        """Of a matrix layer what it multiplies, of another the widest type that it touches."""
        if self.is_matrix and self.inputs:
            return self.inputs[0]
        touched = {*self.inputs, *self.outputs}
        return next((kind for kind in ("fp32", "fp16", "int8") if kind in touched), "other")


@dataclass(frozen=True)
class Precisions:
    """How many layers of an engine compute in what; `matrix` counts convolutions and products."""

    all: Mapping[str, int]
    matrix: Mapping[str, int]

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> Precisions:
        """Count them."""
        return cls(_count(layers), _count([layer for layer in layers if layer.is_matrix]))


def from_log(dump: str) -> list[Layer]:
    """The layers in the builder's list, see `BuildLog.layers_dump`; empty when it has another form.

    A line is ``Name: n, LayerType: t, Inputs: [ {..., Datatype: Half, ...}], Constants: [...],
    Outputs: [...], TacticName: ...``.
    """
    layers = []
    for line in dump.splitlines():
        head = re.match(r"Name: (.*?), LayerType: (\w+), Inputs: \[", line)
        if head is None:
            continue
        rest = line[head.end() :]
        inputs, _, rest = rest.partition("], Constants: [")
        if not rest:  # a layer without that list
            inputs, _, outputs = line[head.end() :].partition("], Outputs: [")
        else:
            _, _, outputs = rest.partition("], Outputs: [")
        outputs = re.split(r"\], (?:Tactic|StreamId|Metadata|ParameterType)", outputs)[0]
        layers.append(Layer(head[1], head[2], _dump_types(inputs), _dump_types(outputs)))
    return layers


def from_inspector(text: str) -> list[Layer]:
    """The layers in the engine inspector's JSON; empty when it holds names alone.

    Not yet run on a GPU; `pytest -m gpu tests/gpu` checks it.
    """
    try:
        document = decode(text)
    except ValueError:
        return []
    entries = document.get("Layers", []) if isinstance(document, dict) else []
    if not isinstance(entries, list):
        return []
    return [
        Layer(
            str(entry.get("Name", "")),
            str(entry.get("LayerType", "")),
            _json_types(entry.get("Inputs", [])),
            _json_types(entry.get("Outputs", [])),
        )
        for entry in entries
        if isinstance(entry, dict)
    ]


def check(found: Precisions, wanted: str, typed: int) -> None:
    """Make sure that the engine computes in the precision that was asked for.

    Fusion makes fewer layers than the network has, so half of the expected number is enough.

    Args:
        found: of the engine, or of the parsed network where the engine's layers cannot be seen.
        wanted: "fp32", "fp16" or "int8".
        typed: how many matrix layers of the parsed network are of that precision.

    Raises:
        BackendError: it does not.
    """
    fewest = max(1, -(-typed // 2))
    lower = found.matrix["fp16"] + found.matrix["int8"]
    good = found.matrix[wanted] >= fewest if wanted != "fp32" else lower == 0
    if not good:
        counts = ", ".join(f"{n} {kind}" for kind, n in found.matrix.items() if n)
        least = f"at least {fewest} of them {wanted}" if wanted != "fp32" else "all of them fp32"
        raise BackendError(
            f"the engine came out in another precision than {wanted}: its convolutions are "
            f"{counts}; it was not written",
            expected=least,
            hint="report this with the log (--log FILE); --precision fp32 builds on every version",
        )


def _count(layers: Iterable[Layer]) -> dict[str, int]:
    counts = Counter(layer.precision for layer in layers)
    return {kind: counts[kind] for kind in KINDS}


def _type(text: str) -> str:
    if "uint8" in text.lower():  # the camera's pixels
        return "other"
    return next((kind for pattern, kind in _TYPES if pattern.search(text)), "other")


def _dump_types(tensors: str) -> tuple[str, ...]:
    return tuple(_type(text) for text in re.findall(r"Datatype: (\w+)", tensors))


def _json_types(tensors: Any) -> tuple[str, ...]:
    """Older versions write "Format/Datatype": "Row major linear FP16 format", newer ones apart."""
    if not isinstance(tensors, list):
        return ()
    described = [t for t in tensors if isinstance(t, dict)]
    return tuple(_type(str(t.get("Datatype") or t.get("Format/Datatype") or "")) for t in described)
