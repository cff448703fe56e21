"""Which library, and which GPUs it builds for."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edge_restore.engine import flavour, network, targets
from edge_restore.engine.flavour import Flavour, MissingLibrary
from edge_restore.engine.gpu import Gpu, this_gpu
from edge_restore.errors import BackendError, DependencyError, OptionError

ADA = Gpu("NVIDIA GeForce RTX 4060", (8, 9), "580.65.06")
HOPPER = Gpu("NVIDIA H200", (9, 0), "580.65.06")


@pytest.fixture
def standard() -> Flavour:
    """The standard library does not load here; only what is asked of its names."""
    flag = SimpleNamespace(STRONGLY_TYPED=1)
    trt = SimpleNamespace(NetworkDefinitionCreationFlag=flag, IBuilderConfig=object)
    return Flavour("tensorrt", trt, "11.4.0.106")


def test_rtx_itself(rtx: Flavour) -> None:
    assert rtx.title == "TensorRT-RTX" and rtx.version == rtx.trt.__version__
    assert rtx.network_flags == 1 << int(rtx.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert rtx.chooses_targets
    assert not rtx.has_timing_cache  # it has the calls


def test_a_library_without_strong_types(standard: Flavour) -> None:
    assert standard.network_flags == 2
    standard.trt.NetworkDefinitionCreationFlag = SimpleNamespace()
    assert standard.network_flags == 0


def test_weak_types_are_the_second_try_where_there_are_any(rtx: Flavour) -> None:
    assert network.typings(rtx) == (False,)
    flags = SimpleNamespace(FP16="fp16 flag", INT8="int8 flag")
    strong = SimpleNamespace(STRONGLY_TYPED=1)
    old = SimpleNamespace(NetworkDefinitionCreationFlag=strong, BuilderFlag=flags)
    assert network.typings(Flavour("tensorrt", old, "10.3.0")) == (False, True)
    older = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(), BuilderFlag=flags)
    assert network.typings(Flavour("tensorrt", older, "8.6.1")) == (True,)
    for precision, expected in (("fp32", []), ("fp16", ["fp16 flag"])):
        given: list[str] = []
        network.allow_lower_precision(old, SimpleNamespace(set_flag=given.append), precision)
        assert given == expected
    given = []
    network.allow_lower_precision(old, SimpleNamespace(set_flag=given.append), "int8")
    assert given == ["int8 flag", "fp16 flag"]
    # TensorRT 11 and RTX have no such flags; nothing is set then, and the check refuses FP32.
    network.allow_lower_precision(rtx.trt, SimpleNamespace(set_flag=given.append), "int8")
    assert len(given) == 2


def test_unknown_flavour() -> None:
    with pytest.raises(BackendError, match="there is no flavour 'rtk'") as caught:
        flavour.load("rtk")
    assert caught.value.expected == "one of auto, tensorrt, rtx"


def test_missing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("tensorrt", "rtx", "auto"):
        with pytest.raises(DependencyError) as caught:
            flavour.load(name)
        assert "\n" not in caught.value.hint
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())  # a folder of that name
    with pytest.raises(MissingLibrary, match="has no Builder"):
        flavour.load("tensorrt")


def test_auto_takes_the_standard_library_only_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        library = SimpleNamespace(Builder=object, __version__=module)
        monkeypatch.setitem(sys.modules, module, library)
    monkeypatch.setattr(flavour, "this_gpu", lambda: ADA)
    assert flavour.load("auto").name == "tensorrt"
    monkeypatch.setattr(flavour, "this_gpu", lambda: None)
    assert flavour.load("auto").name == "rtx"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert flavour.load("auto").name == "tensorrt"


@pytest.mark.parametrize(
    ("wanted", "gpu", "expected"),
    [
        ([], None, ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")),
        ([], ADA, ("sm_89",)),
        # RTX does not know it: an engine for all others is the best that can be had
        ([], HOPPER, ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")),
        (["sm_120", "sm_86", "sm_120"], ADA, ("sm_86", "sm_120")),
    ],
)
def test_targets_of_rtx(
    wanted: list[str], gpu: Gpu | None, expected: tuple[str, ...], rtx: Flavour
) -> None:
    assert targets.resolve(rtx, wanted, gpu) == expected


@pytest.mark.parametrize("target", ["sm_90", "SM86", "sm_", "current", "CURRENT", "sm_86 "])
def test_unknown_targets(target: str, rtx: Flavour) -> None:
    with pytest.raises(OptionError, match=f"does not know the target '{target}'") as caught:
        targets.resolve(rtx, ["sm_86", target], None)
    assert "sm_75" in caught.value.expected


def test_the_standard_library_builds_for_the_gpu_that_is_here(standard: Flavour) -> None:
    assert targets.resolve(standard, [], HOPPER) == ("sm_90",)
    assert targets.resolve(standard, ["sm_90"], HOPPER) == ("sm_90",)
    with pytest.raises(OptionError, match="does not know the target 'sm_86'"):
        targets.resolve(standard, ["sm_86"], HOPPER)
    with pytest.raises(BackendError, match="there is none here") as caught:
        targets.resolve(standard, [], None)
    assert "--flavour rtx" in caught.value.hint


def test_the_gpu_of_this_machine() -> None:
    gpu: Any = this_gpu()
    if gpu is None:
        pytest.skip("no NVIDIA GPU here")
    assert gpu.name and gpu.driver
    assert gpu.target == f"sm_{gpu.compute_capability[0]}{gpu.compute_capability[1]}"
