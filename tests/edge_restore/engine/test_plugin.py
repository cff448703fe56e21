"""Choosing a plugin's route, and from a node's shapes to a launch.

What TensorRT's own Python code makes of the plugins is in tests/contract.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from edge_restore.engine.gpu import this_gpu
from edge_restore.engine.plugin import kernels
from edge_restore.engine.plugin import registry as plugin
from edge_restore.engine.plugin.deform_conv import ATTRIBUTES, Attributes, plan_launch
from edge_restore.errors import BackendError

NODE = {
    "kernel_h": 5, "kernel_w": 5, "stride": 1, "padding": 2, "dilation": 1, "offset_groups": 1,
}  # fmt: skip


def choose(precision: str, alignment: int) -> kernels.Kernel:
    return kernels.choose((8, 9), precision, alignment)


def shapes(
    channels: int = 48, out: int = 48, height: int = 36, width: int = 64, taps: int = 25
) -> list[tuple[int, ...]]:
    return [
        (1, channels, height, width), (1, 3 * taps, height, width), (taps, channels, out), (out,),
    ]  # fmt: skip


def module(name: str, **members: Any) -> ModuleType:
    """A library that has only these names, as old ones do."""
    made = ModuleType(name)
    vars(made).update({"__version__": "8.6.1", **members})
    return made


def scalars(precision: str, node: dict[str, int], *sizes: tuple[int, ...]) -> dict[str, int]:
    launch = plan_launch(choose, Attributes.of(node), precision, sizes)
    names = kernels.Geometry.__dataclass_fields__
    return dict(zip(names, launch.scalars, strict=True))


def test_pixels_are_padded_in_fp16_alone() -> None:
    half, single = (scalars(precision, NODE, *shapes()) for precision in ("fp16", "fp32"))
    assert (half["image_stride"], half["ow_stride"], half["out_stride"]) == (48, 80, 48)
    assert (single["image_stride"], single["ow_stride"], single["out_stride"]) == (48, 75, 48)
    assert half["mask_mode"] == kernels.MASK_LOGIT


def test_channels_that_fill_no_vector_take_the_general_kernel() -> None:
    sizes = shapes(channels=3, out=5)
    launch = plan_launch(choose, Attributes.of(NODE), "fp16", sizes)
    assert launch.kernel.alignment == 1
    numbers = scalars("fp16", NODE, *sizes)
    assert (numbers["image_stride"], numbers["out_stride"]) == (8, 8)
    assert (numbers["out_channels"], numbers["out_written"]) == (5, 8)  # HWC8's padding is zeroed
    aligned = plan_launch(choose, Attributes.of(NODE), "fp16", shapes())
    assert aligned.kernel.alignment == 8


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_output_has_the_size_that_torch_gives(kernel: int, stride: int, dilation: int) -> None:
    torch = pytest.importorskip("torch", reason="it says what size the output has")
    node = {**NODE, "kernel_h": kernel, "kernel_w": kernel, "stride": stride, "padding": 6,
            "dilation": dilation}  # fmt: skip
    convolve = torch.nn.Conv2d(8, 8, kernel, stride, 6, dilation)
    out_h, out_w = convolve(torch.zeros(1, 8, 21, 19)).shape[2:]
    sizes = [
        (1, 8, 21, 19), (1, 3 * kernel * kernel, out_h, out_w), (kernel * kernel, 8, 8), (8,),
    ]  # fmt: skip
    numbers = scalars("fp32", node, *sizes)
    assert (numbers["out_height"], numbers["out_width"]) == (out_h, out_w)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_that_make_no_sense(name: str) -> None:
    with pytest.raises(BackendError, match=f"its {name} is -1"):
        Attributes.of({**NODE, name: -1})
    with pytest.raises(BackendError, match=f"it has no attribute {name}"):
        Attributes.of({key: value for key, value in NODE.items() if key != name})


@pytest.mark.parametrize(
    ("place", "shape", "complaint"),
    [
        (0, (1, 48, -1, 64), r"its image has the shape \(1, 48, -1, 64\)"),
        (0, (48, 36, 64), "4 fixed dimensions"),
        (1, (1, 50, 36, 64), r"its ow has the shape .*\n.*\(1, 75, 36, 64\)"),
        (1, (1, 75, 35, 64), "its ow has"),
        (2, (25, 48, 47), "its weight has"),
        (3, (), "its bias has the shape"),
    ],
)
def test_shapes_that_do_not_fit(place: int, shape: tuple[int, ...], complaint: str) -> None:
    sizes = shapes()
    sizes[place] = shape
    with pytest.raises(BackendError, match=complaint) as caught:
        plan_launch(choose, Attributes.of(NODE), "fp16", sizes)
    assert "GridSample" in caught.value.hint


def test_a_kernel_with_other_arguments_is_refused() -> None:
    """TensorRT passes inputs, scalars and outputs in no other order."""
    good = kernels.choose((8, 9), "fp16", 8)
    first, *rest = good.arguments
    longer = (*good.arguments[:6], replace(good.arguments[6], type="*fp16"), *good.arguments[7:])
    for arguments in ((*rest, first), good.arguments[:-1], longer):
        bad = replace(good, arguments=tuple(arguments))
        with pytest.raises(BackendError, match=r"takes \(.*\n.*expected: \(image, ow, weight"):
            plan_launch(lambda *_, bad=bad: bad, Attributes.of(NODE), "fp16", shapes())


def test_rtx_takes_no_plugins() -> None:
    rtx = module("tensorrt_rtx", IPluginV3OneBuild=object, IPluginCreatorV3One=object)
    assert plugin.routes(rtx) == ()
    with pytest.raises(BackendError, match=r"tensorrt_rtx 8\.6\.1 takes no plugins") as caught:
        plugin.register(rtx)
    assert "--deformable GridSample" in caught.value.hint


def test_a_library_before_plugin_v3() -> None:
    with pytest.raises(BackendError, match="takes no plugins"):
        plugin.register(module("tensorrt"))


def test_a_route_that_the_library_lacks() -> None:
    old = module("tensorrt", IPluginV3OneBuild=object, IPluginCreatorV3One=object)
    assert plugin.routes(old) == ("python",)
    with pytest.raises(BackendError, match="no plugins of the route 'aot'") as caught:
        plugin.register(old, route="aot")
    assert caught.value.expected == "one of python"


def test_without_a_gpu_no_kernel_can_be_chosen() -> None:
    if this_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match="no GPU is here"):
        plugin._Target().kernel("fp16", 8)
