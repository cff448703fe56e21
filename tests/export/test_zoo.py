"""The script that makes the shipped graphs, and what their cards say of themselves."""

import json
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("network", ["svdn", "lmfn"])
def test_the_cards_name_the_scripts_commands(network):
    printed = subprocess.run(
        ["bash", "export/zoo.sh", "--print", network, "runs/calibration.npz", "pairs"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    cards = (REPOSITORY / "edge_restore/zoo").glob(f"{network}*.card.json")
    commands = {json.loads(card.read_text())["command"] for card in cards}
    lines = printed.stdout.splitlines()
    assert commands == {line for line in lines if "calibration check" not in line}


def test_without_what_it_needs_it_says_so():
    done = subprocess.run(
        ["bash", "export/zoo.sh", "drcnet", "frames.npz", "pairs"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "svdn|lmfn FRAMES.npz PAIRS" in done.stderr
