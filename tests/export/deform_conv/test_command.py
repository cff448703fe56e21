"""`python -m export.deform_conv`."""

import subprocess
import sys

import pytest

from export.deform_conv import __main__ as command
from export.deform_conv.blocks import ARCHITECTURES

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from export.deform_conv.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_blocks_are_listed_for_every_architecture(capsys):
    assert command.main(["blocks"]) == 0
    listed = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in listed[::2]] == [f"sm_{arch}" for arch in ARCHITECTURES]


@pytest.mark.parametrize("wanted", ["compile", "vectors"])
def test_a_place_that_cannot_be_written_is_refused(wanted, capsys, tmp_path):
    pytest.importorskip("triton")
    (tmp_path / "file").write_text("")
    assert command.main([wanted, "--out", str(tmp_path / "file" / "below")]) == 2
    assert capsys.readouterr().err.startswith("deform_conv: error: ")


@pytest.mark.parametrize("wanted", ["compile", "vectors"])
def test_without_triton_it_says_what_to_install(wanted, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON, wanted, "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "the package 'triton' is not installed" in done.stderr
    assert "pip install 'edge-restore[train,export]'" in done.stderr
    assert "Traceback" not in done.stderr
