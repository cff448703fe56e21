"""Losses against values computed by hand, and their gradients."""

import math

import pytest
import torch

from train.losses import charbonnier, harm, l1, l2, log_mse, mse, pixel_loss, rms
from train.recipe import LossRecipe

SHARP = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
RESTORED = SHARP + torch.tensor([0.1, 0.3], dtype=torch.float64).view(2, 1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("l2", 0.5 * (0.01 + 0.09) / 2),
        ("mse", (0.01 + 0.09) / 2),
        ("l1", 0.2),
        ("rms", (math.hypot(0.1, 1e-3) + math.hypot(0.3, 1e-3)) / 2),
        ("charbonnier", (math.hypot(0.1, 1e-3) + math.hypot(0.3, 1e-3)) / 2),
        ("log_mse", 5 * (math.log10(0.0101) + math.log10(0.0901))),
    ],
)
def test_values(kind, expected):
    loss = pixel_loss(RESTORED, SHARP, LossRecipe(kind=kind))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_floor_of_log_mse():
    loss = pixel_loss(RESTORED, SHARP, LossRecipe(kind="log_mse", floor=0.01))
    assert loss.item() == pytest.approx(5 * (math.log10(0.02) + math.log10(0.1)), rel=1e-12)


@pytest.mark.parametrize("loss", [l2, mse, l1, charbonnier, rms, log_mse])
def test_gradients(loss):
    generator = torch.Generator().manual_seed(0)
    restored = torch.rand(2, 3, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: loss(r, SHARP), (restored,))


def test_harm_counts_only_what_became_worse():
    blurred = SHARP + 0.2  # one patch is better than that, the other worse
    worse = 0.01 * (0.09 - 0.04) / (0.04 + 0.01) ** 2
    assert harm(RESTORED, blurred, SHARP, 0.01).item() == pytest.approx(worse / 2, rel=1e-12)
    assert harm(RESTORED, RESTORED, SHARP).item() == 0
    assert harm(SHARP, SHARP, SHARP).item() == 0  # perfect, before and after


def test_harm_is_seen_beside_a_larger_gain():
    sharp = torch.zeros(1, 3, 64, 96, dtype=torch.float64)
    blurred, restored = sharp.clone(), sharp.clone()
    blurred[..., :32, :32] = 0.5  # one field of six is mended, one other spoilt
    restored[..., 32:, 64:] = 0.1
    assert harm(restored, blurred, sharp, 1e-3).item() == pytest.approx(10 / 6, rel=1e-12)


def test_gradients_of_harm():
    restored = RESTORED.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: harm(r, SHARP + 0.2, SHARP, 0.1), (restored,))
    harm(restored, SHARP + 0.2, SHARP).backward()
    assert not restored.grad[0].any() and restored.grad[1].all()
