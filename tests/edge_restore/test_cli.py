from __future__ import annotations

import subprocess
import sys

import pytest

from edge_restore import __version__, cli
from edge_restore.errors import InternalError


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"edge-restore {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["sing"], ["run"], ["run", "x.mp4"], ["run", "--out", "y"]])
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert "usage: edge-restore" in capsys.readouterr().err


def test_help_of_a_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    assert "second Ctrl-C ends at once and keeps nothing" in capsys.readouterr().out


def test_our_own_bugs_keep_their_traceback() -> None:
    code = (
        "from edge_restore import cli\n"
        "from edge_restore.models import zoo\n"
        "from edge_restore.errors import InternalError\n"
        "def names(): raise InternalError('bug')\n"
        "zoo.names = names\n"
        "cli.main(['models'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == InternalError.exit_code == 1
    assert "Traceback" in result.stderr and "bug" in result.stderr


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from edge_restore.models import zoo

    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "names", interrupted)
    assert cli.main(["models"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "edge_restore", "--version"], capture_output=True, text=True
    )
    assert result.stdout == f"edge-restore {__version__}\n"
