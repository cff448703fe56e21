"""Networks of the repo that the zoo does not have, built by TensorRT-RTX from random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_restore.engine import builder
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.manifest import load_checked
from edge_restore.engine.plan import make_plan
from edge_restore.models import zoo
from edge_restore.models.cards import card_path, verify
from tests.edge_restore.engine import engine_models

onnx: Any = pytest.importorskip("onnx")
torch: Any = pytest.importorskip("torch")
exporter: Any = pytest.importorskip("export.exporter")
networks: Any = pytest.importorskip("train.networks")

SHIPPED = {verify(card_path(zoo.find(name)[0])).network for name in zoo.names()}
UNTRAINED = sorted(set(networks.NETWORKS) - SHIPPED)
Graph = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def random_graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """An ONNX file with its card, for a network's name and a precision; made once."""
    folder = tmp_path_factory.mktemp("untrained")

    def random_graph(name: str, precision: str) -> Path:
        path: Path = folder / f"{name}-{precision}.onnx"
        if path.exists():
            return path
        torch.manual_seed(0)
        network = networks.create(name).eval()
        islands: tuple[str, ...] = ()
        if precision == "int8":
            engine_models.quantise(random_graph(name, "fp32"), path)
        else:
            composed = exporter.compose(
                network,
                exporter.Options(form="camera", deformable="GridSample", precision=precision),
            )
            onnx.save(composed.model, str(path))
            islands = composed.islands
        deformable = "GridSample" if exporter._has_deformable(network) else "none"
        return engine_models.write_card(
            path, zoo.names()[0], precision, name=name, network=name, deformable=deformable,
            multiple=network.multiple, fp32_islands=islands,
        )  # fmt: skip

    return random_graph


def check(model: Path, precision: str, size: tuple[int, int], rtx: Flavour, folder: Path) -> None:
    plan = make_plan(
        model, rtx, precision=precision, size=size, gpu=None, wanted_targets=["sm_86"], ungated=True
    )
    built = builder.build(plan)
    builder.write(built, plan, folder / "x.engine", command="edge-restore build")
    manifest = load_checked(folder / "x.engine", plan.expectation).manifest
    assert (manifest.verified_by, manifest.precision) == ("build log", precision)
    assert manifest.height >= size[0] and manifest.width >= size[1]
    assert manifest.layers.matrix[precision] > 0


@pytest.mark.parametrize("size", [(541, 963)], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", UNTRAINED)
def test_it_builds_in_the_precision_asked_for(
    name: str, precision: str, size: tuple[int, int], rtx: Flavour, random_graph: Graph,
    tmp_path: Path,
) -> None:  # fmt: skip
    check(random_graph(name, precision), precision, size, rtx, tmp_path)


def test_it_builds_at_the_size_of_a_camera(
    rtx: Flavour, random_graph: Graph, tmp_path: Path
) -> None:
    check(random_graph("drcnet", "int8"), "int8", (720, 1280), rtx, tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_way_is_the_same_for_a_shipped_one(
    precision: str, rtx: Flavour, random_graph: Graph, tmp_path: Path
) -> None:
    check(random_graph("svdn", precision), precision, (61, 95), rtx, tmp_path)
