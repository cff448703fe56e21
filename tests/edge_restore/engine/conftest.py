"""Graphs for engines, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_restore.engine import flavour
from edge_restore.engine.flavour import Flavour
from edge_restore.errors import DependencyError
from edge_restore.models import zoo
from edge_restore.models.cards import card_path, verify
from tests.edge_restore.engine import engine_models


@pytest.fixture(scope="session")
def rtx() -> Flavour:
    """TensorRT-RTX itself: it builds without a GPU."""
    try:
        return flavour.load("rtx")
    except DependencyError as error:
        pytest.skip(str(error.found))


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """An ONNX file with its card, for a zoo name and a precision; made once."""
    folder = tmp_path_factory.mktemp("graphs")
    made: dict[tuple[str, str], Path] = {}

    def graph(name: str, precision: str) -> Path:
        if (name, precision) not in made:
            made[name, precision] = _make(name, precision, folder, graph)
        return made[name, precision]

    return graph


def _make(name: str, precision: str, folder: Path, graph: Callable[[str, str], Path]) -> Path:
    """The file that ships; where there is none (INT8), Q/DQ nodes are put into the FP32 one."""
    if shipped := zoo.engine_files(name, "rtx", precision):
        if verify(card_path(shipped[0])).deformable in ("GridSample", "none"):
            return shipped[0]
        pytest.fail(f"the zoo has no {precision} graph of {name} that TensorRT-RTX takes")
    assert precision == "int8"
    target = folder / f"{name}-gridsample-int8.onnx"
    engine_models.quantise(graph(name, "fp32"), target)
    return engine_models.write_card(target, name, precision)
