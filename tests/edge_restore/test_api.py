"""The Python API: its names, and that it does what the commands do."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge_restore as er
from edge_restore.cli import main

pytest.importorskip("av")
pytest.importorskip("onnxruntime")

from tests.edge_restore.clips import write_clip
from tests.edge_restore.onnx_models import write_model

ROOT = Path(er.__file__).parents[1]
GENERATOR = Path(__file__).parents[2] / "docs" / "generate_api.py"


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(er.__all__) == er.__all__
    assert set(er.__all__) <= set(dir(er))
    for name in er.__all__:
        value = getattr(er, name)
        if name != "__version__":
            assert inspect.getdoc(value), name
    for name in ("open", "frames", "run", "evaluate", "build_engine", "models"):
        text = inspect.getdoc(getattr(er, name)) or ""
        assert text.count(">>> ") >= 1, name
        assert "Raises:" in text, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        er.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_functions_are_not_hidden_by_modules_of_their_name() -> None:
    import edge_restore.frames
    import edge_restore.models.zoo  # noqa: F401

    assert inspect.isfunction(er.frames)
    assert inspect.isfunction(er.models)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, edge_restore; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert not {"numpy", "cv2", "onnxruntime", "av"} & set(result.stdout.split())
    assert "edge_restore.api" not in result.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", gaps=(3000,) * 6)


def test_open_restores_images_of_any_size(model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with er.open(model, backend="onnxruntime", threads=1) as restorer:
        assert (restorer.name, restorer.precision) == ("onnxruntime-cpu", "fp32")
        restored = restorer(image)
        assert (restored.shape, restored.dtype) == (image.shape, np.uint8)
        assert np.array_equal(restorer(image[:, ::-1])[:, ::-1].shape, image.shape)
        turned = restorer(np.ascontiguousarray(image.transpose(1, 0, 2)))
        assert turned.shape == (64, 48, 3)
        assert np.array_equal(restorer(image), restored)
    with er.open(model, backend="onnxruntime", size=(48, 64), threads=1) as restorer:
        assert np.array_equal(restorer(image), restored)
    restorer.close()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((48, 64, 3), np.float32),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((3, 48, 64), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        [[1, 2, 3]],
        None,
    ],
)
def test_what_is_no_image_is_named(image: object, model: Path) -> None:
    restorer = er.open(model, backend="onnxruntime", threads=1)
    with restorer, pytest.raises(er.UserError, match=r"uint8, \(height, width, 3\), RGB"):
        restorer(image)  # type: ignore[arg-type]


def test_frames_of_a_video(clip: Path) -> None:
    found = list(er.frames(clip))
    assert [frame.index for frame in found] == list(range(6))
    assert all(frame.pixels.dtype == np.uint8 for frame in found)
    assert len(list(er.frames(clip, max_frames=2))) == 2
    with pytest.raises(er.UserError, match="there is no file"):
        next(er.frames("nowhere.mp4"))


def test_run_writes_what_the_command_writes(
    clip: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    report = er.run(
        clip, tmp_path / "api.mp4", model=model, backend="onnxruntime", threads=1,
        on_frame=lambda frame: seen.append(frame.index),
    )  # fmt: skip
    assert (report.frames_in, report.frames_out, seen) == (6, 6, list(range(6)))
    assert report.stages["total"].count == 6
    words = ["run", str(clip), "--out", str(tmp_path / "command.mp4"), "--model", str(model)]
    assert main([*words, "--backend", "onnxruntime", "--threads", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames_out"] == 6
    assert (tmp_path / "api.mp4").read_bytes() == (tmp_path / "command.mp4").read_bytes()


def test_run_never_writes_over_its_source(clip: Path, model: Path) -> None:
    before = clip.read_bytes()
    with pytest.raises(er.UserError, match="SOURCE"):
        er.run(clip, clip, model=model)
    assert clip.read_bytes() == before


def test_evaluate_scores_as_the_command_does(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_restore.media.images import write_png

    random = np.random.default_rng(0)
    for side in ("blurred", "sharp"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            pixels = random.integers(0, 256, (48, 64, 3), np.uint8)
            write_png(tmp_path / "pairs" / side / name, pixels)
    seen = []
    scores = er.evaluate(
        tmp_path / "pairs", model=model, backend="onnxruntime", on_image=seen.append
    )
    assert seen == scores
    words = ["evaluate", str(tmp_path / "pairs"), "--model", str(model), "--backend"]
    assert main([*words, "onnxruntime", "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert [image["psnr"] for image in images] == [score.psnr for score in scores]


def test_models_are_those_of_the_zoo() -> None:
    found = {model.name: model for model in er.models()}
    assert {"svdn", "lmfn"} <= found.keys()
    assert found["lmfn"].file.is_file()
    assert found["lmfn"].card.parameters == 1_238_692


def test_build_engine_says_what_is_missing() -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed; see tests/gpu")
    with pytest.raises(er.UserError, match="TensorRT"):
        er.build_engine("lmfn", size=(64, 64), variant="tensorrt")


def test_build_engine_builds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = {"size": (64, 64), "variant": "rtx", "targets": ["sm_86"]}
    engine = er.build_engine("lmfn", **options)  # type: ignore[arg-type]
    assert engine.is_relative_to(tmp_path)
    assert engine.with_suffix(".manifest.json").is_file()
    content = engine.read_bytes()
    assert er.build_engine("lmfn", **options) == engine  # type: ignore[arg-type]
    assert engine.read_bytes() == content


def test_the_page_is_that_of_the_docstrings() -> None:
    if not GENERATOR.is_file():
        pytest.skip("the wheel's tests run without docs/")
    spec = importlib.util.spec_from_file_location("generate_api", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run: python docs/generate_api.py"
