"""Engines of the standard library, which builds only where there is a GPU.

Not run yet: no machine of this project's has had a GPU with TensorRT. `pytest -m gpu tests/gpu`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_restore.engine import builder, flavour
from edge_restore.engine.cache import EngineCache, layers_path
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import Gpu, this_gpu
from edge_restore.engine.manifest import load_checked
from edge_restore.engine.plan import make_plan
from edge_restore.errors import DependencyError
from edge_restore.models import zoo

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    found = this_gpu()
    if found is None:
        pytest.skip("no NVIDIA GPU here")
    return found


@pytest.fixture(scope="module", params=["tensorrt", "rtx"])
def library(request: pytest.FixtureRequest, gpu: Gpu) -> Flavour:
    try:
        loaded = flavour.load(request.param)
    except DependencyError as error:
        pytest.skip(error.found)
    return loaded


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", zoo.names())
def test_every_network(
    name: str, precision: str, library: Flavour, gpu: Gpu, tmp_path: Path
) -> None:
    """The inspector tells the precisions; what was built is found again; its times are kept."""
    if not zoo.engine_files(name, library.name, precision):
        pytest.skip(f"the zoo has no {precision} graph of {name} for {library.title}")
    plan = make_plan(name, library, precision=precision, size=(720, 1280), gpu=gpu)
    if gpu.target not in plan.targets:
        pytest.skip(f"{library.title} does not know {gpu.name} ({gpu.target})")
    store = EngineCache(tmp_path / "cache")
    engine, built = builder.obtain(plan, store, command="pytest")
    assert built is not None
    manifest = load_checked(engine, plan.expectation).manifest
    assert manifest.verified_by in ("inspector", "build log")
    assert manifest.layers.matrix[precision] > 0
    assert (manifest.gpu, manifest.targets) == (gpu.name, (gpu.target,))
    assert built.inspector == layers_path(engine).read_text(encoding="utf-8")
    assert bool(list(store.folder.glob("*.timing"))) == library.has_timing_cache
    assert builder.obtain(plan, store, command="pytest") == (engine, None)
    again, built = builder.obtain(plan, store, command="pytest", force=True)
    assert again == engine and built is not None
