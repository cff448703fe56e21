"""The ahead-of-time plugin, taken through a build by TensorRT's own Python code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_restore.engine.plugin import kernels
from tests.contract.bindings import Bindings

CHILD = "tests.contract.quick_plugin_child"
OLD = 10, 9


def build(installed: Bindings, stand_ins: Path, **case: Any) -> Any:
    if tuple(map(int, installed.version.split(".")[:2])) < OLD:
        pytest.skip(f"TensorRT {installed.version} has no ahead-of-time plugins")
    return installed.run(stand_ins, CHILD, {"gpu": [8, 6], "type": "HALF", **case})


def test_the_route_is_found_and_registering_twice_is_harmless(
    installed: Bindings, stand_ins: Path
) -> None:
    said = build(installed, stand_ins)
    assert said["before"] == [["aot", "python"], None]
    assert said["routes"] == ["aot", "aot"]
    assert said["after"] == "aot"
    assert said["creators"] == [["EdgeRestoreDeformConv", "1", "edge_restore"]]
    assert said["creator fields"] == [
        "kernel_h", "kernel_w", "stride", "padding", "dilation", "offset_groups",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "precision", "ow_stride", "layout"),
    [("HALF", "fp16", 80, "HWC8"), ("FLOAT", "fp32", 75, "HWC")],
)
def test_what_goes_into_the_engine(
    installed: Bindings, stand_ins: Path, type_: str, precision: str, ow_stride: int, layout: str
) -> None:
    said = build(installed, stand_ins, type=type_)
    kernel = kernels.choose((8, 6), precision)
    assert said["kernel"] == [kernel.entry, kernel.ptx.decode()]
    assert said["output types"] == [type_]
    assert said["output"] == [[1, 48, 36, 64]]
    pixels, vector = f"{type_} {layout}", "FLOAT LINEAR"
    assert said["formats"] == [pixels, pixels, f"{type_} LINEAR", vector, vector, pixels]
    assert said["tactics"] == []
    x, y, z = kernel.grid(1, 36, 64, 48)
    assert said["launch"] == {
        "grid_x": x, "grid_y": y, "grid_z": z,
        "block_x": kernel.threads, "block_y": 1, "block_z": 1,
        "shared_mem": kernel.shared_bytes,
    }  # fmt: skip
    assert said["scalar types"] == ["INT32"]
    names = [argument.name for argument in kernel.arguments[5:-1]]
    scalars = dict(zip(names, said["scalars"], strict=True))
    assert (scalars["height"], scalars["width"], scalars["channels"]) == (36, 64, 48)
    assert (scalars["out_height"], scalars["out_width"]) == (36, 64)
    assert scalars["ow_stride"] == ow_stride
    assert scalars["mask_mode"] == kernels.MASK_LOGIT
    assert (scalars["kernel_h"], scalars["pad_y"], scalars["stride_x"]) == (5, 2, 1)


def test_options_of_the_node_reach_the_kernel(installed: Bindings, stand_ins: Path) -> None:
    said = build(
        installed,
        stand_ins,
        node={"kernel_h": 3, "kernel_w": 1, "stride": 2, "padding": 3, "dilation": 4,
              "offset_groups": 2},
        shapes={"image": (2, 16, 21, 19), "ow": (2, 18, 10, 13), "weight": (3, 16, 24),
                "bias": (24,), "slope": (24,), "out": (2, 24, 10, 13)},
    )  # fmt: skip
    assert said["output"] == [[2, 24, 10, 13]]
    assert said["scalars"] == [
        21, 19, 16, 10, 13, 24, 16, 24, 24, 24, 3, 1, 2, 2, 3, 3, 4, 4, 2, kernels.MASK_LOGIT,
    ]  # fmt: skip
    assert said["launch"]["grid_z"] == 2


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ({"shapes": {"image": (1, 48, -1, 64)}}, "its image has the shape (1, 48, -1, 64)"),
        ({"shapes": {"ow": (1, 50, 36, 64)}}, "its ow has the shape (1, 50, 36, 64)"),
        ({"shapes": {"weight": (25, 40, 48)}}, "its weight has the shape (25, 40, 48)"),
        ({"node": {"stride": 0}}, "its stride is 0"),
        ({"type": "INT8"}, "an image of type"),
        ({"gpu": [7, 5]}, "this GPU is sm_75, too old"),
    ],
)
def test_nodes_that_cannot_be(
    installed: Bindings, stand_ins: Path, case: dict[str, Any], complaint: str
) -> None:
    assert complaint in build(installed, stand_ins, **case)["error"]
