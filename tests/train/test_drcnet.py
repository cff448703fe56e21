"""DRCNet: published sizes, the equations against hand-computed values, switches, any frame size."""

import math

import pytest
import torch

from train import trainer
from train.networks import create, stages
from train.networks.drcnet import MaskedNormalisation, attend, normalise_inside
from train.recipe import parse

WIDTH = 4


def parameters(**arguments):
    """Counted without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in create("drcnet", **arguments).parameters())


def perturbed(**arguments):
    """A narrow network that is not the identity."""
    torch.manual_seed(0)
    network = create("drcnet", **{"width": WIDTH, **arguments})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize(
    ("branches", "published"),
    [("", 12.7), ("S", 15.4), ("E", 13.1), ("SI", 15.8), ("SE", 18.6), ("SEI", 18.9)],
)
def test_parameters_are_those_of_table_4(branches, published):
    count = parameters(
        spatial_filter="S" in branches,
        energy_attention="E" in branches,
        identity_branch="I" in branches,
    )
    assert abs(count / (published * 1e6) - 1) < 0.03


def test_starts_as_the_identity():
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        for restored in create("drcnet", width=WIDTH)(image):
            assert torch.equal(restored, image)


def test_masked_normalisation_by_hand():
    x = torch.tensor([1.0, 3.0, 5.0, 100.0]).view(1, 1, 2, 2)
    x = torch.cat([x, -x], dim=1)
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    # Inside: mean 3, variance (4 + 0 + 4) / 3; with an epsilon of 1/3 the deviation is sqrt(3).
    side = 2 / math.sqrt(3)
    expected = torch.tensor([-side, 0, side, 100])
    found = normalise_inside(x, mask, epsilon=1 / 3)
    assert found[0, 0].flatten().tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert found[0, 1].flatten().tolist() == pytest.approx((-expected).tolist(), abs=1e-6)


def test_an_empty_mask_changes_nothing_and_half_precision_is_summed_in_float32():
    x = torch.full((1, 2, 300, 300), 8.0, dtype=torch.float16)  # 720,000 is no FP16
    assert torch.equal(normalise_inside(x, torch.zeros(1, 1, 300, 300)), x.float())
    found = normalise_inside(x, torch.ones(1, 1, 300, 300))
    assert found.abs().max() < 0.01
    attended = attend(x, 1e-6)
    assert attended.dtype == torch.float16
    assert attended.float().sub(8 / (1 + math.exp(-0.5))).abs().max() < 0.01


def test_energy_attention_by_hand():
    x = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(1, 1, 2, 2)
    # Mean 3, variance (9 + 1 + 1 + 9) / 4 = 5; with delta = 1, 4 (5 + 1) = 24.
    near, far = (1 / (1 + math.exp(-(square / 24 + 0.5))) for square in (1, 9))
    found = attend(x, delta=1.0).flatten().tolist()
    assert found == pytest.approx([0, 2 * near, 4 * near, 6 * far], abs=1e-6)


def test_the_threshold_decides_which_pixels_are_normalised():
    torch.manual_seed(0)
    x = torch.randn(1, 6, 12, 12)
    layer = MaskedNormalisation(threshold=2.0)  # no response is that great
    for conv, bias in ((layer.gamma, 1.0), (layer.beta, 0.0)):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.constant_(conv.bias, bias)
    with torch.no_grad():
        assert torch.equal(layer(x), x)
        layer.threshold = 0.0  # every response is greater
        everywhere = layer(x)
        assert everywhere.mean((2, 3)).abs().max() < 1e-5
        assert (everywhere.var((2, 3), unbiased=False) - 1).abs().max() < 1e-4
        layer.threshold = float(layer.response_map(x).median())
        inside = layer.response_map(x)[0, 0] > layer.threshold
        assert 0 < inside.sum() < inside.numel()
        part = layer(x)[0]
        assert torch.equal(part[:, ~inside], x[0][:, ~inside])
        assert part[:, inside].mean(1).abs().max() < 1e-5


def test_half_of_the_channels_are_normalised_at_the_named_levels():
    network = perturbed(normalised_levels=[1])
    names = [n for n, m in network.named_modules() if isinstance(m, MaskedNormalisation)]
    assert names == ["stage1.encoder.1.normalisation", "stage2.encoder.1.normalisation"]
    seen = []
    block = network.stage1.encoder[1]
    block.normalisation.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    with torch.no_grad():
        block(torch.rand(1, WIDTH, 8, 8))
    assert seen == [(1, WIDTH, 8, 8)]  # of 2 * WIDTH


@pytest.mark.parametrize("branch", ["spatial_filter", "energy_attention", "identity_branch"])
def test_each_switch_of_table_4_changes_the_output(branch):
    full, less = perturbed(), perturbed(**{branch: False})
    image = torch.rand(1, 3, 16, 16)
    less.load_state_dict(
        {k: full.state_dict().get(k, v) if v.shape == full.state_dict()[k].shape else v
         for k, v in less.state_dict().items()}
    )  # fmt: skip
    with torch.no_grad():
        assert (full(image) - less(image)).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (9, 8), (16, 16)])
def test_any_size_comes_back_at_that_size(size):
    network = perturbed()
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        restored = network(image)
        both = network.train()(image)
    assert restored.shape == image.shape
    assert [i.shape for i in both] == [image.shape] * 2
    assert torch.equal(both[-1], restored)
    assert restored.isfinite().all()
    assert stages(restored) == (restored,)
    assert stages(both) is both


def test_an_odd_size_is_padded_by_reflection_and_cropped():
    network = perturbed()
    image = torch.rand(1, 3, 13, 15)
    padded = torch.nn.functional.pad(image, (0, 1, 0, 3), mode="reflect")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., :13, :15])


def test_images_of_a_batch_do_not_meet():
    network = perturbed()
    images = torch.rand(3, 3, 16, 24)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-5


def test_gradients_reach_every_parameter():
    network = perturbed().train()
    sum(i.square().sum() for i in network(torch.rand(1, 3, 32, 32))).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_the_first_stages_link_to_the_second():
    """Without stage 1's features (CSFF) or its image (SAM) stage 2 gives something else."""
    network = perturbed()
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = network(image)
        for part in ("from_encoder", "from_decoder"):
            changed = perturbed()
            for conv in getattr(changed.stage2, part):
                conv.weight.zero_()
            assert (changed(image) - before).abs().max() > 1e-5
        network.attention.gate.bias.add_(5)
        assert (network(image) - before).abs().max() > 1e-5


def test_learns_four_patches():
    torch.manual_seed(0)
    sharp = torch.rand(4, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    blurred = torch.nn.functional.avg_pool2d(sharp, (1, 5), 1, (0, 2), count_include_pad=False)
    network = create("drcnet", width=WIDTH)
    adam = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(40):
        loss = sum((i - sharp).abs().mean() for i in network(blurred))
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        after = (network.eval()(blurred) - sharp).square().mean()
    gain = 10 * math.log10((blurred - sharp).square().mean() / after)
    assert gain > 3


def test_the_trainer_trains_both_stages(pack, tmp_path):
    recipe = parse(
        {
            "network": "drcnet",
            "arguments": {"width": WIDTH, "normalised_levels": [2, 3]},
            "data": {"patch": 16, "batch": 2},
            "optimiser": {"steps": 2, "ema": 0.0},
            "loss": {"kind": "l1"},
            "validation": {"every": 2, "patches": 1, "size": 24},
        }
    )
    outcome = trainer.train(recipe, pack, tmp_path, trainer.TrainOptions(torch.device("cpu")))
    assert outcome.finished
    # Only the loss of stage 1's own image moves this away from zero in the first step.
    assert outcome.weights["attention.residual.weight"].abs().max() > 1e-4
    assert outcome.weights["tail.weight"].abs().max() > 1e-4
