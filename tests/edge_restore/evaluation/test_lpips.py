"""LPIPS against a second computation, and its weights file against broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_restore.errors import ModelError
from edge_restore.evaluation import lpips
from tests.edge_restore.conftest import DATA


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A safetensors file, written by hand."""
    names = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32", np.dtype(np.int32): "I32"}
    header, data = {}, b""
    for name, tensor in tensors.items():
        places = [len(data), len(data) + tensor.nbytes]
        header[name] = {
            "dtype": names[tensor.dtype], "shape": tensor.shape, "data_offsets": places
        }  # fmt: skip
        data += tensor.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    made = {}
    for name, shape in lpips.shapes().items():
        spread = (2 / np.prod(shape[1:])) ** 0.5 if name.startswith("features") else 1.0
        values = random.standard_normal(shape, np.float32) * spread
        made[name] = (np.abs(values) if "lin" in name else values).astype(np.float16)
    return made


@pytest.fixture(scope="module")
def weights(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    extra = {"other": np.zeros(3, np.int32)}
    return write_tensors(tmp_path_factory.mktemp("lpips") / "w.safetensors", {**tensors, **extra})


def independent(tensors: dict[str, np.ndarray], a: np.ndarray, b: np.ndarray) -> float:
    """LPIPS from its definition: channels first, float64, a sum over the nine taps."""
    layers = [0, 2, "P", 5, 7, "P", 10, 12, 14, "P", 17, 19, 21, "P", 24, 26, 28]
    compared = {2: 0, 7: 1, 14: 2, 21: 3, 28: 4}
    shift = np.array([-0.030, -0.088, -0.188])[:, None, None]
    scale = np.array([0.458, 0.448, 0.450])[:, None, None]
    pair = [((i.transpose(2, 0, 1) / 127.5 - 1) - shift) / scale for i in (a, b)]
    total = 0.0
    for layer in layers:
        for index, x in enumerate(pair):
            channels, height, width = x.shape
            if layer == "P":
                high, wide = height // 2, width // 2
                x = x[:, : 2 * high, : 2 * wide].reshape(channels, high, 2, wide, 2)
                pair[index] = x.max(axis=4).max(axis=2)
                continue
            weight = tensors[f"features.{layer}.weight"].astype(float)
            x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            y = sum(
                np.tensordot(weight[:, :, i, j], x[:, i : i + height, j : j + width], 1)
                for i in range(3)
                for j in range(3)
            )
            bias = tensors[f"features.{layer}.bias"].astype(float)
            pair[index] = np.maximum(y + bias[:, None, None], 0)
        if layer in compared:
            unit = [x / (np.sqrt((x**2).sum(axis=0)) + 1e-10) for x in pair]
            linear = tensors[f"lpips.lin{compared[layer]}.weight"].astype(float).ravel()
            total += np.tensordot(linear, (unit[0] - unit[1]) ** 2, 1).mean()
    return total


def test_agrees_with_an_independent_computation(
    tensors: dict[str, np.ndarray], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 256, (2, 19, 23, 3)).astype(np.uint8)
    c = np.clip(a + random.normal(0, 9, a.shape), 0, 255).astype(np.uint8)
    monkeypatch.setattr(lpips, "_STRIP", 100)  # several strips, the last one shorter
    metric = lpips.Lpips(weights)
    far, near, same = metric.distances(a, [b, c, a])
    assert same == 0
    assert far == pytest.approx(independent(tensors, a, b), rel=1e-4)
    assert near == pytest.approx(independent(tensors, a, c), rel=1e-4)
    assert near < far
    assert metric.distances(a / 255, [b / 255])[0] == pytest.approx(far, rel=1e-5)


def test_what_it_does_not_take(weights: Path) -> None:
    metric = lpips.Lpips(weights)
    a = np.zeros((16, 16, 3), np.uint8)
    for b in (a[:, :15], a[..., 0]):
        with pytest.raises(ValueError, match="16x16"):
            metric.distances(a, [b])
    with pytest.raises(ValueError, match="16x16"):
        metric.distances(a[:15], [a[:15]])


def test_wrong_keys_and_shapes_are_told_at_once(
    tensors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    renamed = {name.replace("lpips.", ""): tensor for name, tensor in tensors.items()}
    renamed["features.0.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ModelError) as caught:
        lpips.Lpips(write_tensors(tmp_path / "w.safetensors", renamed))
    text = str(caught.value)
    assert "features.0.bias is (3,), not (64,)" in text
    assert "lpips.lin0.weight is missing, not (1, 64, 1, 1)" in text
    assert "and 3 more" in text and "lpips.lin0.weight to lpips.lin4.weight" in text


def entry(**changes: object) -> bytes:
    fields = {"dtype": "F32", "shape": [64], "data_offsets": [0, 256], **changes}
    text = json.dumps({"features.0.bias": fields}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(256)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no header"),
        (b"\x80\x02abc" * 9, "is a pickle"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "no header"),
        ((4).to_bytes(8, "little") + b"{]}}", "not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        (entry(dtype="I8"), "do not fit"),
        (entry(dtype=["F32"]), "describes its tensor"),
        (entry(dtype="F32", shape=[1] * 9), "do not fit"),
        (entry(shape=[10**400]), "integer of 401 digits"),
        (entry(shape=[2**62, 2**62]), "do not fit"),
        (entry(dtype="BF16", shape=[128]), "is BF16, not F16, F32 or F64"),
        (entry(data_offsets=[-256, 0]), "describes its tensor|do not fit"),
        (entry(nan=float("nan")), "NaN"),
        (entry()[:-1], "the file has"),
        (entry() + b"1", "the file has"),
        (entry()[:-4] + b"\x00\x00\x80\x7f", "not finite"),
        (entry()[:-4] + b"\x00\x00\xc0\x7f", "not finite"),
        ((1 << 24).to_bytes(8, "little") + b"[" * (1 << 24), "nested deeper|no header"),
        (entry(shape=7), "describes its tensor"),
        (entry(data_offsets=[0]), "describes its tensor"),
        (entry(shape=[65]), "do not fit"),
        (entry(shape=[-8, -8]), "do not fit"),
        (entry(data_offsets=[256, 512]), "leaves a gap"),
    ],
)
def test_a_broken_file_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        lpips.Lpips(tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="there is no weights file"):
        lpips.Lpips(tmp_path / "none.safetensors")


def test_the_published_weights_order_distortions() -> None:
    path = DATA / "weights" / "vgg16_imagenet_fp16.safetensors"
    if not path.is_file():
        pytest.skip(f"LPIPS weights are missing: {path}; set EDGE_RESTORE_DATA to their folder")
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(1).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    a = cv2.resize(noise, (48, 48), interpolation=cv2.INTER_CUBIC)
    blurs = [cv2.GaussianBlur(a, (0, 0), sigma) for sigma in (0.7, 1.5, 3.0)]
    distances = lpips.Lpips(path).distances(a, blurs)
    assert 0 < distances[0] < distances[1] < distances[2] < 1


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["features.0.weight", "features.28.bias", "lpips.lin4.weight"])
def test_weights_that_are_not_finite_are_refused(
    tensors: dict[str, np.ndarray], tmp_path: Path, name: str, number: float
) -> None:
    changed = tensors[name].copy()
    changed.reshape(-1)[-1] = number
    path = write_tensors(tmp_path / "w.safetensors", {**tensors, name: changed})
    with pytest.raises(ModelError, match=f"{name}. holds numbers that are not finite"):
        lpips.Lpips(path)
