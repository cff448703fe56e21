"""What a recipe's [loss] adds up to: every term, the stages, the ratios and the refusals."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edge_restore.errors import DataError, RecipeError
from edge_restore.models.cards import FileDigest, WeightsCard, card_path
from edge_restore.storage.files import sha256
from tests.train.test_vgg import tensors
from train.contrast import LAMBDAS, LAYER_WEIGHTS
from train.losses import TrainingLoss, TrustRatio, harm, perceptual
from train.networks import create
from train.position import flows_of_layer, position
from train.recipe import LossRecipe, parse
from train.vgg import VGG, first_of_blocks

GENERATOR = torch.Generator().manual_seed(0)
BLURRED, SHARP, RESTORED = torch.rand(3, 3, 3, 16, 16, generator=GENERATOR)
FLOWS = torch.zeros(3, 2, 2, 16, 16)
VGG16 = (
    (0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256),
    (14, 256, 256), (17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512),
)  # fmt: skip


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Random weights: what the terms do with features does not depend on their meaning."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file({k: v.half() for k, v in tensors(VGG16).items()}, path)
    return path


class TwoStages(nn.Module):
    """The smallest network of more than one stage."""

    multiple = 1

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, image):
        stage = self.first(image)
        restored = self.second(stage)
        return (stage, restored) if self.training else restored


def terms(recipe, output=RESTORED, network=None):
    loss = TrainingLoss(network or TwoStages(), recipe)
    return loss.terms(output, BLURRED, SHARP, FLOWS)


def test_by_default_it_is_the_pixel_loss_and_trains_nothing():
    loss = TrainingLoss(TwoStages(), LossRecipe())
    assert not list(loss.parameters())
    assert not loss.state_dict()
    value = loss(RESTORED, BLURRED, SHARP, FLOWS)
    assert torch.equal(value, 0.5 * (RESTORED - SHARP).square().mean())


def test_without_ratios_the_stages_count_alike():
    recipe = LossRecipe(kind="l1")
    stages = (SHARP + 0.1, SHARP + 0.5)
    assert terms(recipe, stages)["pixel"].item() == pytest.approx(0.3)


def test_trust_by_hand():
    trust = TrustRatio(2).double()
    losses = torch.tensor([4.0, 1.0], dtype=torch.float64)
    assert trust.ratios().tolist() == [0.5, 0.5]
    assert trust(losses).item() == 2.5
    with torch.no_grad():  # sigmoids of 0.75 and 0.5, of their sum 0.6 and 0.4
        trust.logits.copy_(torch.tensor([math.log(3), 0.0]))
    assert trust(losses).item() == pytest.approx(0.6 * 4 + 0.4 * 1)


def test_trust_gradient():
    trust = TrustRatio(3).double()
    with torch.no_grad():
        trust.logits.copy_(torch.tensor([0.4, -1.0, 2.0]))
    losses = torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: trust(x), (losses, trust.logits))


def test_trust_moves_to_the_better_stage_and_does_not_vanish():
    loss = TrainingLoss(TwoStages(), LossRecipe(kind="rms", trust_ratio=True))
    for _ in range(30):
        loss((SHARP + 0.2, SHARP + 0.1), BLURRED, SHARP, FLOWS).backward()
        with torch.no_grad():
            loss.trust.logits -= 10 * loss.trust.logits.grad
        loss.trust.logits.grad = None
    ratios = loss.trust.ratios()
    assert ratios.sum().item() == pytest.approx(1)
    assert ratios[1] > 0.8
    assert ((ratios > 0) & (ratios < 1)).all()


def test_the_harm_term_is_of_the_last_stage():
    found = terms(LossRecipe(kind="rms", harm=0.5, sharpness=1e-3), (SHARP, BLURRED + 0.1))
    torch.testing.assert_close(found["harm"], 0.5 * harm(BLURRED + 0.1, BLURRED, SHARP, 1e-3))
    assert set(found) == {"pixel", "harm"} and found["harm"] > 0
    assert "harm" not in terms(LossRecipe(), (SHARP, BLURRED))


def test_perceptual_term_is_equation_9_of_the_last_stage(vgg_file):
    recipe = LossRecipe(perceptual=0.01, perceptual_layer=7, vgg_file=str(vgg_file))
    found = terms(recipe, (BLURRED, RESTORED))
    vgg = VGG("vgg16", {7}, vgg_file)
    difference = vgg(RESTORED)[7] - vgg(SHARP)[7]
    expected = 0.01 * difference.square().sum() / (2 * difference.numel())
    torch.testing.assert_close(found["perceptual"], expected)
    assert set(found) == {"pixel", "perceptual"}


def test_perceptual_gradient():
    a, b = torch.rand(2, 1, 4, 2, 2, dtype=torch.float64, generator=GENERATOR)
    assert torch.autograd.gradcheck(lambda x: perceptual(x, b), (a.requires_grad_(),))


@pytest.mark.parametrize("source", ["intra", "extra"])
def test_contrast_term_is_equation_13_over_the_blocks(vgg_file, source):
    recipe = LossRecipe(kind="l1", contrast=source, vgg_file=str(vgg_file))
    loss = TrainingLoss(TwoStages(), recipe)
    found = loss.terms(RESTORED, BLURRED, SHARP, FLOWS)["contrast"]
    negatives = (
        [m * SHARP + (1 - m) * BLURRED for m in LAMBDAS]
        if source == "intra"
        else [BLURRED[[2, 0, 1]], BLURRED[[1, 2, 0]]]
    )
    ours, truth, *others = (loss.vgg(picture) for picture in (RESTORED, SHARP, *negatives))
    expected = 0.0
    for weight, layer in zip(LAYER_WEIGHTS, first_of_blocks("vgg16"), strict=True):
        near = (ours[layer] - truth[layer]).abs().mean()
        away = sum((ours[layer] - other[layer]).abs().mean() for other in others) / len(others)
        expected += 0.04 * weight * near / away
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.fixture
def teacher(tmp_path):
    """Weights of a network that makes everything 0.2 brighter, with their card."""
    torch.manual_seed(1)
    network = create("svdn", width=8)
    torch.nn.init.constant_(network.tail.bias, 0.2)
    path = tmp_path / "svdn.safetensors"
    save_file(network.state_dict(), path)
    WeightsCard(
        network="svdn", arguments={"width": 8}, multiple=2, recipe={}, licence="none",
        command="a test", parameters=sum(p.numel() for p in network.parameters()), scores=(),
        weights=FileDigest(path.name, sha256(path), path.stat().st_size),
        data={"pack_sha256": "0" * 64, "files": []},
        training={"steps": 0, "minutes": 0.0, "machine": "a test", "torch": "2"},
    ).write(card_path(path))  # fmt: skip
    return path


def test_a_teacher_is_followed_and_stays_as_it_is(teacher):
    recipe = LossRecipe(kind="l1", distillation=0.5, teacher_file=str(teacher))
    loss = TrainingLoss(TwoStages(), recipe)
    assert not list(loss.parameters()) and not loss.state_dict()
    output = RESTORED.clone().requires_grad_()
    found = loss.terms((BLURRED, output), BLURRED, SHARP, FLOWS)["distillation"]
    expected = 0.5 * (RESTORED - (BLURRED + 0.2)).abs().mean()
    torch.testing.assert_close(found, expected)
    found.backward()
    assert output.grad.any()
    with pytest.raises(DataError, match="no weights at"):
        TrainingLoss(TwoStages(), LossRecipe(distillation=1.0, teacher_file="nothing.safetensors"))
    with pytest.raises(RecipeError, match=r"missing key 'loss.teacher_file'"):
        parse({"network": "svdn", "optimiser": {"steps": 1}, "loss": {"distillation": 1.0}})


def test_the_loss_is_the_sum_of_its_terms_and_reaches_the_network(vgg_file):
    torch.manual_seed(0)
    network = create("svdn", width=8)
    recipe = LossRecipe(
        perceptual=0.01, perceptual_layer=2, position=1e-4, margin=0.5, vgg_file=str(vgg_file)
    )
    loss = TrainingLoss(network, recipe)
    parts = loss.terms(network(BLURRED), BLURRED, SHARP, FLOWS)
    assert set(parts) == {"pixel", "perceptual", "position"}
    offsets = network.neck.ow1(network.features(BLURRED)[0])[:, :50]
    expected = 1e-4 * position(offsets, flows_of_layer(FLOWS, *offsets.shape[-2:]), 0.5)
    torch.testing.assert_close(parts["position"], expected)
    whole = loss(network(BLURRED), BLURRED, SHARP, FLOWS)
    assert whole.item() == pytest.approx(sum(v.item() for v in parts.values()), rel=1e-5)
    whole.backward()
    assert network.tail.weight.grad.any()
    assert network.neck.ow1.bias.grad[:50].any()


def test_half_precision_output_is_judged_in_float32():
    assert terms(LossRecipe(), RESTORED.bfloat16())["pixel"].dtype == torch.float32


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="SVDN has a single stage"):
        terms(LossRecipe(trust_ratio=True), network=create("svdn", width=8))
    with pytest.raises(RecipeError, match="TwoStages has no sampling points"):
        terms(LossRecipe(position=1e-4))
    with pytest.raises(DataError, match="there is no VGG weights file"):
        terms(LossRecipe(perceptual=1.0, vgg_file=str(tmp_path / "none.safetensors")))
