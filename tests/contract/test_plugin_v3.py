"""The IPluginV3 through TensorRT's real bindings: what its methods answer, and what it launches."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edge_restore.engine.plugin import kernels
from tests.contract.bindings import ROOT, Bindings, compile_stand_ins, run_child
from tests.edge_restore.engine import cuda_stand_in

CHILD = "tests.contract.plugin_v3_child"


Answers = tuple[dict[str, Any], list[str]]


@pytest.fixture
def answers(installed: Bindings, stand_ins: Path) -> Answers:
    """What the plugin's methods gave, and what the CUDA driver was called with."""
    return _ask(installed, stand_ins)


@cache
def _ask(installed: Bindings, stand_ins: Path) -> Answers:
    cuda = cuda_stand_in.compile_stand_in(stand_ins / "cuda")
    assert cuda is not None  # `stand_ins` has seen gcc
    log = stand_ins / f"calls-{installed.version}"
    environment = cuda_stand_in.environment(
        cuda, log, compile_stand_ins(stand_ins, installed.major)
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(installed.folder), str(ROOT)])
    return run_child(CHILD, None, environment), log.read_text().splitlines()


def test_every_method_answers(answers: Answers) -> None:
    said, _ = answers
    name = ["EdgeRestoreDeformConv", "edge_restore", "1"]
    assert said["creator"] == said["plugin"] == name
    attributes = {
        "kernel_h": 5, "kernel_w": 5, "stride": 1, "padding": 2, "dilation": 1, "offset_groups": 1,
    }  # fmt: skip
    assert said["fields"] == [[field, "INT32"] for field in attributes]
    assert said["kept"] == {field: ["INT32", value, 1] for field, value in attributes.items()}
    assert said["again"] == attributes
    assert said["outputs"] == 1
    assert said["output types"] == ["HALF"]
    assert said["output ranks"] == [4]
    assert said["capabilities"] and all(said["capabilities"])
    assert said["attached is another"] and said["clone"]
    assert said["signatures"] == []


def test_registering_it(answers: Answers, installed: Bindings) -> None:
    said, _ = answers
    assert said["routes"] == ["python", "python"]
    assert said["key"] == ["EdgeRestoreDeformConv", "1", "edge_restore"]
    assert said["registered"] == "python"
    aot, python = said["other"]
    assert python == "python"
    missing = "has no plugins of the route 'aot'" in aot
    assert missing or "already registered by the route 'python'" in aot
    assert missing == (tuple(map(int, installed.version.split(".")[:2])) < (10, 9))


def test_two_combinations_of_types_and_formats(answers: Answers) -> None:
    said, _ = answers
    pixels16, pixels32, vector = "HALF HWC8", "FLOAT HWC", "FLOAT LINEAR"
    assert said["formats"] == [
        [pixels16, pixels16, "HALF LINEAR", vector, vector, pixels16],
        [pixels32, pixels32, "FLOAT LINEAR", vector, vector, pixels32],
    ]


def test_it_launches_the_shipped_kernel(answers: Answers) -> None:
    _, calls = answers
    kernel = kernels.choose((8, 6), "fp16")
    grid = kernel.grid(1, 36, 64, 48)
    launches = [line.split() for line in calls if line.startswith("cuLaunchKernel ")]
    assert len(launches) == 2 and launches[0] == launches[1]
    _, function, blocks, threads, shared, stream, *arguments = launches[0]
    assert int(function, 16) == 0x12000 + len(kernel.ptx)
    assert blocks == ",".join(map(str, grid))
    assert threads == f"{kernel.threads},1,1"
    assert int(shared) == kernel.shared_bytes
    assert stream == "0xabc0"
    assert arguments[:5] == ["0x7000", "0x7100", "0x7200", "0x7300", "0x7400"]
    assert arguments[25:] == ["0x9000"]
    # Sizes; pixel strides (75 offset channels lie 80 apart in HWC8); the layer's options.
    assert [int(n) for n in arguments[5:25]] == [
        36, 64, 48, 36, 64, 48, 48, 80, 48, 48, 5, 5, 1, 1, 2, 2, 1, 1, 1, kernels.MASK_LOGIT,
    ]  # fmt: skip
    assert calls.count("cuModuleLoadDataEx") == 1  # clones share the module
