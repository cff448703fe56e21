"""Recipes: every mistake is named at once; the shipped ones are right."""

from pathlib import Path

import pytest

import train
from edge_restore.errors import RecipeError
from train.recipe import OptimiserRecipe, parse, read
from train.schedule import offset_factor, rate

RECIPES = sorted((Path(train.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path):
    assert read(path).network == path.stem.partition("_")[0]


def test_all_mistakes_are_reported_together():
    with pytest.raises(RecipeError) as caught:
        parse(
            {
                "netwrok": "svdn",
                "data": {"patch": "big", "batch": 0},
                "optimiser": {"schedule": "steps", "rate": -1.0},
                "blur": 3,
            }
        )
    text = str(caught.value)
    for part in (
        "unknown key 'netwrok'",
        "missing key 'network'",
        "missing key 'optimiser.steps'",
        "'data.patch' is 'big', not of type int",
        "'data.batch' is 0, not 1 or more",
        "'optimiser.schedule' is 'steps', not one of cosine, polynomial, step",
        "'optimiser.rate' is -1.0, not 0 or more",
        "'blur' is 3, not a table",
    ):
        assert part in text


def test_zoom_and_shares_are_bounded():
    data = {"zoom": 0.5, "smooth": 1.5, "tiled": 2.0, "striped": 3.0}
    table = {"network": "svdn", "data": {**data, "subsampled": 4.0, "defocused": 5.0}}
    with pytest.raises(RecipeError) as caught:
        parse(table)
    assert "'data.zoom' is 0.5, not 1 or more" in str(caught.value)
    assert "'data.smooth' is 1.5, not 1 or less" in str(caught.value)
    assert "'data.tiled' is 2.0, not 1 or less" in str(caught.value)
    assert "'data.striped' is 3.0, not 1 or less" in str(caught.value)
    assert "'data.subsampled' is 4.0, not 1 or less" in str(caught.value)
    assert "'data.defocused' is 5.0, not 1 or less" in str(caught.value)
    assert "missing key 'optimiser'" in str(caught.value)  # beside all other mistakes


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("network = ")
    with pytest.raises(RecipeError, match="cannot be read"):
        read(tmp_path / "bad.toml")


def test_rate_rises_then_falls_to_the_last_rate():
    cosine = OptimiserRecipe(steps=110, rate=1.0, last_rate=0.1, warmup=10)
    assert rate(0, cosine) == pytest.approx(0.1)
    assert rate(9, cosine) == pytest.approx(1.0)
    assert rate(60, cosine, again=60) == pytest.approx(0.055)
    assert rate(69, cosine, again=60) == rate(69, cosine)
    assert rate(59, cosine, again=60) == rate(59, cosine)
    assert rate(60, cosine) == pytest.approx(0.55)
    assert rate(110, cosine) == rate(500, cosine) == pytest.approx(0.1)
    published = OptimiserRecipe(
        steps=2000, rate=1e-3, last_rate=1e-6, schedule="polynomial", power=0.9
    )
    assert rate(1000, published) == pytest.approx(1e-6 + (1e-3 - 1e-6) * 0.5**0.9)


def test_rate_falls_in_steps_but_not_below_the_last_rate():
    published = read(next(path for path in RECIPES if path.stem == "lmfn_paper")).optimiser
    found = [rate(step, published) for step in (0, 499999, 500000, 999999)]
    assert found == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
    quick = OptimiserRecipe(
        steps=40, rate=1.0, last_rate=0.2, schedule="step", drop=0.5, drop_every=10, warmup=5
    )
    found = [rate(step, quick) for step in (0, 4, 9, 10, 20, 39)]
    assert found == pytest.approx([0.2, 1, 1, 0.5, 0.25, 0.2])
    assert rate(20, quick, again=20) == pytest.approx(0.05)


def test_offsets_wait_then_join():
    waiting = OptimiserRecipe(steps=100, offset_start=10)
    assert [offset_factor(step, waiting) for step in (0, 10, 15, 20, 90)] == pytest.approx(
        [0, 0, 0.05, 0.1, 0.1]
    )
    assert offset_factor(0, OptimiserRecipe(steps=100)) == 0.1
