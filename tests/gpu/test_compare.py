"""`build --compare` with the engine itself, by Polygraphy's runner. Not run yet: it needs a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_restore.engine import builder, compare, flavour
from edge_restore.engine.gpu import this_gpu
from edge_restore.engine.plan import make_plan
from edge_restore.errors import DependencyError
from edge_restore.models import zoo
from tests.edge_restore.onnx_models import write_model

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", ["tensorrt", "rtx"])
@pytest.mark.parametrize("model", ["small", *zoo.names()])
def test_layers_and_picture_agree_with_the_cpu(name: str, model: str, tmp_path: Path) -> None:
    if (gpu := this_gpu()) is None:
        pytest.skip("no NVIDIA GPU here")
    pytest.importorskip("polygraphy")
    try:
        library = flavour.load(name)
    except DependencyError as error:
        pytest.skip(error.found)
    precision = "fp32" if model == "small" else "fp16"
    path = write_model(tmp_path) if model == "small" else model
    plan = make_plan(path, library, precision=precision, size=(96, 128), gpu=gpu)
    if compare.cannot_run(plan):
        pytest.skip(compare.cannot_run(plan))
    found = compare.compare(plan, builder.build(plan).engine)
    assert not found.not_run and len(found.layers) >= 10
    assert found.layers[0].psnr > 40 and all(layer.finite for layer in found.layers)
    assert found.picture.psnr > 50
