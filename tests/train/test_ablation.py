"""A paper's table, row by row: the same budget, resumed, and what is missing says so."""

import json
import re
from pathlib import Path

import pytest
import torch

from edge_restore.errors import RecipeError
from edge_restore.storage.json_file import read_json
from edge_restore.storage.plain_file import Kind
from train import ablation
from train.__main__ import main

TABLES = sorted((Path(ablation.__file__).parent / "ablations").glob("*.toml"))

TINY = """
title = "A table"
measured = "a set"
[recipe]
network = "svdn"
arguments = {width = 8}
[recipe.data]
patch = 32
batch = 2
[recipe.optimiser]
steps = 3
[recipe.validation]
every = 3
patches = 2
size = 32
[[rows]]
name = "plain neck"
psnr = 28.34
ssim = 0.9124
changes = {arguments = {feature_deconvolution = false}}
[[rows]]
name = "all"
psnr = 29.57
[[rows]]
name = "with features"
changes = {loss = {perceptual = 0.01}}
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_shipped_tables_are_the_papers(path):
    """Every row builds, and no two rows are the same training."""
    rows = ablation.read(path).rows
    assert len(rows) == {"svdn": 4, "lmfn": 9, "drcnet": 8, "fcn": 17}[path.stem.split("_")[0]]
    assert len({repr(row.recipe) for row in rows}) == len(rows)
    assert len({row.recipe.optimiser.steps for row in rows}) == 1
    assert all(row.psnr for row in rows)


def test_rows_are_trained_and_stand_beside_the_papers(table, pack_file, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["ablation", str(table), "--data", str(pack_file), "--out", str(out)]
    assert main([*command, "--max-minutes", "0"]) == 0
    assert capsys.readouterr().out.count("not trained yet") == 2
    assert main(command) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert re.match(r"\| plain neck \| 0\.\d\d M \| 28\.34 \| 0\.9124 \| [+-]\d", shown[0])
    assert re.match(r"\| all \| 0\.\d\d M \| 29\.57 \| - \| [+-]\d", shown[1])
    assert "needs --vgg" in shown[2]
    written = json.loads((out / "ablation.json").read_text())
    assert [row["steps"] for row in written["rows"]] == [3, 3, 0]
    plain, full, _ = written["rows"]
    assert plain["score"]["psnr_input"] == full["score"]["psnr_input"]
    assert plain["score"]["psnr"] != full["score"]["psnr"]
    assert plain["parameters"] != full["parameters"]
    assert plain["recipe"]["arguments"] == {"width": 8, "feature_deconvolution": False}
    # Once trained, a row is only measured again.
    assert main([*command, "--max-minutes", "0"]) == 0
    assert json.loads((out / "ablation.json").read_text())["rows"][0]["score"] == plain["score"]


def test_other_rows_go_on_when_one_diverges(table, pack_file, tmp_path, capsys):
    wild = "changes = {optimiser = {rate = %s, clip = %s, warmup = 0, steps = %s, ema = 0.0}}"
    rows = (("not finite", 10.0, 0.0, 20), ("huge", 1.0, 1.0, 6))
    told = "".join(f'[[rows]]\nname = "{n}"\n{wild % (r, c, s)}\n' for n, r, c, s in rows)
    table.write_text(TINY.replace("[[rows]]", told + "[[rows]]", 1))
    out = tmp_path / "runs"
    assert main(["ablation", str(table), "--data", str(pack_file), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "not finite: the training diverged" in captured.err
    table_shown = (out / "ablation.md").read_text()
    assert table_shown.count("diverged") == 2 and "nan" not in table_shown
    read = read_json(out / "ablation.json", Kind("a table", "a table", "none"))["rows"]
    assert re.fullmatch(r"diverged at step \d+", read[0]["missing"]) and read[0]["score"] is None
    assert read[1]["missing"] == "diverged by step 6"
    assert [row["steps"] for row in read[2:]] == [3, 3, 0]
    assert read[2]["missing"] is None and read[2]["score"]["psnr"] > 0


def test_mistakes_of_all_rows_are_named_at_once(table):
    text = TINY.replace("patch = 32", "pitch = 32").replace('name = "all"', "nome = 1")
    table.write_text(text.replace('"plain neck"', '"with features"'))
    with pytest.raises(RecipeError) as caught:
        ablation.read(table)
    message = str(caught.value)
    assert "unknown key 'data.pitch'" in message
    assert "unknown key 'nome' in row 2" in message
    assert "row 2 has no name" in message
    table.write_text(TINY.replace('"plain neck"', '"all"').replace("title", "titel"))
    with pytest.raises(
        RecipeError, match=r"(?s)unknown key 'titel'.*missing key 'title'.*two rows"
    ):
        ablation.read(table)
    table.write_text(TINY.replace("feature_deconvolution", "deconvolution"))
    with pytest.raises(RecipeError, match="network 'svdn' cannot be built"):
        ablation.read(table)


def test_a_row_whose_network_has_not_what_its_loss_trains(table):
    table.write_text(TINY.replace("perceptual = 0.01", "trust_ratio = true"))
    with pytest.raises(RecipeError, match="row 'with features': SVDN has a single stage"):
        ablation.read(table)


def test_the_machines_folders_stay_out_of_the_report(table, tmp_path):
    read = ablation.read(table, str(tmp_path / "vgg16.safetensors"))
    shown = ablation.document(read, [ablation.Result(read.rows[2], None, "x")], "a machine")
    assert shown["rows"][0]["recipe"]["loss"]["vgg_file"] == "vgg16.safetensors"
    assert str(tmp_path) not in json.dumps(shown)
    assert torch.__version__ == shown["torch"]
