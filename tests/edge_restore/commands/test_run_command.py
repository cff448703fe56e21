"""`edge-restore run` through the command line: what it makes, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_restore.backends.onnxruntime import OnnxRuntimeRestorer
from edge_restore.cli import main
from edge_restore.errors import BackendError
from edge_restore.frames import Frame
from edge_restore.models.cards import card_path
from edge_restore.progress import Progress
from edge_restore.report.latency_report import LatencyReport

pytest.importorskip("onnxruntime")
av = pytest.importorskip("av")

from tests.edge_restore.clips import facts, write_clip  # noqa: E402
from tests.edge_restore.onnx_models import write_card, write_model  # noqa: E402

FRAMES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frame_count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts", "flv"])
def test_a_source_that_was_cut_off_is_restored_so_far_with_exit_code_2(
    suffix: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / f"whole.{suffix}"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("flv1" if suffix == "flv" else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(50):
            picture = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    cut, out = tmp_path / f"cut.{suffix}", tmp_path / "out.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3 - 1])
    assert main(["run", str(cut), "--out", str(out), "--model", str(model)]) == 2
    assert 2 < frame_count(out) < 25
    printed = capsys.readouterr()
    assert "was cut off" in printed.err
    assert "wrote" in printed.err
    few = ["run", str(cut), "--out", str(out), "--model", str(model), "--max-frames", "3"]
    assert main(few) == 0
    assert frame_count(out) == 3


def test_restores_a_clip(
    clip: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    code = main(
        ["run", str(clip), "--out", str(out), "--model", str(model), "--report", str(report)]
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert frame_count(out) == FRAMES
    assert facts(out)["size"] == (64, 48)
    written = LatencyReport.read(report)
    assert (written.frames_in, written.frames_out, dict(written.drops)) == (FRAMES, FRAMES, {})
    assert {p.count for p in written.stages.values()} == {FRAMES}
    assert written.model.name == "small"
    assert not written.interrupted
    for part in ("p50", "p90", "p99", "decode", "queue", "restore", "encode", "total"):
        assert part in printed.out
    assert f"{FRAMES} frames in, {FRAMES} out" in printed.out
    assert f"wrote '{out}': {FRAMES} frames" in printed.err
    assert names(tmp_path) == ["out.mp4", "report.json"]


def test_max_frames_and_json(
    clip: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    argv = ["run", str(clip), "--out", str(out), "--model", str(model), "--threads", "1"]
    assert main([*argv, "--max-frames", "3", "--json"]) == 0
    report = LatencyReport.from_json(json.loads(capsys.readouterr().out))
    assert report.frames_out == frame_count(out) == 3


def test_html_report(clip: Path, model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    argv = ["run", str(clip), "--out", str(tmp_path / "o.mp4"), "--model", str(model)]
    assert main([*argv, "--max-frames", "2", "--report", str(report)]) == 0
    assert report.read_text().startswith("<!doctype html>")
    assert str(clip) in report.read_text()


def test_memory_budget_is_in_mib(clip: Path, model: Path, tmp_path: Path) -> None:
    argv = ["run", str(clip), "--out", str(tmp_path / "o.mp4"), "--model", str(model)]
    assert main([*argv, "--max-frames", "2", "--memory-budget", "512"]) == 0


def send_after(monkeypatch: pytest.MonkeyPatch, frames: int, numbers: list[int]) -> None:
    """Send the process the signals once so many frames are written."""
    advance = Progress.advance

    def counted(self: Progress, n: int = 1, note: str = "") -> None:
        advance(self, n, note)
        if self.done == frames:
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(0.05)

    monkeypatch.setattr(Progress, "advance", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_keeps_its_frames(
    number: int,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = write_clip(tmp_path / "long.mp4", gaps=(3000,) * 200, sound=False)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    send_after(monkeypatch, 5, [number])
    handler = signal.getsignal(number)
    argv = ["run", str(clip), "--out", str(out), "--model", str(model), "--report", str(report)]
    assert main(argv) == 128 + number
    kept = frame_count(out)
    assert 5 <= kept < 200
    assert f"playable, with the first {kept} frames" in capsys.readouterr().err
    written = LatencyReport.read(report)
    assert written.interrupted and written.frames_out == kept
    assert names(tmp_path) == ["long.mp4", "out.mp4", "report.json"]
    assert signal.getsignal(number) == handler


def test_second_ctrl_c_keeps_nothing(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = write_clip(tmp_path / "long.mp4", gaps=(3000,) * 200, sound=False)
    (tmp_path / "out.mp4").write_bytes(b"an older one")
    send_after(monkeypatch, 5, [signal.SIGINT, signal.SIGINT])
    argv = ["run", str(clip), "--out", str(tmp_path / "out.mp4"), "--model", str(model)]
    assert main(argv) == 130
    assert "interrupted" in capsys.readouterr().err
    assert (tmp_path / "out.mp4").read_bytes() == b"an older one"
    assert names(tmp_path) == ["long.mp4", "out.mp4"]


def test_ctrl_c_in_a_real_process(model: Path, tmp_path: Path) -> None:
    """A playable file or none, and the last line says which."""
    clip = write_clip(
        tmp_path / "long.mp4", width=160, height=120, gaps=(3000,) * 1500, sound=False
    )
    out = tmp_path / "out.mp4"
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_restore", "run", clip, "--out", out, "--model", model],
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and len(names(tmp_path)) < 2:  # until the output is started
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    if out.exists():
        assert f"playable, with the first {frame_count(out)} frame" in error
    else:
        assert "was not written" in error or "no half-written file was left" in error
    assert set(names(tmp_path)) <= {"long.mp4", "out.mp4"}


# Runs that end early by themselves.


def write_size_change(path: Path, changes_at: int = 12) -> Path:
    """A video whose size changes in mid-stream, as some recorders make."""
    parts = []
    for number, (width, height) in enumerate([(64, 48), (48, 32)]):
        part = write_clip(path.with_name(f"part{number}.ts"), width=width, height=height,
                          gaps=(3000,) * changes_at, sound=False)  # fmt: skip
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def assert_early_end(error: str, out: Path, reason: str) -> int:
    kept = frame_count(out)
    assert "Traceback" not in error
    assert f"error: the run ended early at frame {kept}: " in error and reason in error
    assert f"ended early: '{out}' is complete and playable, with the first {kept} frame" in error
    return kept


def test_a_size_change_in_mid_stream_keeps_the_frames_before_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_size_change(tmp_path / "source.ts")
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    argv = ["run", str(source), "--out", str(out), "--model", str(model), "--report", str(report)]
    assert main(argv) == 2
    assert assert_early_end(capsys.readouterr().err, out, "48x32") == 12
    written = LatencyReport.read(report)
    assert written.frames_in == written.frames_out == 12 and "48x32" in written.ended_early


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        BackendError("not finite", expected="numbers", hint="another model"),
        OSError(errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_restorer_that_fails_keeps_the_frames_before(
    failure: Exception, older: bool, clip: Path, model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fail_with(monkeypatch, failure)
    out = tmp_path / "out.mp4"
    if older:
        out.write_bytes(b"an older one")
    report = tmp_path / "report.html"
    argv = ["run", str(clip), "--out", str(out), "--model", str(model), "--report", str(report)]
    assert main(argv) == 2
    printed = capsys.readouterr()
    part = tmp_path / "out.partial.mp4" if older else out
    assert assert_early_end(printed.err, part, "") == 7
    assert "24 frames in" in printed.out or "dropped (not restored)" in printed.out
    assert report.exists()
    if older:
        assert out.read_bytes() == b"an older one" and "older" in printed.err


def test_a_bug_shows_itself_and_keeps_the_frames_before(
    clip: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, ZeroDivisionError("a bug"))
    argv = ["run", str(clip), "--out", str(tmp_path / "out.mp4"), "--model", str(model)]
    with pytest.raises(ZeroDivisionError):
        main(argv)
    assert frame_count(tmp_path / "out.mp4") == 7


def fail_with(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    submit = OnnxRuntimeRestorer.submit

    def failing(self: OnnxRuntimeRestorer, frame: Frame) -> None:
        if frame.index == 7:
            raise failure
        submit(self, frame)

    monkeypatch.setattr(OnnxRuntimeRestorer, "submit", failing)


def test_a_report_that_cannot_be_written_does_not_cost_the_video(
    clip: Path, model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its folder is removed, or becomes a file, while the run goes on."""
    for suffix in ("json", "html"):
        folder = tmp_path / suffix
        folder.mkdir()
        out = tmp_path / f"{suffix}.mp4"
        advance = Progress.advance

        def removed(self: Progress, n: int = 1, note: str = "", folder: Path = folder) -> None:
            if folder.is_dir():
                folder.rmdir()
                folder.touch()

        monkeypatch.setattr(Progress, "advance", removed)
        argv = ["run", str(clip), "--out", str(out), "--model", str(model)]
        assert main([*argv, "--report", str(folder / f"r.{suffix}")]) == 2
        monkeypatch.setattr(Progress, "advance", advance)
        error = capsys.readouterr().err
        assert f"wrote '{out}': {FRAMES} frames" in error
        assert f"r.{suffix}' cannot be written" in error and "Traceback" not in error
        assert frame_count(out) == FRAMES


def test_a_video_that_cannot_be_published_does_not_cost_the_report(
    clip: Path, model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"

    def occupy(self: Progress, n: int = 1, note: str = "") -> None:
        out.mkdir(exist_ok=True)  # a folder has the output's name meanwhile

    monkeypatch.setattr(Progress, "advance", occupy)
    argv = ["run", str(clip), "--out", str(out), "--model", str(model), "--report", str(report)]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "error: the run ended early at frame 0: the output" in error
    written = LatencyReport.read(report)
    assert (written.frames_in, written.frames_out, dict(written.drops)) == (
        FRAMES, 0, {"not written": FRAMES},
    )  # fmt: skip
    assert written.stages["restore"].count == FRAMES
    assert names(tmp_path) == ["out.mp4", "report.json"] and not any(out.iterdir())


def test_a_file_size_limit_in_a_real_process(model: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file sizes can be limited on POSIX only")
    clip = write_clip(tmp_path / "source.mp4", width=320, height=240, gaps=(3000,) * 120)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    command = [sys.executable, "-m", "edge_restore", "run", clip, "--out", out, "--model", model,
               "--report", report]  # fmt: skip
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert ended.returncode == 2, ended.stderr
    kept = assert_early_end(ended.stderr, out, "File too large")
    assert LatencyReport.read(report).frames_out == kept < 120
    assert names(tmp_path) == ["out.mp4", "report.json", "source.mp4"]


# What is refused. Every case goes through the command line, leaves nothing and keeps what was.


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, *argv: str | Path, parts: tuple[str, ...]
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([str(part) for part in argv]) == 2
    printed = capsys.readouterr()
    assert "edge-restore: error: " in printed.err
    assert "Traceback" not in printed.err
    assert "\n  expected: " in printed.err and "\n  hint:     " in printed.err
    for part in parts:
        assert part in printed.err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_sources_that_are_no_video(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    no_frame = av.open(str(tmp_path / "zero.mp4"), "w")
    stream = no_frame.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.codec_context.open()
    no_frame.start_encoding()
    no_frame.close()
    messages = {
        "missing.mp4": "there is no file",
        ".": "is a directory",
        "text.mp4": "text.mp4'",
        "empty.mp4": "empty.mp4'",
        "half.mp4": "half.mp4'",
        "zero.mp4": "no frame",
    }
    said = set()
    for name, part in messages.items():
        source, out = tmp_path / name, tmp_path / "out.mp4"
        refused(capsys, tmp_path, "run", source, "--out", out, "--model", model, parts=(part,))
        main(["run", str(source), "--out", str(out), "--model", str(model)])
        said.add(capsys.readouterr().err.replace(str(source), ""))
    assert len(said) == len(messages), "each has its own message"


def test_cut_off_video_is_restored_as_far_as_it_goes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its index in front a cut-off file still plays; the exit code tells that it was cut."""
    whole = write_clip(tmp_path / "whole.mp4", sound=False, options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    out = tmp_path / "out.mp4"
    assert main(["run", str(cut), "--out", str(out), "--model", str(model)]) == 2
    error = capsys.readouterr().err
    assert "was cut off" in error and "Traceback" not in error
    assert 1 <= frame_count(out) < FRAMES
    assert f"{frame_count(out)} frames" in error


def test_models_that_are_not_ours(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(b"some other network")
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(model.read_bytes())
    write_card(changed)
    changed.write_bytes(model.read_bytes() + b"\0")
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not an ONNX file")
    write_card(garbage)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes())
    card_path(broken).write_text("{}")
    for name, parts in {
        str(foreign): ("not one of ours", "foreign.card.json"),
        str(changed): ("does not match its card", "SHA-256"),
        str(garbage): ("garbage.onnx",),
        str(broken): ("schema is missing", "licence is missing"),
        "unheard-of": ("there is no model 'unheard-of'", "edge-restore models"),
        str(tmp_path / "missing.onnx"): ("no model file",),
    }.items():
        refused(capsys, tmp_path, "run", clip, "--out", out, "--model", name, parts=parts)


def test_outputs_that_cannot_be(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(clip.read_bytes())
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    for out, part in {
        tmp_path / "missing" / "x.mp4": "does not exist",
        tmp_path: "is a directory",
        source / "x.mp4": "is not a directory",
        tmp_path / "x.txt": ".txt",
        source: "in.mp4",
        link: "link.mp4",
    }.items():
        refused(capsys, tmp_path, "run", source, "--out", out, "--model", model, parts=(part,))
    if Path("/proc/self").is_dir():
        out = Path("/proc/self/x.mp4")
        refused(capsys, tmp_path, "run", source, "--out", out, "--model", model, parts=("x.mp4",))


def test_options_that_make_no_sense(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value, part in (
        ("--backend", "abacus", "there is no backend 'abacus'"),
        ("--max-frames", "0", "0"),
        ("--threads", "0", "threads"),
        ("--memory-budget", "0", "budget"),
        ("--report", str(tmp_path / "report.pdf"), ".json or .html"),
        ("--report", str(tmp_path / "missing" / "report.json"), "does not exist"),
    ):
        refused(
            capsys,
            tmp_path,
            "run", clip, "--out", tmp_path / "out.mp4", "--model", model, option, value,
            parts=(part,),
        )  # fmt: skip


def test_report_is_neither_the_source_nor_the_output(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "clip.json"
    source.write_bytes(clip.read_bytes())
    refused(
        capsys,
        tmp_path,
        "run", source, "--out", tmp_path / "x.mp4", "--model", model, "--report", source,
        parts=("is SOURCE itself",),
    )  # fmt: skip
    link = tmp_path / "link.json"
    link.symlink_to(source)
    refused(
        capsys,
        tmp_path,
        "run", source, "--out", tmp_path / "x.mp4", "--model", model, "--report", link,
        parts=("is a symbolic link to",),
    )  # fmt: skip


def test_restored_pixels_are_the_model_s(clip: Path, model: Path, tmp_path: Path) -> None:
    """The command's output is the backend's, but for the encoder's loss."""
    from edge_restore import backends
    from edge_restore.media.metrics import psnr
    from edge_restore.sources import open_source

    out = tmp_path / "out.mp4"
    assert main(["run", str(clip), "--out", str(out), "--model", str(model)]) == 0
    restorer = backends.create("auto", [model])
    with open_source(clip, max_frames=1) as source, open_source(out, max_frames=1) as restored:
        frame = next(iter(source))
        given = np.array(frame.pixels)
        restorer.open(*frame.size)
        restorer.submit(frame)
        expected = restorer.flush()[0].pixels
        found = next(iter(restored)).pixels
    # in grey: 4:2:0 takes half of the colours' detail away
    found, expected, given = (picture.mean(axis=2) for picture in (found, expected, given))
    assert psnr(found, expected) > psnr(found, given) + 3
