"""Nothing is sent anywhere: a run looks up no name and opens no connection."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge_restore

pytest.importorskip("av")
pytest.importorskip("onnxruntime")

from tests.edge_restore.clips import write_clip
from tests.edge_restore.onnx_models import write_model

ROOT = Path(edge_restore.__file__).parent.parent

AUDITED = """
import sys
def audit(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        print("NETWORK", event, arguments, file=sys.stderr)
sys.addaudithook(audit)
from edge_restore.cli import main
sys.exit(main(sys.argv[1:]))
"""


def environment() -> dict[str, str]:
    """Without the variables by which ONNX Runtime holds its telemetry back in tests."""
    suppressing = re.compile(r"ORT_.*|CI|.*_CI|CI_.*|TF_BUILD|GITHUB_.*|JENKINS.*|BUILD_.*")
    kept = {k: v for k, v in os.environ.items() if not suppressing.fullmatch(k)}
    return {**kept, "PYTHONPATH": str(ROOT)}


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    for package in ("edge_restore", "train", "export", "calibration"):
        if not (ROOT / package).is_dir():
            continue  # the wheel holds edge_restore alone
        module = package if package == "edge_restore" else f"{package}.__main__"
        code = f"import {module}, os, sys; assert 'onnxruntime' not in sys.modules; " + (
            "print(os.environ['ORT_DISABLE_TELEMETRY'])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False,
            env={**environment(), "ORT_DISABLE_TELEMETRY": "0"},
        )  # fmt: skip
        assert result.stdout == "1\n", result.stderr


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_run_opens_no_connection(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    model, clip = write_model(tmp_path), write_clip(tmp_path / "clip.mp4")
    out = tmp_path / "out.mp4"
    trace = tmp_path / "trace"
    tracer = []
    if strace := shutil.which("strace"):
        tracer = [
            strace,
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-e",
            "trace=connect,sendto,sendmsg,sendmmsg",
            "-o",
            trace,
        ]
        if subprocess.run([*tracer, "true"], capture_output=True, check=False).returncode:
            tracer = []  # a container may forbid it; Python's own calls are seen all the same
    result = subprocess.run(
        [*tracer, sys.executable, "-c", AUDITED, "run", clip, "--out", out, "--model", model,
         "--backend", backend],
        capture_output=True, text=True, env=environment(), check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "NETWORK" not in result.stderr
    sent = trace.read_text().splitlines() if tracer else []
    assert [line for line in sent if "AF_INET" in line or "nscd" in line] == []
