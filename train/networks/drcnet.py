"""DRCNet: dynamic image restoration contrastive network (Li, Shen, Mi, Li, ECCV 2022).

Fig. 1 and section 3 give the blocks, Table 4 their parameters; where both are silent the layout was
chosen so that the published 18.9 M hold: two UNets of four levels as in HINet (Chen et al., 2021),
linked as in MPRNet (Zamir et al., 2021). The contrastive losses (section 3.3) are no part of it.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.networks.padding import crop, pad_to_multiple

LEVELS = 4
SLOPE = 0.2
"""Of the LeakyReLUs. The paper does not give it; HINet's."""

EPSILON = 1e-5
"""Of Eq. (6). The paper calls it "a small constant"; instance normalisation's."""


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def normalise_inside(x: Tensor, mask: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Standardise each channel inside the mask; outside, `x` stays (Eq. 5-7, without gamma, beta).

    Eq. (6) as printed is no variance: the masked mean of squared differences is used. Eq. (7) as
    printed says nothing of the pixels outside. A mask without a pixel changes nothing.

    Args:
        x: (N, C, H, W).
        mask: (N, 1, H, W), 0 or 1.
        epsilon: added to the variance.

    Returns:
        float32, because the sums over H * W exceed what 16 bits hold.
    """
    x, mask = x.float(), mask.float()
    inside = mask.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (x * mask).sum((2, 3), keepdim=True) / inside
    centred = (x - mean) * mask
    variance = centred.square().sum((2, 3), keepdim=True) / inside
    return centred / (variance + epsilon).sqrt() + x * (1 - mask)


def attend(x: Tensor, delta: float) -> Tensor:
    """x * sigmoid(1 / E), the energy of each pixel among its channel's (Eq. 8-9; SimAM, ICML 2021).

    1 / e = (x - mean)^2 / (4 (variance + delta)) + 1/2. The variance divides by N = H * W as the
    paper prints it, not by N - 1 as SimAM's code does. (N, C, H, W) -> the same shape and type.
    """
    wide = x.float()  # sums over H * W, see `normalise_inside`
    square = (wide - wide.mean((2, 3), keepdim=True)).square()
    variance = square.mean((2, 3), keepdim=True)
    return x * torch.sigmoid(square / (4 * (variance + delta)) + 0.5).to(x.dtype)


class MaskedNormalisation(nn.Module):
    """The adaptive feature normalisation of the spatial filter branch (Eq. 2-7).

    The kernels' sizes are not in the text. Fig. 1 draws 3x3 for the response map too; 7x7 is the
    usual one for a map from a channel maximum and mean (CBAM, Woo et al., 2018). gamma and beta are
    one map for all channels each (Eq. 4: R^{1xHxW}, "expanded along the channel dimension").

    Args:
        threshold: t, above which a pixel counts as degraded.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.response = _conv(2, 1, 7)
        self.gamma, self.beta = _conv(1, 1), _conv(1, 1)

    def response_map(self, x: Tensor) -> Tensor:
        """Eq. (2)-(3): (N, C, H, W) -> (N, 1, H, W) in (0, 1)."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.response(pooled))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        response = self.response_map(x)
        mask = (response > self.threshold).to(response.dtype)
        y: Tensor = self.gamma(response) * normalise_inside(x, mask) + self.beta(response)
        return y.to(x.dtype)


class DynamicFilter(nn.Module):
    """The DFR module (section 3.2, Fig. 1): spatial filter * energy-based attention + identity.

    A branch that is switched off is left out of the product or the sum. Without the spatial filter
    its convolution, and the attention's, are 1x1: so the parameters agree with Table 4's rows
    "base" and "base+EA". The text calls that baseline's blocks ResBlocks, but two 3x3 convolutions
    a block would make 22 M of the table's 12.7 M.

    Args:
        inputs: channels.
        outputs: channels, even.
        normalised: half of the filtered channels go through `MaskedNormalisation`, the others keep
            the context. The paper divides them "randomly"; here it is the first half.
        others: as of `DRCNet`.
    """

    def __init__(
        self, inputs: int, outputs: int, *, normalised: bool, spatial_filter: bool,
        energy_attention: bool, identity_branch: bool, threshold: float, delta: float,
    ) -> None:  # fmt: skip
        super().__init__()
        kernel = 3 if spatial_filter else 1
        self.delta = delta
        self.filter = _conv(inputs, outputs, kernel)
        use = spatial_filter and normalised
        self.normalisation = MaskedNormalisation(threshold) if use else None
        self.attention = _conv(inputs, outputs, kernel) if energy_attention else None
        self.identity = _conv(inputs, outputs, 1) if identity_branch else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        y: Tensor = self.filter(x)
        if self.normalisation is not None:
            degraded, kept = y.chunk(2, dim=1)
            y = torch.cat([self.normalisation(degraded), kept], dim=1)
        y = F.leaky_relu(y, SLOPE)
        if self.attention is not None:
            y = y * F.leaky_relu(attend(self.attention(x), self.delta), SLOPE)
        return y if self.identity is None else y + self.identity(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with LeakyReLU, plus a 1x1 convolution of the input (the decoder's)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, outputs), nn.LeakyReLU(SLOPE), _conv(outputs, outputs),
            nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        self.identity = _conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        y: Tensor = self.identity(x) + self.body(x)
        return y


class UNet(nn.Module):
    """One sub-network: DFR modules down, residual blocks up (section 3.1, Fig. 1).

    The paper counts four down-samplings; Fig. 1 draws four levels, between which there are three.

    Args:
        width: channels of the first level; each level doubles them.
        fused: takes the features of an earlier sub-network: cross-stage feature fusion (CSFF,
            MPRNet), a 3x3 convolution of its encoder's and one of its decoder's at every level but
            the deepest.
        normalised_levels: of which the DFR modules normalise.
        block: further arguments of `DynamicFilter`.
    """

    def __init__(
        self, width: int, *, fused: bool, normalised_levels: Collection[int], **block: object
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(LEVELS)]
        above = widths[:-1]
        self.encoder = nn.ModuleList(
            DynamicFilter(i, o, normalised=level in normalised_levels, **block)  # type: ignore[arg-type]
            for level, (i, o) in enumerate(zip([width, *above], widths, strict=True))
        )
        self.down = nn.ModuleList(nn.Conv2d(w, w, 4, 2, 1) for w in above)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in above)
        self.skip = nn.ModuleList(_conv(w, w) for w in above)
        self.decoder = nn.ModuleList(ResidualBlock(2 * w, w) for w in above)
        fusions = above if fused else []
        self.from_encoder = nn.ModuleList(_conv(w, w) for w in fusions)
        self.from_decoder = nn.ModuleList(_conv(w, w) for w in fusions)

    def forward(
        self, x: Tensor, earlier: tuple[list[Tensor], list[Tensor]] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """(N, width, H, W), H and W multiples of 8 -> features of encoder and decoder.

        Each list has one tensor per level but the deepest, the largest first:
        (N, width << level, H >> level, W >> level). `earlier` is what another sub-network gave.
        """
        encoded: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = self.encoder[level](x)
            if earlier is not None:
                x = x + self.from_encoder[level](earlier[0][level])
                x = x + self.from_decoder[level](earlier[1][level])
            encoded.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        decoded: list[Tensor] = []
        for level in reversed(range(LEVELS - 1)):
            x = torch.cat([self.up[level](x), self.skip[level](encoded[level])], dim=1)
            x = self.decoder[level](x)
            decoded.insert(0, x)
        return encoded, decoded


class SupervisedAttention(nn.Module):
    """SAM of MPRNet (section 3.1, green line of Fig. 1): the stage's image gates its features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feature, self.residual = _conv(width, width), _conv(width, 3)
        self.gate = _conv(3, width)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, width, H, W) and the input image -> features for the next stage, restored image."""
        restored: Tensor = image + self.residual(x)
        return self.feature(x) * torch.sigmoid(self.gate(restored)) + x, restored


class DRCNet(nn.Module):
    """Two sub-networks, each of which adds its residual to the input image (Fig. 1).

    Args:
        spatial_filter: the DFR modules' spatial filter branch (Table 4, "SF").
        energy_attention: their energy-based attention branch (Table 4, "EA").
        identity_branch: their identity branch (Table 4, "identity branch"). With all three off
            the network is the table's "base", with all three on "base+DFR".
        width: channels of the first level, even. The paper does not give it; 64 makes 18.97 M.
        normalised_levels: levels, 0 the largest, at which half of the channels are normalised.
            The paper does not give them; its published code names the two deepest.
        threshold: t of the mask; the paper's (its published code has 0.8).
        delta: of Eq. (8); the paper's (its published code has 1e-4).

    Table 4's other column, CR, changes the loss, not the network.
    """

    name = "drcnet"
    multiple = 8

    def __init__(
        self, *, spatial_filter: bool = True, energy_attention: bool = True,
        identity_branch: bool = True, width: int = 64,
        normalised_levels: Collection[int] = (2, 3), threshold: float = 0.75,
        delta: float = 1e-6,
    ) -> None:  # fmt: skip
        super().__init__()
        block = {
            "spatial_filter": spatial_filter, "energy_attention": energy_attention,
            "identity_branch": identity_branch, "threshold": threshold, "delta": delta,
        }  # fmt: skip
        self.stem1, self.stem2 = _conv(3, width), _conv(3, width)
        self.stage1 = UNet(width, fused=False, normalised_levels=normalised_levels, **block)
        self.attention = SupervisedAttention(width)
        self.fusion = _conv(2 * width, width, 1)
        self.stage2 = UNet(width, fused=True, normalised_levels=normalised_levels, **block)
        self.tail = _conv(width, 3)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Both stages start as the identity, their features at the size of the image's.

        The paper does not give it. A DFR module multiplies two branches, so features that are too
        large grow with every level, and ones that are too small vanish from the product.
        """
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                continue
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            last = name.rsplit(".", 1)[-1]
            # Convolutions before a LeakyReLU get its gain; the others keep the variance.
            slope = SLOPE if last in ("filter", "attention") or ".body." in name else 1.0
            nn.init.kaiming_normal_(module.weight, a=slope)
            if isinstance(module, nn.ConvTranspose2d):
                # Counted for it are the four taps of each of the outputs, which are half as many
                # as the inputs; one tap of each input meets at an output pixel.
                module.weight.mul_(2**0.5)
            elif last == "gamma":
                nn.init.ones_(module.bias)  # type: ignore[arg-type]
                module.weight.mul_(0.1)
            elif last == "beta" or ".from_" in name:
                module.weight.mul_(0.1)
            elif name.endswith("body.2"):
                module.weight.mul_(0.5)
            elif name in ("tail", "attention.residual"):
                nn.init.zeros_(module.weight)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """RGB in [0, 1], (N, 3, H, W), any H and W -> restored RGB of the same shape, unclamped.

        In train mode: both stages' images, the second last.
        """
        padded = pad_to_multiple(image, self.multiple)
        features = self.stage1(self.stem1(padded))
        linked, first = self.attention(features[1][0], padded)
        x = self.fusion(torch.cat([self.stem2(padded), linked], dim=1))
        decoded = self.stage2(x, features)[1]
        second = padded + self.tail(decoded[0])
        if not self.training:
            return crop(second, image)
        return crop(first, image), crop(second, image)
