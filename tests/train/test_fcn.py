"""FCN: published size, patches, modules against hand-computed values, switches, any frame size."""

import math

import pytest
import torch

from edge_restore.errors import OptionError
from train import trainer
from train.networks import create
from train.networks.fcn import EPSILON, GRIDS, ChannelNorm, QueryKey, merge, split
from train.recipe import parse

NARROW = {"width": 4, "repeats": 1, "raw_repeats": 1}


def parameters(**arguments):
    """Counted without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in create("fcn", **arguments).parameters())


def perturbed(**arguments):
    """A narrow network that is not the identity."""
    torch.manual_seed(0)
    network = create("fcn", **{**NARROW, **arguments})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def test_parameters_match_the_published_count():
    assert abs(parameters() / 20.309e6 - 1) < 0.03


def test_starts_as_the_identity():
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        restored = create("fcn", **NARROW)(image)
    assert len(restored) == 4
    assert all(torch.equal(each, image) for each in restored)


@pytest.mark.parametrize("grid", GRIDS)
def test_split_and_merge_are_inverse(grid):
    images = torch.arange(2 * 3 * 4 * 8.0).view(2, 3, 4, 8)
    patches = split(images, grid)
    rows, columns = grid
    assert patches.shape == (2 * rows * columns, 3, 4 // rows, 8 // columns)
    assert torch.equal(merge(patches, grid), images)
    height, width = patches.shape[2:]
    last = images[1, :, (rows - 1) * height :, (columns - 1) * width :]
    assert torch.equal(patches[-1], last)
    assert torch.equal(patches[columns - 1], images[0, :, :height, (columns - 1) * width :])


def test_the_patches_of_a_stage_run_as_one_batch():
    network = perturbed()
    seen = []
    for stage in network.stages:
        stage.query_key.register_forward_hook(lambda _, i, __: seen.append(tuple(i[1].shape)))
    with torch.no_grad():
        network(torch.rand(3, 3, 8, 16))
    assert seen == [(24, 4, 4, 4), (12, 4, 4, 8), (6, 4, 4, 16), (3, 4, 8, 16)]


def test_a_stages_patches_do_not_see_each_other():
    network = perturbed().train()
    image = torch.rand(1, 3, 16, 32)
    other = image.clone()
    other[..., :8, :8] = 1 - other[..., :8, :8]  # the first of stage 0's eight patches
    with torch.no_grad():
        pairs = zip(network(image), network(other), strict=True)
        changed = [(a - b).abs().amax((0, 1)) > 1e-6 for a, b in pairs]
    assert changed[0][:8, :8].any()
    assert not changed[0][8:].any() and not changed[0][:, 8:].any()
    assert changed[1][:8, 8:16].any()  # the same patch of stage 1
    assert not changed[1][8:].any() and not changed[1][:, 16:].any()
    assert changed[2][:8, 16:].any()
    assert not changed[2][8:].any()
    assert changed[3][8:].any()


def test_channel_norm_by_hand():
    layer = ChannelNorm(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1))
        layer.bias.copy_(torch.tensor([0.5, 0.0]).view(2, 1, 1))
        found = layer(torch.tensor([1.0, 5.0]).view(1, 2, 1, 1)).flatten().tolist()
    unit = 2 / math.sqrt(4 + EPSILON)  # mean 3, variance 4
    assert found == pytest.approx([0.5 - 2 * unit, 3 * unit], abs=1e-6)


def test_query_and_key_by_hand():
    layer = QueryKey(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for conv in (layer.query[0], layer.query[2]):
            conv.weight.fill_(2)
        for conv in (layer.key[0], layer.key[1], layer.key[3]):
            conv.weight[0, 0, 1, 1] = 2
        processed = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)  # mean 1/4
        found = layer(processed, torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)).flatten().tolist()
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    key = [2 * scale * 4, 2 * scale * alpha * (math.exp(-4) - 1)]
    assert found == pytest.approx([k / (1 + math.exp(-1)) for k in key], rel=1e-5)


def test_half_precision_is_averaged_in_float32():
    layer = QueryKey(1).half()
    seen = []
    layer.query.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    layer(torch.full((1, 1, 300, 300), 8.0).half(), torch.zeros(1, 1, 2, 2).half())
    assert (seen[0].item(), seen[0].dtype) == (8, torch.float16)


@pytest.mark.parametrize("module", ["pb", "efem", "msam", "rim"])
def test_each_module_of_table_2_can_be_left_out(module):
    assert parameters(**{module: False}) < parameters()
    full, less = perturbed(), perturbed(**{module: False})
    theirs = full.state_dict()
    assert less.state_dict().keys() < theirs.keys()
    less.load_state_dict({name: theirs[name] for name in less.state_dict()})
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert (full(image) - less(image)).abs().max() > 1e-5


def test_the_number_of_stages_of_table_2():
    counts = [parameters(stages=n) for n in (1, 2, 3, 4)]
    assert counts == sorted(set(counts))
    image = torch.rand(1, 3, 16, 16)
    for number in (1, 2, 3):
        network = perturbed(stages=number)
        assert network.grids == GRIDS[-number:]
        with torch.no_grad():
            restored = network(image)
            images = network.train()(image)
        assert len(images) == number
        assert torch.equal(images[-1], restored)
    with pytest.raises(OptionError, match="stages is 5, not 1 to 4"):
        create("fcn", stages=5)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 4), (16, 16)])
def test_any_size_comes_back_at_that_size(size):
    network = perturbed()
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        restored = network(image)
        images = network.train()(image)
    assert restored.shape == image.shape
    assert [i.shape for i in images] == [image.shape] * 4
    assert torch.equal(images[-1], restored)
    assert restored.isfinite().all()


def test_an_odd_size_is_padded_by_reflection_and_cropped():
    network = perturbed()
    image = torch.rand(1, 3, 13, 15)
    padded = torch.nn.functional.pad(image, (0, 1, 0, 3), mode="reflect")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., :13, :15])


def test_images_of_a_batch_do_not_meet():
    network = perturbed()
    images = torch.rand(3, 3, 8, 24)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-5


def test_gradients_reach_every_parameter():
    # Wide enough that no query's ReLU is shut in all of its channels.
    network = perturbed(width=16).train()
    sum(i.square().sum() for i in network(torch.rand(1, 3, 16, 16))).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_learns_four_patches():
    torch.manual_seed(0)
    sharp = torch.rand(4, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    blurred = torch.nn.functional.avg_pool2d(sharp, (1, 5), 1, (0, 2), count_include_pad=False)
    network = create("fcn", width=8, repeats=1, raw_repeats=1)
    adam = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(40):
        loss = sum((i - sharp).abs().mean() for i in network(blurred))
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        after = (network.eval()(blurred) - sharp).square().mean()
    gain = 10 * math.log10((blurred - sharp).square().mean() / after)
    assert gain > 1


def test_the_trainer_trains_every_stage(pack, tmp_path):
    recipe = parse(
        {
            "network": "fcn",
            "arguments": NARROW,
            "data": {"patch": 16, "batch": 2},
            "optimiser": {"steps": 2, "ema": 0.0},
            "loss": {"kind": "charbonnier"},
            "validation": {"every": 2, "patches": 1, "size": 24},
        }
    )
    outcome = trainer.train(recipe, pack, tmp_path, trainer.TrainOptions(torch.device("cpu")))
    assert outcome.finished
    for stage in range(4):  # only its own image's loss moves each in the first step
        assert outcome.weights[f"stages.{stage}.residual.weight"].abs().max() > 1e-4
