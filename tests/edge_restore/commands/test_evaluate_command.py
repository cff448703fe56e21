"""`edge-restore evaluate` through the command line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_restore.cli import main
from edge_restore.errors import BackendError
from edge_restore.evaluation.pairs import Pair
from edge_restore.frames import Pixels
from edge_restore.media.images import read_image, write_png
from edge_restore.media.metrics import psnr, ssim
from tests.edge_restore.onnx_models import write_model

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

SIZES = {"b.png": (40, 52), "a.png": (33, 41), "c.png": (33, 41)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def write_pairs(folder: Path, blurred: str = "blurred", sharp: str = "sharp") -> Path:
    random = np.random.default_rng(1)
    for side in (blurred, sharp):
        (folder / side).mkdir(parents=True)
    for name, size in SIZES.items():
        truth = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        write_png(folder / sharp / name, truth)
        write_png(folder / blurred / name, truth // 2 + 60)
    (folder / sharp / "notes.txt").touch()
    return folder


def evaluate(model: Path, *argv: str | Path) -> int:
    return main(["evaluate", *map(str, argv), "--model", str(model), "--threads", "2"])


def refused(capsys: pytest.CaptureFixture[str], model: Path, *argv: str | Path) -> str:
    assert evaluate(model, *argv) == 2
    error = capsys.readouterr().err
    assert "edge-restore: error: " in error and "Traceback" not in error
    return error


def test_numbers_are_those_of_the_saved_images(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, save, table = write_pairs(tmp_path / "pairs"), tmp_path / "out", tmp_path / "x.csv"
    assert evaluate(model, pairs, "--json", "--save", save, "--csv", table) == 0
    document = json.loads(capsys.readouterr().out)
    assert [image["name"] for image in document["images"]] == ["a.png", "b.png", "c.png"]
    for image in document["images"]:
        truth = read_image(pairs / "sharp" / image["name"])
        given = read_image(pairs / "blurred" / image["name"])
        restored = read_image(save / image["name"])
        assert restored.shape == truth.shape
        assert image["psnr"] == pytest.approx(psnr(restored, truth))
        assert image["ssim"] == pytest.approx(ssim(restored, truth))
        assert image["psnr_input"] == pytest.approx(psnr(given, truth))
        assert image["ssim_input"] == pytest.approx(ssim(given, truth))
        assert not np.array_equal(restored, given)
        assert (image["height"], image["width"]) == SIZES[image["name"]]
    psnrs = [image["psnr"] for image in document["images"]]
    assert document["mean"]["psnr"] == pytest.approx(np.mean(psnrs))
    assert document["model"]["name"] == "small"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["psnr"]) for row in rows] == psnrs


@pytest.mark.parametrize(("blurred", "sharp"), [("blur", "gt"), ("input", "target")])
def test_other_layouts_and_table(
    blurred: str, sharp: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, write_pairs(tmp_path / "pairs", blurred, sharp)) == 0
    lines = capsys.readouterr().out.splitlines()
    header = "image   size   PSNR in  PSNR out  gain dB  SSIM in  SSIM out"
    assert lines[0].split() == header.split()
    assert [line.split()[0] for line in lines[1:-1]] == ["a.png", "b.png", "c.png", "mean"]
    assert lines[-1].startswith("below the input: ")


def test_two_files(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_pairs(tmp_path)
    sides = ("--blurred", pairs / "blurred" / "a.png", "--sharp", pairs / "sharp" / "c.png")
    assert evaluate(model, *sides) == 0
    assert "41x33" in capsys.readouterr().out


def test_equal_images_have_no_number_in_json(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sharp = write_pairs(tmp_path) / "sharp"
    assert evaluate(model, "--blurred", sharp, "--sharp", sharp, "--json") == 0
    text = capsys.readouterr().out
    assert "Infinity" not in text
    assert json.loads(text)["images"][0]["psnr_input"] is None


def test_layouts_that_are_none(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not exist" in refused(capsys, model, tmp_path / "missing")
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(capsys, model, tmp_path / "file")
    error = refused(capsys, model, tmp_path)
    assert "none of the folders blurred, blur, input" in error
    pairs = write_pairs(tmp_path / "pairs")
    (pairs / "gt").mkdir()
    assert "more than one of the folders sharp, gt" in refused(capsys, model, pairs)
    for argv in (
        [],
        [pairs, "--blurred", pairs / "blurred"],
        ["--sharp", pairs / "sharp"],
    ):
        assert "either PAIRS, or both" in refused(capsys, model, *argv)
    file, folder = pairs / "sharp" / "a.png", pairs / "blurred"
    assert "the other a folder" in refused(capsys, model, "--blurred", folder, "--sharp", file)


def test_unequal_names(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_pairs(tmp_path)
    (pairs / "sharp" / "b.png").rename(pairs / "sharp" / "d.png")
    error = refused(capsys, model, pairs)
    assert f"b.png (only in {pairs / 'blurred'})" in error
    assert f"d.png (only in {pairs / 'sharp'})" in error


def kinds(table: Path) -> list[str]:
    with table.open() as file:
        return [row["kind"] for row in csv.DictReader(file)]


def test_unequal_sizes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_pairs(tmp_path)
    write_png(pairs / "sharp" / "c.png", np.zeros((33, 42, 3), np.uint8))
    table = tmp_path / "x.csv"
    error = refused(capsys, model, pairs, "--csv", table)
    assert "1 of 3 images were left out" in error
    assert "is 41x33" in error and "is 42x33" in error
    assert kinds(table) == ["image", "image", "left out", "incomplete"]


def test_empty_unreadable_tiny(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path / "a")
    (pairs / "sharp" / "a.png").write_bytes(b"no image")
    assert "cannot be read as an image" in refused(capsys, model, pairs)
    pairs = write_pairs(tmp_path / "b")
    for side in ("blurred", "sharp"):
        write_png(pairs / side / "a.png", np.zeros((10, 20, 3), np.uint8))
    assert "11x11" in refused(capsys, model, pairs)
    for side in ("blurred", "sharp"):
        (tmp_path / "c" / side).mkdir(parents=True)
    assert "there is no image in" in refused(capsys, model, tmp_path / "c")


def test_save_does_not_overwrite_the_given_images(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path)
    before = (pairs / "blurred" / "a.png").read_bytes()
    assert "the pairs' images" in refused(capsys, model, pairs, "--save", pairs / "blurred")
    assert (pairs / "blurred" / "a.png").read_bytes() == before
    error = refused(capsys, model, pairs, "--save", pairs / "sharp" / "a.png")
    assert "is a plain file" in error
    error = refused(capsys, model, pairs, "--csv", tmp_path / "missing" / "x.csv")
    assert "does not exist" in error


def damage(pairs: Path) -> None:
    """Cut b.png off."""
    whole = (pairs / "blurred" / "b.png").read_bytes()
    (pairs / "blurred" / "b.png").write_bytes(whole[: len(whole) * 2 // 3])


def test_scores_are_kept_when_a_picture_is_damaged(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, table, save = write_pairs(tmp_path / "pairs"), tmp_path / "x.csv", tmp_path / "save"
    damage(pairs)
    (pairs / "sharp" / "c.png").write_bytes(b"no image")
    sheet = tmp_path / "s.png"
    options = ("--csv", table, "--save", save, "--sheet", sheet)
    assert evaluate(model, pairs, *options) == 2
    out, error = capsys.readouterr()
    assert out.splitlines()[1].startswith("a.png") and "Traceback" not in error
    assert "incomplete: 1 of 3 images (2 left out)" in out
    assert "2 of 3 images were left out" in error
    assert "blurred/b.png' is cut off" in error and "sharp/c.png' cannot be read" in error
    assert kinds(table) == ["image", "left out", "left out", "incomplete"]
    assert "incomplete: 1 of 3" in table.read_text()
    assert [path.name for path in save.iterdir()] == ["a.png"] and sheet.is_file()
    assert evaluate(model, pairs, "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert [image["name"] for image in document["images"]] == ["a.png"]
    assert document["complete"] is False
    assert [one["name"] for one in document["incomplete"]["left_out"]] == ["b.png", "c.png"]
    assert document["incomplete"]["images"] == 3 and document["incomplete"]["measured"] == 1


def test_no_score_at_all_is_an_error_and_leaves_the_old_table(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, table = write_pairs(tmp_path / "pairs"), tmp_path / "x.csv"
    table.write_text("old")
    for file in (pairs / "blurred").iterdir():
        file.write_bytes(file.read_bytes()[:60])
    assert "3 of 3 images were left out" in refused(capsys, model, pairs, "--csv", table)
    assert table.read_text() == "old"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_keeps_the_scores(
    number: int,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge_restore.evaluation import scoring as evaluation

    pairs, table = write_pairs(tmp_path / "pairs"), tmp_path / "x.csv"
    read = evaluation.read_pair

    def interrupted(pair: Pair) -> tuple[Pixels, list[Pixels]]:
        if pair.name == "b.png":
            os.kill(os.getpid(), number)
        return read(pair)

    monkeypatch.setattr(evaluation, "read_pair", interrupted)
    assert evaluate(model, pairs, "--csv", table, "--json") == 128 + number
    out, error = capsys.readouterr()
    assert "interrupted" in error
    document = json.loads(out)
    assert [image["name"] for image in document["images"]] == ["a.png", "b.png"]
    assert document["incomplete"]["stopped"] == "interrupted"
    assert kinds(table) == ["image", "image", "incomplete"]


@pytest.mark.parametrize("failure", [BackendError, RuntimeError, KeyboardInterrupt])
def test_a_restorer_that_fails_costs_no_score(
    failure: type[BaseException],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge_restore.evaluation import scoring as evaluation

    pairs, table = write_pairs(tmp_path / "pairs"), tmp_path / "x.csv"
    restored, calls = evaluation.restored, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 2:
            if failure is BackendError:
                raise BackendError("the device is gone", expected="a device", hint="plug it in")
            raise failure("the device is gone")
        return restored(*arguments)

    monkeypatch.setattr(evaluation, "restored", failing)
    options = ("--csv", table, "--sheet", tmp_path / "s.png")
    if failure is RuntimeError:
        with pytest.raises(RuntimeError):
            evaluate(model, pairs, *options)
    else:
        assert evaluate(model, pairs, *options) == (2 if failure is BackendError else 130)
    out = capsys.readouterr().out
    assert "incomplete: 2 of 3 images (stopped: " in out
    assert kinds(table) == ["image", "image", "incomplete"]


def test_one_result_that_cannot_be_written_does_not_cost_the_others(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs, save = write_pairs(tmp_path / "pairs"), tmp_path / "save"
    table, sheet = tmp_path / "t" / "x.csv", tmp_path / "s" / "s.png"
    from edge_restore.evaluation import scoring as evaluation

    read = evaluation.read_pair

    def remove_folders(pair: Pair) -> tuple[Pixels, list[Pixels]]:
        for folder in (table.parent, save):
            shutil.rmtree(folder, ignore_errors=True)
            folder.write_text("a file in its place") if not folder.exists() else None
        return read(pair)

    table.parent.mkdir()
    sheet.parent.mkdir()
    monkeypatch.setattr(evaluation, "read_pair", remove_folders)
    assert evaluate(model, pairs, "--csv", table, "--sheet", sheet, "--save", save) == 2
    out, error = capsys.readouterr()
    assert "mean" in out and "incomplete" not in out
    assert sheet.is_file() and f"wrote '{sheet}'" in error and f"wrote '{table}'" not in error
    assert str(table) in error and str(save) in error and "Traceback" not in error


def test_save_refuses_two_pictures_of_one_name(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path)
    for twin in ("a.bmp", "A.PNG"):
        for side in ("blurred", "sharp"):
            shutil.copy(pairs / side / "a.png", pairs / side / twin)
        error = refused(capsys, model, pairs, "--save", tmp_path / "out")
        assert "'a.png'" in error and f"'{twin}'" in error
        assert not (tmp_path / "out").exists()
        for side in ("blurred", "sharp"):
            (pairs / side / twin).unlink()


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.png", b"a\nb.png", b"\x1b[2Jx.png", "\u00e9.png".encode()]
)
def test_any_file_name_is_evaluated_and_shown(
    name: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, table = write_pairs(tmp_path / os.fsdecode(b"heavy\xff")), tmp_path / "x.csv"
    for side in ("blurred", "sharp"):
        (pairs / side / "a.png").rename(pairs / side / os.fsdecode(name))
        (pairs / side / "b.png").unlink()
    (pairs / "sharp" / "c.png").write_bytes(b"")
    options = ("--csv", table, "--sheet", tmp_path / "s.png", "--save", tmp_path / "out")
    assert evaluate(model, tmp_path if b"e" in name else pairs, *options) == 2
    out = capsys.readouterr().out
    assert "\x1b" not in out and kinds(table)[0] == "image"
    assert len(list((tmp_path / "out").rglob("*.png"))) == 1


def test_protocols_by_name(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    error = refused(capsys, model, pairs, "--protocol", "psnr")
    assert "no evaluation protocol 'psnr'" in error and "mimo-unet" in error
    # a camera model rounds in its graph
    assert "--form float" in refused(capsys, model, pairs, "--protocol", "mimo-unet")
    assert evaluate(model, pairs, "--protocol", "realblur", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["protocol"] == "realblur"
    below = [i["name"] for i in document["images"] if i["psnr"] < i["psnr_input"]]
    assert document["below_input"] == {"count": len(below), "names": below}


def test_a_float_model_is_measured_unrounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path, "float", "unrounded")
    pairs, psnrs = write_pairs(tmp_path / "pairs"), []
    for protocol in ("mprnet", "mimo-unet"):
        assert evaluate(model, pairs, "--protocol", protocol, "--json") == 0
        psnrs.append([i["psnr"] for i in json.loads(capsys.readouterr().out)["images"]])
    assert psnrs[0] != psnrs[1]
    assert psnrs[0] == pytest.approx(psnrs[1], abs=0.02)


def test_trajectories(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_pairs(tmp_path)
    truth = read_image(pairs / "sharp" / "a.png")
    (pairs / "sharp" / "a.png").unlink()
    (pairs / "sharp" / "a").mkdir()
    for i, frame in enumerate((truth[::-1], np.roll(truth, 2, 1))):
        write_png(pairs / "sharp" / "a" / f"{i}.png", frame)
    assert evaluate(model, pairs, "--protocol", "koehler") == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("a.png") and "frame 2 of 2, moved by (2, 0)" in line
    assert "a.png (only in" in refused(capsys, model, pairs)
    write_png(pairs / "sharp" / "a" / "2.png", truth[:20])
    assert "is 41x20" in refused(capsys, model, pairs, "--protocol", "koehler")


def test_severities_and_sheet(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "pairs" / "light")
    write_pairs(tmp_path / "pairs" / "odd")
    sheet, save = tmp_path / "sheet.png", tmp_path / "out"
    options = ("--json", "--sheet", sheet, "--save", save)
    assert evaluate(model, tmp_path / "pairs", *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert {k: v["images"] for k, v in document["severities"].items()} == {"light": 3, "odd": 3}
    assert document["images"][0]["name"] == "light/a.png"
    assert (save / "odd" / "c.png").is_file()
    assert read_image(sheet).shape[0] > 500
    error = refused(capsys, model, tmp_path / "pairs", "--sheet", tmp_path / "none" / "s.png")
    assert "does not exist" in error


def test_lpips_weights_are_checked_first(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path)
    weights = tmp_path / "w.safetensors"
    assert "no weights file" in refused(capsys, model, pairs, "--lpips", weights)
    weights.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert "features.0.weight is missing" in refused(capsys, model, pairs, "--lpips", weights)
    error = refused(capsys, model, pairs, "--lpips", weights, "--protocol", "realblur")
    assert "no published definition" in error
