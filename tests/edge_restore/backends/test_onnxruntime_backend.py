"""The ONNX Runtime backend on small real models."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edge_restore import backends
from edge_restore.backends import memory, restorer
from edge_restore.errors import BackendError, CardError, ModelError, OptionError
from edge_restore.frames import Frame, Pixels
from edge_restore.machine import limits
from edge_restore.models import zoo
from edge_restore.models.cards import TensorPort, card_path
from tests.edge_restore.clips import picture
from tests.edge_restore.onnx_models import REACH, write_card, write_model

pytest.importorskip("onnxruntime")


def create(model: Path, budget: int | None = None) -> restorer.Restorer:
    return backends.create("auto", [model], threads=2, memory_budget=budget)


def restore(backend: restorer.Restorer, pixels: Pixels) -> Pixels:
    backend.open(*pixels.shape[:2])
    frame = Frame(pixels, 0, 0, Fraction(1, 30))
    backend.submit(frame)
    restored = backend.collect()
    assert restored is frame
    assert backend.collect() is None
    assert frame.clock.milliseconds("restore") > 0
    backend.close()
    return frame.pixels


def psnr(a: Pixels, b: Pixels) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {form: write_model(folder, form, form) for form in ("camera", "float")}


@pytest.mark.parametrize("form", ["camera", "float"])
@pytest.mark.parametrize("size", [(48, 64), (45, 63), (1, 1), (3, 2), (33, 4)])
def test_any_size_comes_back_restored_in_its_size(
    models: dict[str, Path], form: str, size: tuple[int, int]
) -> None:
    image = picture(0, *size)
    before = image.copy()
    restored = restore(create(models[form]), image)
    assert restored.shape == image.shape
    assert restored.dtype == np.uint8
    assert restored.flags.c_contiguous
    np.testing.assert_array_equal(image, before)  # what was submitted is read, never written


def test_both_forms_of_a_network_agree(models: dict[str, Path]) -> None:
    image = picture(1, 45, 63)
    camera, floating = (restore(create(models[form]), image) for form in ("camera", "float"))
    assert np.abs(camera.astype(int) - floating).max() <= 1  # rounding of halves
    assert psnr(camera, image) < 40, "the network did nothing"


def test_padding_does_not_reach_into_the_picture(models: dict[str, Path]) -> None:
    image = picture(2, 45, 63)
    grown = np.pad(image, ((0, 3), (0, 1), (0, 0)), mode="reflect")
    expected = restore(create(models["camera"]), grown)[:45, :63]
    np.testing.assert_array_equal(restore(create(models["camera"]), image), expected)


def test_frames_handed_out_are_not_written_again(models: dict[str, Path]) -> None:
    backend = create(models["camera"])
    backend.open(48, 64)
    frames = [Frame(picture(i, 48, 64), i, i, Fraction(1, 30)) for i in range(3)]
    backend.submit(frames[0])
    first = backend.collect()
    assert first is frames[0]
    kept = first.pixels.copy()
    for frame in frames[1:]:
        backend.submit(frame)
        backend.collect()
    np.testing.assert_array_equal(first.pixels, kept)


def test_flush_gives_what_was_not_collected(models: dict[str, Path]) -> None:
    backend = create(models["camera"])
    backend.open(48, 64)
    frame = Frame(picture(0, 48, 64), 0, 0, Fraction(1, 30))
    backend.submit(frame)
    assert backend.flush() == [frame]
    assert backend.flush() == []
    backend.close()
    backend.close()


@pytest.fixture
def noisy_picture() -> Pixels:
    rough = np.random.default_rng(5).normal(0, 40, (560, 720, 3))
    return np.clip(picture(0, 560, 720) + rough, 0, 255).astype(np.uint8)


def budget_for(pixels: int) -> int:
    return pixels * memory.ACTIVATION_BYTES_PER_PIXEL


def test_tiles_leave_no_seam(models: dict[str, Path], noisy_picture: Pixels) -> None:
    whole = restore(create(models["camera"], budget_for(560 * 720)), noisy_picture)
    tiled_backend = create(models["camera"], budget_for(340 * 400))
    tiled = restore(tiled_backend, noisy_picture)
    assert psnr(tiled, whole) >= 50
    assert np.abs(tiled.astype(int) - whole).max() <= 12

    # The network sees so far that tiles without overlap would show their seams.
    backend = create(models["camera"], budget_for(560 * 720))
    hard = np.vstack([restore(backend, noisy_picture[top : top + 280]) for top in (0, 280)])
    apart = np.abs(hard.astype(int) - whole).max(axis=(1, 2))
    assert psnr(hard[280 - REACH : 280 + REACH], whole[280 - REACH : 280 + REACH]) < 40
    assert apart[: 280 - REACH].max() <= 1  # summation order alone
    assert apart[280 + REACH :].max() <= 1


def test_an_odd_size_in_tiles(models: dict[str, Path], noisy_picture: Pixels) -> None:
    image = np.ascontiguousarray(noisy_picture[:557, :713])
    whole = restore(create(models["camera"], budget_for(560 * 720)), image)
    tiled = restore(create(models["camera"], budget_for(340 * 400)), image)
    assert tiled.shape == image.shape
    assert psnr(tiled, whole) >= 50


def test_the_default_budget_is_of_the_free_memory() -> None:
    assert 1 << 20 < limits.available_bytes() < 1 << 50
    expected = limits.available_bytes() * memory.BUDGET_FRACTION / memory.ACTIVATION_BYTES_PER_PIXEL
    assert memory.max_area(None) == pytest.approx(expected, rel=0.2)


def test_a_model_that_lacks_an_operator_is_passed_over(
    models: dict[str, Path], tmp_path: Path
) -> None:
    from onnx import load, save

    model = load(models["camera"])
    model.graph.node[3].op_type = "NoSuchOperator"
    unknown = tmp_path / "unknown.onnx"
    save(model, unknown)
    write_card(unknown)
    backend = backends.create("onnxruntime", [unknown, models["camera"]])
    assert restore(backend, picture(0, 48, 64)).shape == (48, 64, 3)
    with pytest.raises(BackendError, match=r"can run none of the models:\n +unknown\.onnx: .*Such"):
        create(unknown)


def test_unknown_backend() -> None:
    with pytest.raises(BackendError, match="no backend 'abacus'") as caught:
        backends.create("abacus", [])
    assert "auto, onnxruntime" in caught.value.expected


def test_available_names_version_and_provider() -> None:
    status = backends.available()[0]
    assert status.available
    assert status.name == "onnxruntime"
    assert "CPUExecutionProvider" in status.detail


def test_foreign_model(models: dict[str, Path], tmp_path: Path) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(models["camera"].read_bytes())
    with pytest.raises(ModelError, match=r"not one of our models: it has no card 'alone\.card"):
        create(alone)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model file"):
        create(tmp_path / "nowhere.onnx")


def corrupt(model: Path) -> None:
    model.write_bytes(b"not a graph at all" * 10)
    write_card(model)


def change_a_byte(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-40] ^= 1
    model.write_bytes(content)


def swap_cards(model: Path) -> None:
    other = write_model(model.parent, "float", "other")
    card_path(model).write_bytes(card_path(other).read_bytes())


def promise_another_input(model: Path) -> None:
    port = TensorPort("picture", "uint8", "NHWC", (1, None, None, 3))
    write_card(model, input=port)


def promise_another_form(model: Path) -> None:
    write_card(model, "float")


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (corrupt, ModelError, "is not an ONNX file"),
        (change_a_byte, CardError, "does not match its card"),
        (swap_cards, ModelError, "is the card of another file"),
        (promise_another_input, ModelError, "takes 'image'\n.*expected: 'picture' alone"),
        (promise_another_form, ModelError, r"takes 'image' of uint8.*\n.*expected: float32"),
    ],
)
def test_models_that_are_not_what_they_say(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], text: str
) -> None:
    model = write_model(tmp_path)
    damage(model)
    with pytest.raises(error, match=text):
        create(model)


def test_a_model_of_one_size_says_so(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    write_card(model, input=TensorPort("image", "uint8", "NHWC", (1, 48, 64, 3)))
    backend = create(model)
    backend.open(47, 63)  # padded, it fits
    with pytest.raises(BackendError, match="takes 64x48 only; the frames, padded, are 128x96"):
        backend.open(96, 128)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"memory_budget": 0}, {"memory_budget": 9999}])
def test_options_that_make_no_sense(models: dict[str, Path], wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError):
        backends.create("auto", [models["camera"]], **wrong).open(720, 1280)


def test_the_shipped_network_in_tiles(noisy_picture: Pixels) -> None:
    found = zoo.find("svdn")
    image = np.ascontiguousarray(noisy_picture[:420, :600])
    whole = restore(backends.create("auto", found, memory_budget=budget_for(420 * 600)), image)
    tiled = restore(backends.create("auto", found, memory_budget=budget_for(420 * 380)), image)
    assert psnr(tiled, whole) >= 50
