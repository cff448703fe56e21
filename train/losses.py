"""Losses, and `TrainingLoss`, which adds up those that a recipe names.

Restored and sharp are (N, 3, H, W) in [0, 1]; the result is a scalar.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_restore.errors import RecipeError
from train import weights
from train.contrast import LAMBDAS, LAYER_WEIGHTS, contrast, mixture, others_of_batch
from train.networks import stages
from train.position import PositionLoss
from train.recipe import LossRecipe
from train.vgg import VGG, first_of_blocks

HARM_FIELD = 32
"""Side of a field that `harm` judges by itself, in pixels, at least; less in smaller patches."""


def l2(restored: Tensor, sharp: Tensor) -> Tensor:
    """Half the mean squared error (SVDN, Eq. 8)."""
    return 0.5 * (restored - sharp).square().mean()


def mse(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean squared error (LMFN, Eq. 4, there summed over the colours)."""
    return (restored - sharp).square().mean()


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean absolute error (the first term of DRCNet's Eq. 13)."""
    return (restored - sharp).abs().mean()


def charbonnier(restored: Tensor, sharp: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) (Charbonnier et al., ICIP 1994): L1, smooth at zero."""
    return ((restored - sharp).square() + epsilon**2).sqrt().mean()


def log_mse(restored: Tensor, sharp: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over the batch of 10 log10(MSE + floor): minus the PSNR (HINet, Chen et al., 2021).

    Lightly and heavily blurred patches weigh the same, where `l2` is ruled by the heaviest;
    `floor` keeps patches that are as good as perfect (40 dB) from ruling in turn; much above what
    an unblurred patch reaches, it lets the network spoil those.
    """
    return 10 * ((restored - sharp).square().mean(dim=(1, 2, 3)) + floor).log10().mean()


def rms(restored: Tensor, sharp: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean over the batch of sqrt(||d||^2 + epsilon^2): one stage's term of FCN's Eq. 1.

    The norm is divided by the number of elements under the root, so that the size of the patches
    does not weigh; epsilon, which the paper does not have, gives the root a slope at zero.
    """
    return ((restored - sharp).square().mean(dim=(1, 2, 3)) + epsilon**2).sqrt().mean()


def harm(restored: Tensor, blurred: Tensor, sharp: Tensor, sharpness: float = 1e-4) -> Tensor:
    """What the network costs the places that came nearly sharp: ours.

    Mean over fields of about 32x32 of s max(0, after - before) / (before + s)^2, with the mean
    squared errors of the field before and after the network, and s the `sharpness`. Where little
    was wrong, this is the error that was added, in units of s; from there on it falls with the
    square of what was wrong, for who restores a blur must dare to err. In the mean error of a
    patch the losses of such places vanish beside the gains of others.
    """
    height, width = sharp.shape[-2:]
    fields = max(height // HARM_FIELD, 1), max(width // HARM_FIELD, 1)
    before, after = (
        F.adaptive_avg_pool2d((picture - sharp).square().mean(1, keepdim=True), fields)
        for picture in (blurred, restored)
    )
    return (sharpness * F.relu(after - before) / (before + sharpness).square()).mean()


def perceptual(restored: Tensor, sharp: Tensor) -> Tensor:
    """Half the mean squared difference of feature maps (SVDN, Eq. 9): `l2` of features.

    The paper takes "the 12-th layer" of VGG-16 without saying how it counts; the recipe's default
    is layer 12 of `train.vgg.VGG`.
    """
    return l2(restored, sharp)


def pixel_loss(restored: Tensor, sharp: Tensor, recipe: LossRecipe) -> Tensor:
    """The loss that the recipe names as its `kind`."""
    if recipe.kind in ("charbonnier", "rms"):
        rooted = {"charbonnier": charbonnier, "rms": rms}[recipe.kind]
        return rooted(restored, sharp, recipe.epsilon)
    if recipe.kind == "log_mse":
        return log_mse(restored, sharp, recipe.floor)
    return {"l1": l1, "l2": l2, "mse": mse}[recipe.kind](restored, sharp)


class TrustRatio(nn.Module):
    """Sum over the stages of r_s times the stage's loss, with trainable r_s (FCN, Eq. 1).

    The paper keeps r_s between 0 and 1; here by a sigmoid. It names nothing that holds them up, and
    the quickest way to a small sum is to let all r_s go to 0, which stops the training. So they are
    divided by their sum: trust is shared out, and one stage's gain is the others' loss. They start
    equal, which is the plain mean of the stages.

    Eq. 1 counts s from 0 to 4, but the network has four stages, 0 to 3.

    Args:
        count: of stages; 2 or more.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))

    def ratios(self) -> Tensor:
        """(count,) r_s, each between 0 and 1, together 1."""
        r = torch.sigmoid(self.logits)
        return r / r.sum()

    def forward(self, losses: Tensor) -> Tensor:
        """Losses of the stages, (count,) -> a scalar."""
        return (self.ratios() * losses).sum()


def _count_stages(network: nn.Module) -> int:
    """How many pictures the network returns while training: it is asked with an empty one."""
    like = next(network.parameters())
    with torch.no_grad():
        output = network(torch.zeros(1, 3, 64, 64, device=like.device, dtype=like.dtype))
    return len(stages(output))


def _teacher(path: Path) -> nn.Module:
    """The network of a weights file, as it stands."""
    network, _ = weights.load(path)
    return network.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload,no-any-return]


class TrainingLoss(nn.Module):
    """All that a recipe's [loss] asks of the restored picture.

    A network that returns its stages' pictures has the pixel loss on each of them: their mean, or
    shared out by `TrustRatio`, whose ratios are this module's only parameters. The other terms
    look at the last picture alone, which is the restored one. Distillation compares it, by the
    pixel loss, with what a larger, trained network makes of the same blurred picture.

    Args:
        network: that is trained. Some terms hook into it, so copy it for an average before.
        recipe: which terms, and their weights.

    Raises:
        DataError, CardError, ModelError: the VGG's or the teacher's weights cannot be used.
        RecipeError: the network has not what the recipe wants to train.
    """

    def __init__(self, network: nn.Module, recipe: LossRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.trust = self._trust(network) if recipe.trust_ratio else None
        self.position = PositionLoss(network, recipe.margin) if recipe.position else None
        self.contrast_layers = first_of_blocks(recipe.vgg) if recipe.contrast != "none" else ()
        layers = {*self.contrast_layers, *([recipe.perceptual_layer] if recipe.perceptual else [])}
        self.vgg = VGG(recipe.vgg, layers, Path(recipe.vgg_file)) if layers else None
        # In a list: the teacher is neither trained here nor kept in this module's state.
        self._teacher = [_teacher(Path(recipe.teacher_file))] if recipe.distillation else []

    def _trust(self, network: nn.Module) -> TrustRatio:
        count = _count_stages(network)
        if count < 2:
            raise RecipeError(
                f"{type(network).__name__} has a single stage, which needs no trust ratio",
                expected="trust_ratio = false for this network",
                hint="remove 'trust_ratio' from the recipe's [loss]",
            )
        return TrustRatio(count)

    def terms(
        self, output: Tensor | tuple[Tensor, ...], blurred: Tensor, sharp: Tensor, flows: Tensor
    ) -> dict[str, Tensor]:
        """The weighted terms by name; their sum is the loss.

        Args:
            output: of the network's last pass: the restored pictures, (N, 3, H, W), or those of
                all stages, the restored ones last. The loss is in float32 whatever this is.
            blurred, sharp: (N, 3, H, W).
            flows: (N, 2, 2, H, W) pixels, as in `train.blur.Exposure`.
        """
        recipe = self.recipe
        pictures = [picture.float() for picture in stages(output)]
        pixel = torch.stack([pixel_loss(picture, sharp, recipe) for picture in pictures])
        terms = {"pixel": self.trust(pixel) if self.trust else pixel.mean()}
        if recipe.harm:
            terms["harm"] = recipe.harm * harm(pictures[-1], blurred, sharp, recipe.sharpness)
        if self.vgg:
            terms |= self._feature_terms(self.vgg, pictures[-1], blurred, sharp)
        if self.position:
            terms["position"] = recipe.position * self.position(flows)
        for teacher in self._teacher:
            with torch.no_grad():
                taught = teacher.to(blurred.device)(blurred).float()
            terms["distillation"] = recipe.distillation * pixel_loss(pictures[-1], taught, recipe)
        return terms

    def _feature_terms(
        self, vgg: VGG, restored: Tensor, blurred: Tensor, sharp: Tensor
    ) -> dict[str, Tensor]:
        recipe, terms = self.recipe, {}
        ours = vgg(restored)
        with torch.no_grad():
            truth = vgg(sharp)
            if recipe.contrast == "intra":
                others = [
                    truth if weight == 1 else vgg(mixture(blurred, sharp, weight))
                    for weight in LAMBDAS
                ]
            elif recipe.contrast == "extra":
                others = others_of_batch(vgg(blurred))
        if recipe.perceptual:
            layer = recipe.perceptual_layer
            terms["perceptual"] = recipe.perceptual * perceptual(ours[layer], truth[layer])
        if recipe.contrast != "none":
            ratios = [
                weight * contrast(ours[layer], truth[layer], [other[layer] for other in others])
                for weight, layer in zip(LAYER_WEIGHTS, self.contrast_layers, strict=True)
            ]
            terms["contrast"] = recipe.contrast_weight * torch.stack(ratios).sum()
        return terms

    def forward(
        self, output: Tensor | tuple[Tensor, ...], blurred: Tensor, sharp: Tensor, flows: Tensor
    ) -> Tensor:
        """The sum of `terms`."""
        return torch.stack(list(self.terms(output, blurred, sharp, flows).values())).sum()
