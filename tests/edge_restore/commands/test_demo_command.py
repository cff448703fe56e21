"""`edge-restore demo` through the command line, with a small model on small frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_restore.cli import main
from edge_restore.demo.clip import write_clip
from edge_restore.demo.demonstration import PHOTO
from edge_restore.media.images import read_image
from edge_restore.media.metrics import psnr, ssim
from edge_restore.report.latency_report import LatencyReport
from tests.edge_restore.onnx_models import write_model

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
av = pytest.importorskip("av")

FRAMES = 6


def frames_of(path: Path) -> list[np.ndarray]:
    from edge_restore.sources import open_source

    with open_source(path) as source:
        return [frame.pixels for frame in source]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = write_model(tmp_path_factory.mktemp("model"))
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    argv = ["demo", "--out", str(out), "--frames", str(FRAMES), "--size", "192x108"]
    assert main([*argv, "--model", str(model)]) == 0
    return out


def test_everything_is_there(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == [
        "before_after.mp4",
        "blurred.mp4",
        "contact_sheet.png",
        "report.html",
        "report.json",
        "restored.mp4",
    ]
    blurred, restored = frames_of(made / "blurred.mp4"), frames_of(made / "restored.mp4")
    both = frames_of(made / "before_after.mp4")
    assert len(blurred) == len(restored) == len(both) == FRAMES
    assert blurred[0].shape == restored[0].shape == (108, 192, 3)
    assert both[0].shape == (108, 2 * 192 + 4, 3)
    # the clip shows the blurred frame on the left and the restored one on the right
    assert psnr(both[0][:60, :190], blurred[0][:60, :190]) > 30
    assert psnr(both[0][:60, 198:], restored[0][:60, 2:]) > 20


def test_report_counts_and_measures(made: Path) -> None:
    report = LatencyReport.read(made / "report.json")
    assert report.frames_in == report.frames_out == FRAMES
    assert not report.drops
    for stage in ("decode", "queue", "restore", "encode", "total"):
        assert report.stages[stage].count == FRAMES
    quality = report.quality
    assert quality is not None
    assert 20 < quality.psnr_before < 40


def test_quality_is_that_of_the_clips(made: Path) -> None:
    """Measured again from the files and the camera; only the encoder of restored.mp4 is between."""
    from edge_restore.demo.camera import HandHeldCamera

    quality = LatencyReport.read(made / "report.json").quality
    assert quality is not None
    shots = list(HandHeldCamera(width=192, height=108).film(read_image(PHOTO), FRAMES))
    truth = [shot.sharp for shot in shots]
    before = frames_of(made / "blurred.mp4")
    after = frames_of(made / "restored.mp4")
    assert quality.psnr_before == pytest.approx(
        np.mean([psnr(a, b) for a, b in zip(before, truth, strict=True)]), abs=1e-3
    )
    assert quality.ssim_before == pytest.approx(
        np.mean([ssim(a, b) for a, b in zip(before, truth, strict=True)]), abs=1e-5
    )
    assert quality.psnr_after == pytest.approx(
        np.mean([psnr(a, b) for a, b in zip(after, truth, strict=True)]), abs=1.5
    )


def test_page_and_sheet(made: Path) -> None:
    page = (made / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "data:image/jpeg;base64," in page
    sheet = read_image(made / "contact_sheet.png")
    assert sheet.shape[1] == 3 * (192 + 8) + 8
    assert sheet.shape[0] == 44 + 4 * (108 + 8)


def test_the_photo_has_its_licence_beside_it() -> None:
    text = PHOTO.with_name("PHOTO.txt").read_text()
    assert "CC0-1.0" in text and "budgie-backgrounds" in text
    assert read_image(PHOTO).shape == (1080, 1920, 3)


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("--size", "640", "WIDTHxHEIGHT"),
        ("--size", "641x360", "both even"),
        ("--size", "32x32", "at least 64"),
        ("--frames", "0", "number of frames is 0"),
        ("--model", "unheard-of", "there is no model"),
    ],
)
def test_options_that_make_no_sense(
    option: str, value: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), option, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith("edge-restore: error: ") and part in error
    assert not any(tmp_path.iterdir())


def test_output_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    model = write_model(tmp_path)
    assert main(["demo", "--out", str(tmp_path / "file"), "--model", str(model)]) == 2
    assert "is a plain file" in capsys.readouterr().err


def test_clip_keeps_nearly_everything(tmp_path: Path) -> None:
    from tests.edge_restore.clips import picture

    frames = [picture(i, 48, 64) for i in range(5)]
    write_clip(tmp_path / "x.mp4", frames, rate=30, crf=4)
    back = frames_of(tmp_path / "x.mp4")
    assert len(back) == 5
    assert min(psnr(a, b) for a, b in zip(back, frames, strict=True)) > 40
    with av.open(str(tmp_path / "x.mp4")) as container:
        video = container.streams.video[0]
        assert video.average_rate == 30
        assert (video.codec_context.colorspace, video.codec_context.color_range) == (1, 1)
        assert video.codec_context.pix_fmt == "yuv420p"
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_a_report_that_cannot_be_written_costs_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = LatencyReport.write

    def into_a_lost_folder(self: LatencyReport, path: Path) -> None:
        write(self, path.parent / "gone" / path.name)

    monkeypatch.setattr(LatencyReport, "write", into_a_lost_folder)
    assert main(["demo", "--out", str(tmp_path), "--frames", "4", "--size", "96x64"]) == 2
    assert "report.json' cannot be written" in capsys.readouterr().err
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "report.html", "before_after.mp4", "contact_sheet.png", "blurred.mp4", "restored.mp4",
    }  # fmt: skip
