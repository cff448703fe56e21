"""What an engine with our plugin depends on, planned without the library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import Gpu
from edge_restore.engine.plan import Plan, make_plan
from edge_restore.engine.plugin import kernels

ADA = Gpu("NVIDIA GeForce RTX 4060", (8, 9), "580.65.06")


def planned(precision: str, gpu: Gpu = ADA) -> Plan:
    trt = SimpleNamespace(IBuilderConfig=object)
    standard = Flavour("tensorrt", trt, "11.4.0.106")
    return make_plan("svdn", standard, precision=precision, size=(720, 1280), gpu=gpu)


@pytest.mark.parametrize(
    ("precision", "file", "matters"),
    [
        ("fp16", "deform_conv_sm_89_fp16.ptx", True),
        ("fp16", "deform_conv_sm_80_fp16_general.ptx", True),  # for odd channel counts
        ("fp16", "deform_conv_sm_89_fp32.ptx", False),
        ("fp16", "deform_conv_sm_80_fp32_general.ptx", False),
        ("fp16", "deform_conv_sm_87_fp16.ptx", False),
        ("fp32", "deform_conv_sm_89_fp32.ptx", True),
        ("fp32", "deform_conv_sm_80_fp32_general.ptx", True),
        ("fp32", "deform_conv_sm_80_fp16_general.ptx", False),
        # around the INT8 convolutions the shipped graph is FP16
        ("int8", "deform_conv_sm_89_fp16.ptx", True),
        ("int8", "deform_conv_sm_89_fp32.ptx", False),
    ],
)
def test_every_kernel_that_may_be_in_an_engine_is_in_its_key(
    precision: str, file: str, matters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(precision)
    assert before.card.deformable == "plugin" and before.model.stem.startswith("svdn-plugin")
    folder = tmp_path / "ptx"
    shutil.copytree(kernels._FOLDER, folder)
    monkeypatch.setattr(kernels, "_FOLDER", folder)
    assert planned(precision).key == before.key
    document = json.loads((folder / "index.json").read_text())
    (entry,) = [kernel for kernel in document["kernels"] if kernel["file"] == file]
    entry["sha256"] = "0" * 64
    (folder / "index.json").write_text(json.dumps(document))
    kernels._read_index.cache_clear()
    after = planned(precision)
    kernels._read_index.cache_clear()
    assert (after.kernel_sha256 != before.kernel_sha256) == matters
    assert (after.key != before.key) == matters


def test_a_newer_generation_falls_back_to_the_oldest_kernel() -> None:
    unknown = planned("fp16", Gpu("of the future", (13, 0), "700.1"))
    ampere = planned("fp16", Gpu("NVIDIA A100", (8, 0), "550.54"))
    assert unknown.kernel_sha256 == ampere.kernel_sha256 != planned("fp16").kernel_sha256
    assert unknown.key != ampere.key  # it is another GPU all the same
