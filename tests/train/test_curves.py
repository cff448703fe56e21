"""Curves from a run's log."""

import math
from pathlib import Path

import numpy as np
import pytest

import train
from edge_restore.errors import DataError
from edge_restore.media.images import read_image
from edge_restore.models import cards
from edge_restore.report import drawing
from train import curves
from train.__main__ import main

LOG = """\
some other line
step       0      0.1 min  loss nan  rate 1.00e-05  PSNR 20.000 dB (+0.500)  SSIM 0.5000
step     100      1.0 min  loss 0.50000  rate 1.00e-03  PSNR 21.000 dB (+1.500)  SSIM 0.6000
step     200      2.0 min  loss -0.25000  rate 5.00e-04  PSNR 23.000 dB (+3.500)  SSIM 0.8000
step     200      2.1 min  loss nan  rate 5.00e-04  PSNR 23.000 dB (+3.500)  SSIM 0.8000
step     300      3.0 min  loss -0.50000  rate 1.00e-04  PSNR 22.000 dB (+2.500)  SSIM 0.7000
"""


def test_a_log_is_read(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(LOG)
    log = curves.read(path)
    assert log.name == "mine"
    assert log.steps == [0, 100, 200, 300]
    assert math.isnan(log.loss[0]) and log.loss[1:] == [0.5, -0.25, -0.5]
    assert log.psnr == [20, 21, 23, 22]
    assert log.ssim == [0.5, 0.6, 0.8, 0.7]
    assert log.rate == [1e-5, 1e-3, 5e-4, 1e-4]
    assert log.psnr_input == 19.5
    (tmp_path / "run7").mkdir()
    (tmp_path / "run7" / "log.txt").write_text(LOG)
    assert curves.read(tmp_path / "run7" / "log.txt").name == "run7"


@pytest.mark.parametrize("number", ["1.2.3", "9" * 5000, "1e99999", "...", "-", "0.5e"])
def test_a_line_whose_number_is_none_is_passed_over_aloud(tmp_path, capsys, number):
    path = tmp_path / "log.txt"
    path.write_text(LOG.replace("loss 0.50000", f"loss {number}"))
    assert curves.read(path).steps == [0, 200, 300]
    assert "1 line(s)" in capsys.readouterr().err
    path.write_text(LOG.replace("step     100", f"step {'1' * 5000}"))
    assert curves.read(path).steps == [0, 200, 300]
    assert "1 line(s)" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["inf", "-inf", "1e300", "-2e4000"])
def test_a_number_that_cannot_be_drawn_is_as_none(tmp_path, number):
    path = tmp_path / "log.txt"
    path.write_text(LOG.replace("loss 0.50000", f"loss {number}"))
    log = curves.read(path)
    assert log.steps == [0, 100, 200, 300] and math.isnan(log.loss[1])
    curves.draw([log])


def test_a_log_is_a_plain_file(tmp_path):
    with pytest.raises(DataError, match="not a plain file"):
        curves.read(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        curves.read(tmp_path / "missing.txt")


@pytest.mark.parametrize("name", ["svdn", "lmfn"])
def test_the_released_runs_log_is_read(name):
    file = Path(train.__file__).parent / "released" / f"{name}.training.txt"
    log = curves.read(file)
    lines = [line.split() for line in file.read_text().splitlines()]
    assert log.steps == sorted({int(line[1]) for line in lines if line[0] == "step"})
    card = cards.verify(file.with_name(f"{name}.card.json"))
    assert log.steps[-1] == card.training["steps"]
    assert max(log.psnr) > log.psnr_input
    assert sum(map(math.isnan, log.loss)) == 1  # before the first step, however often resumed


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 300, [0, 100, 200, 300]),
        (26.2, 26.9, [26.2, 26.4, 26.6, 26.8]),
        (-1, 1.2, [-1, -0.5, 0, 0.5, 1]),
        (0, 7, [0, 2, 4, 6]),
    ],
)
def test_ticks(low, high, expected):
    assert curves.ticks(low, high) == pytest.approx(expected)


def test_picture_of_two_runs(tmp_path):
    (tmp_path / "a.txt").write_text(LOG)
    (tmp_path / "b.txt").write_text(LOG.replace("23.000", "24.000"))
    out = tmp_path / "out.png"
    logs = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert main(["curves", *logs, "--out", str(out)]) == 0
    sheet = read_image(out)
    assert sheet.shape == (2 * 24 + 16 + 600, 1120, 3)
    psnr = sheet[64:364, :560]
    tops = []
    for colour in curves.COLOURS[:2]:
        rows, _ = np.nonzero(np.abs(psnr.astype(int) - colour).max(axis=2) < 20)
        tops.append(rows.min())
    assert tops[1] < tops[0] - 20, "the better run's curve is not higher"
    assert (sheet[:, -4:] == drawing.PAPER).all()


def test_a_run_of_one_line_and_without_numbers(tmp_path):
    (tmp_path / "a.txt").write_text(LOG.splitlines()[1])
    assert curves.draw([curves.read(tmp_path / "a.txt")]).shape[2] == 3


def test_logs_that_are_none(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("step 3: hello")
    for name, says in (("a.txt", "no line of a validation"), ("none.txt", "No such file")):
        assert main(["curves", str(tmp_path / name), "--out", str(tmp_path / "o.png")]) == 2
        error = capsys.readouterr().err
        assert says in error and "hint:" in error
        assert not (tmp_path / "o.png").exists()
