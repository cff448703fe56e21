"""Data-parallel training: two real processes over gloo."""

import os
import subprocess
import sys

import pytest
import torch

from edge_restore.errors import OptionError
from edge_restore.models.cards import WeightsCard, card_path
from train.workers import Workers

RECIPE = """
network = "svdn"
arguments = {width = 8}
[data]
patch = 32
batch = 2
[optimiser]
steps = 4
algorithm = "muon"
[loss]
motion = 0.01
motion_first = 2
[validation]
every = 2
patches = 1
size = 32
"""

AVERAGE = """
import json, sys, torch
from train.workers import Workers
workers = Workers("cpu")
a, b, c = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2,), (1, 1), (3,)))
a.grad = torch.tensor([1.0, 2.0]) * (workers.rank + 1)
b.grad = torch.tensor([[5.0]]) - 10 * workers.rank
workers.average_gradients([a, b, c])
assert c.grad is None
mean = workers.mean([float(workers.rank), 3.0], torch.device("cpu"))
# One write per process, so that the lines do not mix.
sys.stdout.write(json.dumps([a.grad.tolist(), b.grad.tolist(), mean, workers.gather("x")]) + "\\n")
workers.close()
"""


def launch(*arguments, count=2):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*torchrun, "--nproc-per-node", str(count), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_gradients_become_their_mean(tmp_path):
    script = tmp_path / "average.py"
    script.write_text(AVERAGE)
    done = launch(script)
    assert done.returncode == 0, done.stderr
    line = '[[1.5, 3.0], [[0.0]], [0.5, 3.0], ["x", "x"]]'
    assert done.stdout.splitlines() == [line, line]


THREADS = """
import importlib, sys
from pathlib import Path
import torch
from train.workers import Workers

def gloo():
    tasks = Path("/proc/self/task").glob("*/comm")
    return sum("gloo" in name for name in (task.read_text() for task in tasks))

workers = Workers("cpu")
importlib.import_module("torch.distributed.nn.functional")  # as a step of an optimiser does
workers.mean([1.0], torch.device("cpu"))
during = gloo()
workers.close()
sys.stdout.write(f"{during > 0} {gloo()}\\n")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are named in /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that does ends the process by SIGABRT when it is unlucky."""
    script = tmp_path / "threads.py"
    script.write_text(THREADS)
    done = launch(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True 0", "True 0"]


def test_two_processes_train_one_network_and_resume(pack_file, tmp_path):
    """Four steps at once are two, a stop, and two more; both differ from a lone process's."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    common = ("-m", "train", "run", recipe, "--data", pack_file, "--device", "cpu", "--out")
    whole = launch(*common, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("step       4") == 1  # one process speaks for both
    first = torch.load(tmp_path / "whole/checkpoint.pt", weights_only=True)
    assert len(first["sources"]) == 2
    states = [source["numpy"]["state"]["state"] for source in first["sources"]]
    assert states[0] != states[1]

    cut = tmp_path / "cut"
    assert launch(*common, cut, "--max-minutes", "0").returncode == 0
    again = launch(*common, cut)
    assert again.returncode == 0, again.stderr
    card = WeightsCard.read(card_path(cut / "svdn.safetensors"))
    assert card.training["machine"].startswith("2 x ")
    second = torch.load(cut / "checkpoint.pt", weights_only=True)
    for name, value in first["average"].items():
        assert torch.equal(value, second["average"][name]), name

    alone = launch(*common, cut, count=1)
    assert alone.returncode != 0
    assert "belongs to another number of processes" in alone.stderr


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(OptionError, match="WORLD_SIZE is set"):
        Workers("cpu")


def test_without_torchrun_there_is_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Workers("cpu")
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    alone.average_gradients([parameter])
    assert (alone.rank, alone.count, alone.first) == (0, 1, True)
    assert parameter.grad.item() == 1
    assert alone.gather(5) == [5]
