"""What a recipe may ask of its [loss], and what is said of what it may not."""

import pytest

from edge_restore.errors import RecipeError
from train.recipe import parse


def recipe(loss, **data):
    return parse({"network": "svdn", "optimiser": {"steps": 1}, "loss": loss, "data": data})


def test_all_terms_can_be_asked_for():
    loss = recipe(
        {
            "kind": "rms", "vgg": "vgg19", "vgg_file": "vgg19.safetensors", "perceptual": 0.01,
            "perceptual_layer": 35, "contrast": "extra", "contrast_weight": 0.1, "position": 1e-4,
            "margin": 1, "trust_ratio": True,
        }
    ).loss  # fmt: skip
    assert (loss.perceptual_layer, loss.margin, loss.trust_ratio) == (35, 1.0, True)


def test_without_them_no_file_is_needed():
    loss = recipe({}).loss
    assert not loss.looks_at_features()
    assert (loss.position, loss.trust_ratio) == (0.0, False)


def test_mistakes_are_reported_together():
    with pytest.raises(RecipeError) as caught:
        recipe(
            {
                "kind": "l3", "vgg": "vgg13", "contrast": "inter", "perceptual": 0.01,
                "perceptual_layer": 30, "position": -1.0, "trust_ratio": 1,
            }
        )  # fmt: skip
    text = str(caught.value)
    for part in (
        "7 mistake(s)",
        "'loss.kind' is 'l3', not one of l2, l1, mse, charbonnier, rms, log_mse",
        "'loss.vgg' is 'vgg13', not one of vgg16, vgg19",
        "'loss.contrast' is 'inter', not one of none, intra, extra",
        "missing key 'loss.vgg_file', which 'perceptual' and 'contrast' need",
        "'loss.perceptual_layer' is 30, not a layer of vgg16, 0 to 29",
        "'loss.position' is -1.0, not 0 or more",
        "'loss.trust_ratio' is 1, not of type bool",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("loss", "key"), [({"kind": "log_mse"}, "floor"), ({"kind": "l2", "harm": 0.1}, "sharpness")]
)
def test_what_is_divided_by_must_not_be_zero(loss, key):
    with pytest.raises(RecipeError, match=rf"'loss\.{key}' is 0\.0"):
        recipe({**loss, key: 0})
    assert recipe({"kind": "l2", key: 0})


def test_tables_must_go_together():
    with pytest.raises(RecipeError) as caught:
        recipe({"contrast": "extra", "vgg_file": "x.safetensors"}, batch=1, patch=12)
    assert "'data.batch' is 1" in str(caught.value)
    assert "'data.patch' is 12, and VGG's features need 16 or more" in str(caught.value)
    assert recipe({}, batch=1, patch=12)
