"""Sampling points against the layers themselves, and the picture of them."""

import cv2
import numpy as np
import pytest
import torch

from edge_restore.media.images import read_image
from edge_restore.models.cards import FileDigest, WeightsCard, card_path
from edge_restore.report import drawing
from edge_restore.storage.files import sha256
from train import explain, sampling
from train.__main__ import main
from train.networks import create
from train.networks.svdn import SVDN, TAPS


@pytest.fixture(scope="module")
def network():
    """An SVDN whose offsets are neither zero nor whole."""
    torch.manual_seed(0)
    made = create("svdn", width=8).eval()
    with torch.no_grad():
        for layer in (made.neck.ow1, made.neck.ow2[3]):
            layer.weight.normal_(0, 0.05)
            layer.bias.normal_(0, 0.4)
    return made


def write_weights(network, path, **arguments):
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(path))
    WeightsCard(
        network="svdn", arguments={"width": 8, **arguments}, parameters=1, multiple=2,
        weights=FileDigest(path.name, sha256(path), path.stat().st_size), recipe={},
        data={"pack_sha256": "0" * 64, "files": []},
        training={"steps": 0, "minutes": 0.0, "machine": "none", "torch": torch.__version__},
        scores=(), licence="Apache-2.0", command="written by a test",
    ).write(card_path(path))  # fmt: skip
    return path


def test_composed_points_are_where_the_two_layers_read(network):
    """The gradient of the neck's output falls on exactly those features that the points touch."""
    image = torch.rand(1, 3, 60, 64)
    result = sampling.sample(network, image)
    row, column = 14, 17
    blur, content = network.features(image)
    content = content.detach().requires_grad_()
    network.neck(blur.detach(), content)[0, :, row, column].sum().backward()
    read = content.grad.abs().sum(dim=(0, 1)) > 0
    points = sampling.composed(result, row, column)
    assert points.places.shape == (TAPS * TAPS, 2)
    places = (points.places - 0.5) / 2  # back to features
    assert read.sum() > 100
    # every feature that is read lies within a pixel or two of a point: bilinear corners, and the
    # first layer's points between pixels are a mean of those at the corners
    for y, x in read.nonzero():
        distance = (places - torch.tensor((y, x))).abs().amax(dim=1).min()
        assert distance < 2
    inside = (places >= 1).all(dim=1) & (places <= torch.tensor((28.0, 30.0))).all(dim=1)
    corners = places[inside].floor().long()
    touched = torch.stack([read[y : y + 2, x : x + 2].any() for y, x in corners.tolist()])
    assert touched.float().mean() > 0.8


def test_without_offsets_the_points_are_the_kernels(network):
    plain = create("svdn", width=8)  # offsets start at zero, masks at one half
    result = sampling.sample(plain, torch.rand(1, 3, 40, 44))
    first = sampling.first_layer(result, 9, 11)
    assert torch.allclose(first.places[0], torch.tensor((2 * 7 + 0.5, 2 * 9 + 0.5)))
    assert torch.allclose(first.places[12], torch.tensor((18.5, 22.5)))
    assert torch.allclose(first.masks, torch.full((25,), 0.5))
    both = sampling.composed(result, 9, 11)
    assert torch.allclose(both.masks, torch.full((625,), 0.25), atol=1e-5)
    assert torch.allclose(both.places.amin(dim=0), torch.tensor((10.5, 14.5)), atol=1e-4)
    assert torch.allclose(both.places.mean(dim=0), torch.tensor((18.5, 22.5)), atol=1e-4)
    assert torch.allclose(sampling.spread(result), torch.full((20, 22), 4.0))
    # the second layer reads zeros beyond the border
    corner = sampling.composed(result, 0, 0)
    assert (corner.masks == 0).sum() > 0


def test_longer_motion_is_a_larger_spread(network):
    """Points laid along a motion, as training begins, spread with its length."""
    made = create("svdn", width=8)
    spreads = []
    for length in (0.0, 8.0, 16.0):
        made.neck.lay_points(torch.zeros(2, 8), torch.tensor((0.0, length)))
        spreads.append(
            float(sampling.spread(sampling.sample(made, torch.rand(1, 3, 32, 32))).mean())
        )
    assert spreads[0] < spreads[1] < spreads[2]


@pytest.mark.parametrize("size", [(66, 90), (91, 45)])
def test_picture(network, size, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image, out = tmp_path / "photo.png", tmp_path / "out.png"
    cv2.imwrite(str(image), pixels)
    file = write_weights(network, tmp_path / "w.safetensors")
    arguments = ["explain", str(image), "--weights", str(file), "--out", str(out), "--columns", "3"]
    assert main(arguments) == 0
    sheet = read_image(out)
    scale = round(1100 / max(size))
    panel = sheet[40 : 40 + size[0] * scale, 16 : 16 + size[1] * scale]
    for colour in (explain._FIRST, explain._CENTRE):
        near = np.abs(panel.astype(int) - colour).max(axis=2) < 40
        assert near.sum() > 20
    assert (sheet[:, -10:] == drawing.PAPER).all()


def test_places_are_spread_evenly():
    places = explain.places(720, 1280, 6)
    assert len(places) == 6 * 3
    assert places[0] == (60, 53)
    assert places[-1] == (300, 586)
    assert explain.places(33, 400, 3) == [(8, 33), (8, 100), (8, 166)]


def test_what_cannot_be_explained(network, tmp_path, capsys):
    image, out = tmp_path / "photo.png", tmp_path / "out.png"
    cv2.imwrite(str(image), np.zeros((40, 40, 3), np.uint8))
    good = write_weights(network, tmp_path / "w.safetensors")
    plain = create("svdn", width=8, feature_deconvolution=False)
    plain = write_weights(plain, tmp_path / "plain.safetensors", feature_deconvolution=False)
    other = write_weights(SVDN(width=4), tmp_path / "other.safetensors")
    cv2.imwrite(str(tmp_path / "tiny.png"), np.zeros((20, 40, 3), np.uint8))
    cases = [
        ([image, "--weights", plain], "which has no sampling points"),
        ([image, "--weights", other], "does not hold weights of svdn"),
        ([image, "--weights", tmp_path / "none.safetensors"], "no weights at"),
        ([tmp_path / "none.png", "--weights", good], "does not exist"),
        ([tmp_path / "tiny.png", "--weights", good], "is 40x20"),
    ]
    for arguments, says in cases:
        assert main(["explain", *map(str, arguments), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert says in error and "hint:" in error and "Traceback" not in error
        assert not out.exists()
