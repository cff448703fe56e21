"""The shipped kernels: found by GPU and layer, and refused when they are not what was shipped."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge_restore.engine.plugin import kernels
from edge_restore.engine.plugin.kernels import (
    MASK_ABSENT,
    MASK_LOGIT,
    Geometry,
    choose,
    grid,
    load_index,
)
from edge_restore.errors import BackendError

SHIPPED = Path(kernels.__file__).with_name("ptx")
SVDN = Geometry(
    height=360, width=640, channels=48, out_height=360, out_width=640, out_channels=48,
    image_stride=48, ow_stride=80, out_stride=48, out_written=48, kernel_h=5, kernel_w=5,
    stride_y=1, stride_x=1, pad_y=2, pad_x=2, dilation_y=1, dilation_x=1, offset_groups=1,
    mask_mode=MASK_LOGIT,
)  # fmt: skip


def test_every_shipped_kernel_is_whole_and_launchable():
    index = load_index()
    architectures = {"sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110", "sm_120"}
    for precision in kernels.PRECISIONS:
        found = {k.arch for k in index.kernels if k.precision == precision and k.alignment > 1}
        assert found == architectures
    for kernel in index.kernels:
        assert f".entry {kernel.entry}(".encode() in kernel.ptx
        names = [argument.name for argument in kernel.arguments]
        scalars = list(Geometry.__dataclass_fields__)
        assert names == ["image", "ow", "weight", "bias", "slope", *scalars, "out"]
        types = {argument.name: argument.type for argument in kernel.arguments}
        pointer = f"*{kernel.precision}"
        assert [types[n] for n in ("image", "ow", "weight", "out")] == [pointer] * 4
        assert types["bias"] == types["slope"] == "*fp32"
        assert {types[name] for name in scalars} == {"i32"}
        assert kernel.threads <= 1024 and kernel.shared_bytes <= 48 << 10


@pytest.mark.parametrize(
    ("capability", "precision", "arch"),
    [
        ((8, 0), "fp16", "sm_80"),
        ((8, 6), "fp16", "sm_86"),
        ((8, 7), "fp32", "sm_87"),
        ((8, 8), "fp16", "sm_87"),  # not newer, same generation
        ((8, 9), "fp16", "sm_89"),
        ((9, 0), "fp16", "sm_90"),
        ((10, 0), "fp16", "sm_100"),
        ((10, 3), "fp16", "sm_80"),  # sm_100's halves are for that very architecture
        ((10, 3), "fp32", "sm_100"),
        ((11, 0), "fp16", "sm_110"),
        ((12, 0), "fp16", "sm_120"),
        ((12, 1), "fp16", "sm_120"),
        ((13, 0), "fp16", "sm_80"),  # unknown generation
        ((99, 9), "fp32", "sm_80"),
    ],
)
def test_the_kernel_for_a_gpu(capability, precision, arch):
    kernel = choose(capability, precision)
    assert (kernel.arch, kernel.precision) == (arch, precision)
    assert kernel.alignment > 1
    general = choose(capability, precision, alignment=1)
    assert (general.arch, general.alignment, general.precision) == ("sm_80", 1, precision)


def test_a_gpu_before_ampere_is_told_what_to_do():
    with pytest.raises(BackendError, match="sm_75, too old") as refusal:
        choose((7, 5), "fp16")
    assert "--deformable GridSample" in refusal.value.hint


def test_a_precision_without_a_kernel():
    with pytest.raises(BackendError, match="precision 'int8'"):
        choose((8, 6), "int8")


def test_the_grid():
    assert grid(1, 360, 640, 48, 8, 16, 64) == (45 * 40, 1, 1)
    assert grid(3, 361, 641, 65, 8, 16, 64) == (46 * 41, 2, 3)
    assert grid(1, 1, 1, 1, 8, 16, 64) == (1, 1, 1)
    kernel = choose((9, 0), "fp16")
    assert kernel.grid(2, 9, 17, 65) == (
        -(-9 // kernel.tile_height) * -(-17 // kernel.tile_width), -(-65 // kernel.block_out), 2,
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(0, 8, 8, 8), (65536, 8, 8, 8), (1, 0, 8, 8)])
def test_a_grid_that_cuda_does_not_take(sizes):
    with pytest.raises(BackendError, match="need"):
        grid(*sizes, 8, 16, 64)


def test_scalars_are_the_fields_in_order():
    assert SVDN.scalars() == (
        360, 640, 48, 360, 640, 48, 48, 80, 48, 48, 5, 5, 1, 1, 2, 2, 1, 1, 1, 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "height 0"),
        ({"stride_x": -1}, "stride_x -1"),
        ({"mask_mode": 3}, "mask_mode 3"),
        ({"offset_groups": 5}, "48 channels in 5 offset groups"),
        ({"ow_stride": 74}, "74 offset channels where 75 are read"),
        ({"image_stride": 40}, "image_stride 40 for 48 channels"),
        ({"out_written": 40}, "40 channels written of 48"),
        ({"out_written": 56}, "56 channels written"),
        ({"pad_y": 1 << 23}, "8388608 pixels"),
        ({"height": 1 << 17, "width": 1 << 17}, r"more than 2\*\*31"),
        ({"image_stride": 1 << 24, "width": 1024}, r"more than 2\*\*31"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(BackendError, match=message):
        replace(SVDN, **change).scalars()


def test_8k_frames_and_absent_masks_fit():
    replace(SVDN, height=4320, width=7680, out_height=4320, out_width=7680).scalars()
    replace(SVDN, ow_stride=50, mask_mode=MASK_ABSENT).scalars()


@pytest.mark.parametrize(
    ("change", "halves", "floats"),
    [
        ({}, 8, 4),
        ({"ow_stride": 75}, 8, 4),  # offsets are read one by one anyway
        ({"channels": 44}, 1, 4),
        ({"image_stride": 50}, 1, 1),
        ({"out_channels": 47}, 1, 1),
        ({"out_stride": 52}, 1, 4),
        ({"offset_groups": 4, "ow_stride": 300}, 1, 4),  # 12 channels a group
        ({"offset_groups": 6, "ow_stride": 450}, 8, 4),
    ],
)
def test_vector_loads_need_multiples(change, halves, floats):
    geometry = replace(SVDN, **change)
    assert (geometry.alignment("fp16"), geometry.alignment("fp32")) == (halves, floats)


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped folder, and its index as a document."""
    folder = tmp_path / "ptx"
    shutil.copytree(SHIPPED, folder)
    return folder, json.loads((folder / "index.json").read_text())


def test_a_changed_file_is_refused(copy):
    folder, document = copy
    name = document["kernels"][0]["file"]
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("mma.sync", "mma.sink"))
    kernel = choose((8, 0), "fp16", index=load_index(folder))
    with pytest.raises(BackendError, match=f"{name}' does not match its index"):
        _ = kernel.ptx
    (folder / name).unlink()
    with pytest.raises(BackendError, match=f"{name}' cannot be read as the kernel: No such file"):
        _ = kernel.ptx


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("file", "../../etc/passwd", "plain file name"),
        ("sha256", "0", "SHA-256"),
        ("arch", "gfx90a", '"sm_" and a number'),
        ("arch", "sm_", '"sm_" and a number'),
        ("target", "sm_99", "target"),
        ("precision", "bf16", "precision"),
        ("warps", 0, "warps"),
        ("warps", True, "warps"),
        ("block_pixels", 7, "block_pixels"),
        ("alignment", "8", "alignment"),
        ("arguments", [{"name": "image", "type": "*fp64"}], "type"),
        ("arguments", None, "arguments"),
    ],
)
def test_a_malformed_index_is_refused(field, value, message, copy):
    folder, document = copy
    document["kernels"][0][field] = value
    (folder / "index.json").write_text(json.dumps(document))
    with pytest.raises(BackendError, match=message):
        load_index(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"schema": "other/1"}', "\xff"])
def test_a_broken_index_is_refused(text, tmp_path):
    (tmp_path / "index.json").write_text(text, encoding="latin-1")
    with pytest.raises(BackendError, match=r"index\.json' cannot be"):
        load_index(tmp_path)


def test_an_absent_index_is_refused(tmp_path):
    with pytest.raises(BackendError, match="install edge-restore again"):
        load_index(tmp_path)


def test_an_index_without_the_kernel(copy):
    folder, document = copy
    document["kernels"] = [k for k in document["kernels"] if k["arch"] == "sm_90"]
    (folder / "index.json").write_text(json.dumps(document))
    assert choose((9, 0), "fp16", index=load_index(folder)).arch == "sm_90"
    with pytest.raises(BackendError, match="holds no fp16 kernel that sm_86 could run"):
        choose((8, 6), "fp16", index=load_index(folder))
