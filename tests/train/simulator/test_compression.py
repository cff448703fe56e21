"""Codecs: worse quality, larger error; colours and places stay."""

import sys

import numpy as np
import pytest
import torch

from edge_restore.errors import DependencyError, OptionError
from edge_restore.media.metrics import psnr
from train.simulator.compression import (
    H264_CRF,
    SEVERITIES,
    CompressionModel,
    compressed,
    h264,
)


def scene(side=96, seed=0):
    """(1, 3, side, side) in multiples of 1/255, smooth with edges."""
    coarse = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    grown = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (grown.clamp(0, 1) * 255).round() / 255


def generator():
    return torch.Generator().manual_seed(0)


def test_jpeg_errors_grow_with_the_severity():
    sharp = scene().expand(3, -1, -1, -1)
    errors = []
    for severity in SEVERITIES:
        seen = compressed(sharp, CompressionModel.of(severity), generator())
        assert torch.equal((seen * 255).round(), seen * 255)
        assert (seen - sharp).mean().abs() < 0.005
        errors.append((seen - sharp).square().mean().item())
    assert errors == sorted(errors)
    # One grid of blocks would give all three the same artefacts.
    assert not torch.equal(seen[0], seen[1])


def test_only_the_share_is_compressed_and_none_draws_nothing():
    sharp = scene(32).expand(40, -1, -1, -1)
    seen = compressed(sharp, CompressionModel(0.5, 20, 20), generator())
    untouched = (seen == sharp).all(dim=3).all(dim=2).all(dim=1).sum().item()
    assert 10 < untouched < 30
    used = generator()
    assert compressed(sharp, CompressionModel(), used) is sharp
    assert torch.equal(used.get_state(), generator().get_state())


def test_impossible_quality_is_refused():
    for worst, best in ((0, 50), (60, 50), (50, 101)):
        with pytest.raises(OptionError, match="JPEG quality"):
            CompressionModel(1.0, worst, best)


def frames(count, size=(75, 97)):
    """A scene that moves by two pixels a frame; odd sizes."""
    whole = (scene(160)[0] * 255).byte().permute(1, 2, 0).numpy()
    return [whole[2 * i : 2 * i + size[0], i : i + size[1]].copy() for i in range(count)]


def test_h264_keeps_order_size_and_colour_and_loses_detail_by_the_rate_factor():
    pytest.importorskip("av")
    clip = frames(5)
    scores = []
    for crf in (0, *H264_CRF.values()):
        seen = list(h264(clip, crf))
        assert [frame.shape for frame in seen] == [(75, 97, 3)] * 5
        assert abs(np.mean(seen) - np.mean(clip)) < 1.0
        for i, frame in enumerate(seen):
            assert max(range(5), key=lambda j: psnr(frame, clip[j])) == i
        scores.append(np.mean([psnr(a, b) for a, b in zip(seen, clip, strict=True)]))
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 36  # 4:2:0 alone leaves 37 dB of this colourful scene
    assert list(h264([], 23)) == []


def test_h264_refuses_what_it_cannot_do(monkeypatch):
    with pytest.raises(OptionError, match="rate factor of 60"):
        list(h264(frames(1), 60))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DependencyError, match="the package 'av' is not installed"):
        list(h264(frames(1), 23))
