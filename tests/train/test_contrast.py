"""Contrastive regularisation against values computed by hand, and its gradient."""

import pytest
import torch

from train.contrast import LAMBDAS, contrast, mixture, others_of_batch

F64 = torch.float64


def test_mixture_is_equation_11():
    blurred, sharp = torch.tensor([[0.2]], dtype=F64), torch.tensor([[1.0]], dtype=F64)
    mixed = [mixture(blurred, sharp, weight).item() for weight in LAMBDAS]
    assert mixed == pytest.approx([0.92, 0.96, 1.0])


def test_ratio_is_equation_13_with_the_mean_of_the_negatives():
    restored = torch.tensor([[1.0, 3.0]], dtype=F64)
    sharp = torch.tensor([[2.0, 5.0]], dtype=F64)  # distance (1 + 2) / 2
    near = torch.tensor([[1.0, 2.0]], dtype=F64)  # (0 + 1) / 2
    far = torch.tensor([[5.0, 6.0]], dtype=F64)  # (4 + 3) / 2
    assert contrast(restored, sharp, [near, far]).item() == pytest.approx(1.5 / 2.0, rel=1e-6)


def test_with_the_sharp_picture_among_them_the_ratio_stays_below_their_number():
    sharp, restored = torch.zeros(1, 4), torch.ones(1, 4)
    ratio = contrast(restored, sharp, [restored, restored, sharp])
    assert ratio.item() == pytest.approx(3.0, rel=1e-5)


def test_nothing_to_tell_apart_costs_nothing():
    same = torch.rand(1, 4).requires_grad_()
    ratio = contrast(same, same.detach(), [same.detach()] * 3)
    ratio.backward()
    assert ratio.item() == 0
    assert same.grad.isfinite().all()


def test_it_draws_to_the_sharp_and_away_from_the_negatives():
    restored = torch.zeros(1, 1, dtype=F64).requires_grad_()
    contrast(restored, torch.ones(1, 1, dtype=F64), [-torch.ones(1, 1, dtype=F64)]).backward()
    assert restored.grad.item() == pytest.approx(-2.0, rel=1e-6)


def test_gradient():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 3, 2, 2, dtype=F64, generator=generator) for _ in range(5)]
    restored = maps[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: contrast(x, maps[1], maps[2:]), (restored,))


@pytest.mark.parametrize(("batch", "count"), [(2, 1), (3, 2), (4, 3), (6, 3)])
def test_others_of_a_batch_are_never_the_picture_itself(batch, count):
    numbers = torch.arange(batch).view(-1, 1, 1, 1)
    others = others_of_batch({1: numbers, 6: numbers * 10})
    assert len(others) == count
    for other in others:
        assert (other[1] != numbers).all()
        assert torch.equal(other[6], other[1] * 10)
    assert len({tuple(other[1].flatten().tolist()) for other in others}) == count
