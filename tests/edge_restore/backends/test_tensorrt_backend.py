"""The TensorRT backend as far as a machine without a GPU can show it.

tests/gpu/test_tensorrt_backend.py has the rest; tests/contract checks the names of TensorRT that it
uses, and test_frame_ring.py the order of frames.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_restore import backends
from edge_restore.backends import cuda, tensorrt
from edge_restore.backends.onnxruntime import OnnxRuntimeRestorer
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import this_gpu
from edge_restore.errors import BackendError, DependencyError, OptionError
from edge_restore.models import zoo
from edge_restore.models.cards import ModelCard, card_path, verify
from tests.edge_restore.engine import cuda_stand_in
from tests.edge_restore.onnx_models import write_card, write_model

STANDARD = Flavour("tensorrt", None, "11.4.0.106")
RTX = Flavour("rtx", None, "1.7.1.116")


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture
def without_gpu() -> None:
    if this_gpu() is not None:
        pytest.skip("this machine has a GPU")


def test_the_names() -> None:
    assert backends.NAMES[-2:] == ("tensorrt", "tensorrt-rtx")
    assert set(tensorrt.FLAVOURS) == {"tensorrt", "tensorrt-rtx"}


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("tensorrt", "tensorrt", "gpu"), ("tensorrt-rtx", "tensorrt_rtx", "rtx")],
)
def test_a_library_that_is_not_installed(name: str, module: str, extra: str) -> None:
    if installed(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(DependencyError, match="cannot be used here: not installed") as caught:
        backends.create(name, zoo.find("svdn"))
    assert f"pip install 'edge-restore[{extra}]'" in caught.value.hint


def test_pycuda_is_not_installed() -> None:
    if installed("pycuda"):
        pytest.skip("PyCUDA is installed")
    with pytest.raises(DependencyError, match="'pycuda' is not installed") as caught:
        cuda.require(graphs=False)
    assert caught.value.hint == "pip install pycuda"


def test_auto_takes_the_cpu_where_there_is_no_gpu(without_gpu: None, tmp_path: Path) -> None:
    restorer = backends.create("auto", [write_model(tmp_path)])
    assert isinstance(restorer, OnnxRuntimeRestorer)


def test_every_backend_has_a_status(without_gpu: None) -> None:
    statuses = {status.name: status for status in backends.available()}
    assert list(statuses) == list(backends.NAMES[1:])
    for name in tensorrt.FLAVOURS:
        assert not statuses[name].available
        assert statuses[name].detail and statuses[name].hint


def test_frames_in_flight() -> None:
    for wrong in (0, 9):
        with pytest.raises(OptionError, match=f"{wrong} frames in flight"):
            tensorrt.TensorRTRestorer([], in_flight=wrong)


@pytest.mark.parametrize(
    ("found", "word"), [((721, 1280), "larger"), ((720, 1281), "larger"), ((720, 640), "smaller")]
)
def test_a_frame_of_another_size(found: tuple[int, int], word: str) -> None:
    tensorrt.check_size((720, 1280), (720, 1280))
    with pytest.raises(BackendError, match=f"{word} than the engine was opened for") as caught:
        tensorrt.check_size(found, (720, 1280))
    assert caught.value.expected == "frames of 1280x720 pixels"


# Which model


def card_of(path: Path) -> ModelCard:
    card = verify(card_path(path))
    assert isinstance(card, ModelCard)
    return card


def test_the_best_variant_of_a_zoo_model_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    variants = {
        "net": ("DeformConv", "fp32"),
        "net-gridsample": ("GridSample", "fp32"),
        "net-gridsample-fp16": ("GridSample", "fp16"),
        "net-plugin": ("plugin", "fp32"),
        "net-plugin-fp16": ("plugin", "fp16"),
    }
    for name, (deformable, precision) in variants.items():
        path = write_model(tmp_path, name=name)
        write_card(path, deformable=deformable, precision=precision)

    def best(library: Flavour) -> str:
        return tensorrt.choose_model(zoo.find("net"), library)[0].stem

    def forget(name: str) -> None:
        (tmp_path / f"{name}.onnx").unlink()

    assert best(STANDARD) == "net-plugin-fp16"
    assert best(RTX) == "net-gridsample-fp16"
    forget("net-plugin-fp16")
    assert best(STANDARD) == "net-gridsample-fp16"
    forget("net-gridsample-fp16")
    assert best(STANDARD) == "net-plugin"
    assert best(RTX) == "net-gridsample"
    forget("net-plugin")
    forget("net-gridsample")
    assert best(STANDARD) == "net"  # the library's own plugin, in FP32
    with pytest.raises(BackendError, match="TensorRT-RTX can run none of the models") as caught:
        best(RTX)
    assert "net.onnx: TensorRT-RTX has no deformable convolution" in caught.value.found
    assert "--deformable GridSample" in caught.value.hint


def test_why_a_model_does_not_fit(tmp_path: Path) -> None:
    camera = card_of(write_model(tmp_path))
    for library in (STANDARD, RTX):
        assert tensorrt.unfit(camera, library) == ""
        floating = card_of(write_model(tmp_path, "float", "floating"))
        assert "float32 pictures" in tensorrt.unfit(floating, library)
    standard = replace(camera, deformable="DeformConv", precision="fp16")
    assert "rounds coordinates" in tensorrt.unfit(standard, STANDARD)
    island = replace(standard, fp32_islands=("/groups.0/DeformConv",))
    assert tensorrt.unfit(island, STANDARD) == ""
    plugged = replace(camera, deformable="plugin", precision="fp16")
    assert tensorrt.unfit(plugged, STANDARD) == ""
    assert "takes no plugins" in tensorrt.unfit(plugged, RTX)


# Graphs and errors

GRAPH = """
import json, sys
from edge_restore.backends.cuda import CapturedGraph
from edge_restore.errors import BackendError
told = []
def work():
    told.append("work")
    if "fail" in sys.argv:
        raise OSError("the engine cannot be enqueued")
try:
    graph = CapturedGraph(0xABC0, work)
    graph.launch()
    graph.launch()
    graph.close()
    graph.close()
except (BackendError, OSError) as error:
    told.append(str(error))
print(json.dumps(told))
"""


def capture(folder: Path, fail: str = "", *arguments: str) -> tuple[list[str], list[str]]:
    """Capture and launch a graph through cuda-bindings; what was told, and the driver's calls."""
    if not installed("cuda.bindings"):
        pytest.skip("cuda-bindings is not installed")
    stand_in = cuda_stand_in.compile_stand_in(folder)
    if stand_in is None:
        pytest.skip("gcc is missing: it compiles the stand-in for the CUDA driver")
    log = folder / "log"
    result = subprocess.run(
        [sys.executable, "-c", GRAPH, *arguments],
        env=cuda_stand_in.environment(stand_in, log, fail=fail),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), log.read_text().splitlines()


def test_a_graph_is_captured_once_and_freed(tmp_path: Path) -> None:
    told, calls = capture(tmp_path)
    assert told == ["work"]
    steps = [call for call in calls if not call.endswith(("0xabc0", "0xabc0 1"))]
    assert steps == [
        "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy",
        "cuGraphLaunch", "cuGraphLaunch", "cuGraphExecDestroy",
    ]  # fmt: skip
    assert "cuStreamBeginCapture 0xabc0 1" in calls  # 1: other threads may use CUDA meanwhile
    assert calls.count("cuGraphLaunch 0x4000 0xabc0") == 2


def test_a_capture_that_fails_leaves_the_stream_usable(tmp_path: Path) -> None:
    told, calls = capture(tmp_path, "", "fail")
    assert told == ["work", "the engine cannot be enqueued"]
    assert calls[-1] == "cuStreamEndCapture"


@pytest.mark.parametrize(
    ("function", "doing", "freed"),
    [
        ("cuStreamBeginCapture", "begin to capture", []),
        ("cuStreamEndCapture", "capture the engine", []),
        ("cuGraphInstantiate", "make a graph", ["cuGraphDestroy"]),
        ("cuGraphLaunch", "launch a graph", ["cuGraphDestroy"]),
    ],
)
def test_a_graph_call_that_fails(
    tmp_path: Path, function: str, doing: str, freed: list[str]
) -> None:
    told, calls = capture(tmp_path, function)
    assert f"CUDA cannot {doing}: a PTX JIT compilation failed (CUDA_ERROR_INVALID_PTX)" in told[-1]
    assert "--backend onnxruntime" in told[-1]
    assert [call for call in calls if call == "cuGraphDestroy"] == freed


def test_too_little_memory_has_its_own_advice() -> None:
    error = cuda.failure("allocate memory", "cuMemAlloc failed: out of memory")
    assert "end other programs that use the GPU" in error.hint
    assert "dmesg" in cuda.failure("restore a frame", "cuEventSynchronize failed: xid").hint


def test_the_rtx_library_refuses_an_engine_where_there_is_no_gpu(
    without_gpu: None, tmp_path: Path
) -> None:
    """The real library, as far as it goes here: up to loading the engine."""
    if not installed("tensorrt_rtx"):
        pytest.skip("TensorRT-RTX is not installed")
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(write_model(tmp_path)), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "TensorRT-RTX 1." in result.stdout
    assert "cannot load the engine" in result.stdout
    assert "or run on the CPU with --backend onnxruntime" in result.stdout


LOAD = """
import sys
from pathlib import Path
from edge_restore.backends.tensorrt_session import Session, runtime_cache_path
from edge_restore.engine import builder, flavour, manifest, plan
from edge_restore.engine.cache import EngineCache
from edge_restore.errors import BackendError
library = flavour.load("rtx")
planned = plan.make_plan(sys.argv[1], library, precision="fp32", size=(48, 64), gpu=None)
engine, _ = builder.obtain(planned, EngineCache(Path(sys.argv[2]) / "cache"), command="a test")
try:
    Session(library, manifest.load_checked(engine), runtime_cache_path(engine))
except BackendError as error:
    print(error)
"""
