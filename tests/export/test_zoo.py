"""The script that makes the shipped graphs, and what their cards say of themselves."""

import json
import subprocess
from pathlib import Path

import onnx
import pytest

REPOSITORY = Path(__file__).parents[2]
ZOO = REPOSITORY / "edge_restore/models/zoo"


@pytest.mark.parametrize("network", ["svdn", "lmfn"])
def test_the_cards_name_the_scripts_commands(network):
    printed = subprocess.run(
        ["bash", "export/zoo.sh", "--print", network, "runs/calibration.npz", "pairs"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    cards = (REPOSITORY / "edge_restore/models/zoo").glob(f"{network}*.card.json")
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


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.onnx")), ids=lambda path: path.stem)
def test_grid_sample_of_a_shipped_graph_is_bilinear_for_every_parser(path):
    model = onnx.load(str(path))
    assert [entry.version for entry in model.opset_import if not entry.domain] == [19]
    assert json.loads(path.with_suffix(".card.json").read_text())["opset"] == 19
    samples = [node for node in model.graph.node if node.op_type == "GridSample"]
    assert len(samples) == (10 if "gridsample" in path.stem else 0)
    for node in samples:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == {"mode": b"bilinear", "padding_mode": b"zeros", "align_corners": 0}
