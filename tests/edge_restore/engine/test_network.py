"""What is refused in a parsed network; RTX parses real ones in test_builder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edge_restore.engine import network
from edge_restore.errors import BackendError
from tests.edge_restore.engine.test_plan import planned

TRT = SimpleNamespace(DataType=SimpleNamespace(HALF="half", FLOAT="float"))


def layer(name: str, kind: str, dtype: str) -> Any:
    """Stands for an ILayer, as the parser of the standard library makes it of a node."""
    tensor = SimpleNamespace(dtype=dtype)
    return SimpleNamespace(
        name=name, type=SimpleNamespace(name=kind), get_input=lambda place: tensor
    )


def test_the_library_s_own_plugin_is_refused_in_fp16() -> None:
    layers = [
        layer("stem/Conv", "CONVOLUTION", "half"),
        layer("neck.deform1/DeformConv", "PLUGIN_V3", "half"),
    ]
    with pytest.raises(BackendError) as caught:
        network._refuse_rounded_coordinates(TRT, layers, planned("fp16"))
    assert "'neck.deform1/DeformConv' (DeformConv) is typed FP16" in caught.value.found
    assert "rounds sampling coordinates" in caught.value.found
    assert "python -m export svdn" in caught.value.hint
    assert "--deformable plugin" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind", "dtype"),
    [
        ("neck.deform1/DeformConv", "PLUGIN_V3", "float"),
        ("neck.deform1/EdgeRestoreDeformConv", "PLUGIN_V3", "half"),
        ("neck.deform1/DeformConv", "CAST", "half"),
    ],
)
def test_what_rounds_nothing_is_taken(name: str, kind: str, dtype: str) -> None:
    network._refuse_rounded_coordinates(TRT, [layer(name, kind, dtype)], planned("fp16"))
