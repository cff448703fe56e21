"""LMFN: lightweight multi-information fusion network (Zhang et al., 2021).

An encoder that fuses four small scales (MSHF, section 3.2) and a decoder of feature distillation
blocks with two kinds of attention (MFFD, section 3.3). The paper gives the blocks, not their
widths; the layout below was chosen so that its sizes hold: 1.24 M parameters (Table 1: 1.25),
1.20 M without ALFM and ACFM (Table 3), 0.03 M more for each further RFDB (Table 4).

The paper does not give the scale at which the fused features leave the encoder, but for "small".
Here it is a quarter of the picture's sides: the distillation blocks, the attention over layers and
all the upsampling but its last layer then see a sixteenth of the pixels. At half scale they would
cost four times as much; at an eighth 64 channels could not hold the 192 values of an 8x8 cell.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.networks.padding import crop, pad_to_multiple

RFDB_WIDTH = 28
"""Channels of the distillation blocks: 0.032 M parameters for each (Table 4)."""

PLAIN_WIDTH = 152
"""Channels of the residual blocks that stand for RFDBs in Table 3's ablation: 2.9 M in all."""

SLOPE = 0.1
"""Of the LeakyReLUs; EDVR's. The paper does not give its activations."""


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def _activation() -> nn.LeakyReLU:
    return nn.LeakyReLU(SLOPE)


def _upsample(inputs: int, outputs: int) -> nn.Sequential:
    """(N, inputs, H, W) -> (N, outputs, 2H, 2W), by a convolution and PixelShuffle."""
    return nn.Sequential(_conv(inputs, 4 * outputs), nn.PixelShuffle(2), _activation())


class PlainResidualBlock(nn.Module):
    """Two 3x3 convolutions without normalisation, ReLU between, plus the input (Nah et al., 2017).

    SVDN's has PReLU and dilation; it is not the same layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        y: Tensor = self.body(x)
        return x + y


class MSHF(nn.Module):
    """Multi-scale hierarchical fusion, the encoder (section 3.2).

    A 3x3 convolution gives f0. Four stride-2 down blocks (EDVR's: a 3x3 convolution), each with a
    residual block after it, give f1..f4 at 1/2 to 1/16. From f4 on, features are upsampled and
    added to their finer neighbours up to 1/4; as in EDVR's pre-deblurring, a residual block follows
    each sum. The paper does not say how features are upsampled; here by PixelShuffle.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_conv(3, width), _activation())
        self.down = nn.ModuleList(
            nn.Sequential(_conv(width, width, stride=2), _activation(), PlainResidualBlock(width))
            for _ in range(4)
        )
        self.up = nn.ModuleList(_upsample(width, width) for _ in range(2))
        self.fuse = nn.ModuleList(PlainResidualBlock(width) for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W), sides multiples of 16 -> the fused features, (N, width, H/4, W/4)."""
        x = self.first(image)
        scales = []
        for down in self.down:
            x = down(x)
            scales.append(x)
        for up, fuse, finer in zip(self.up, self.fuse, scales[2:0:-1], strict=True):
            x = fuse(finer + up(x))
        return x  # type: ignore[no-any-return]


class PlainEncoder(nn.Module):
    """Table 3's encoder without MSHF: stride-2 convolutions and residual blocks, no fusion.

    "The stride of convolution is set as 2 and two residual models are applied": two at each scale.
    The paper does not give widths; with 128 channels the network has the published 1.8 M.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 2 * width
        self.first = nn.Sequential(_conv(3, width), _activation())
        self.to_half = self._down(width, wide)
        self.to_quarter = self._down(wide, wide)
        self.narrow = _conv(wide, width)

    @staticmethod
    def _down(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            _conv(inputs, outputs, stride=2),
            _activation(),
            PlainResidualBlock(outputs),
            PlainResidualBlock(outputs),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W), sides multiples of 4 -> (N, width, H/4, W/4)."""
        return self.narrow(self.to_quarter(self.to_half(self.first(image))))  # type: ignore[no-any-return]


class ESA(nn.Module):
    """Enhanced spatial attention (Liu et al., RFDN, 2020; there from RFANet): a map in (0, 1).

    A quarter of the channels; stride 2, then a 7x7 stride-3 maximum, give it its wide view. Both
    are padded, which RFDN's are not: they must not vanish on small pictures. LeakyReLU in place of
    its ReLU, because so few channels must not die.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, width // 4)
        self.squeeze = _conv(width, narrow, 1)
        self.stride = _conv(narrow, narrow, stride=2)
        self.pool = nn.MaxPool2d(7, stride=3, padding=3)
        self.look = nn.Sequential(
            _conv(narrow, narrow), _activation(), _conv(narrow, narrow), _activation(),
            _conv(narrow, narrow),
        )  # fmt: skip
        self.beside = _conv(narrow, narrow, 1)
        self.expand = _conv(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> x times its map, the same shape."""
        narrow = self.squeeze(x)
        wide_view = self.look(self.pool(self.stride(narrow)))
        wide_view = F.interpolate(
            wide_view, size=x.shape[-2:], mode="bilinear", align_corners=False
        )
        return x * torch.sigmoid(self.expand(wide_view + self.beside(narrow)))


class RFDB(nn.Module):
    """Residual feature distillation block (Liu et al., RFDN, 2020, Fig. 2; here section 3.3.1).

    Three times a 1x1 convolution distils half the channels and a shallow residual block (one 3x3
    convolution plus its input) refines; a 3x3 convolution distils the rest. A 1x1 convolution joins
    the four parts, ESA weighs them, and the input is added.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.distil = nn.ModuleList(_conv(width, half, 1) for _ in range(3))
        self.refine = nn.ModuleList(_conv(width, width) for _ in range(3))
        self.last = _conv(width, half)
        self.join = _conv(4 * half, width, 1)
        self.attention = ESA(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        parts, rest = [], x
        for distil, refine in zip(self.distil, self.refine, strict=True):
            parts.append(F.leaky_relu(distil(rest), SLOPE))
            rest = F.leaky_relu(rest + refine(rest), SLOPE)
        parts.append(F.leaky_relu(self.last(rest), SLOPE))
        attended: Tensor = self.attention(self.join(torch.cat(parts, dim=1)))
        return x + attended


class ALFM(nn.Module):
    """Attention over the channels of all layers (section 3.3.2, Eq. 1 and 2), theta from 0.

    m = softmax(f f^T), f as a matrix of NC x HW; output = theta * m f + f.

    The product is divided by HW, which the paper does not do: what was learned on small patches
    holds for large pictures only if the entries are means. The division comes before the product,
    1/sqrt(HW) on either side, because in FP16 a sum over HW would overflow at 65504, which 57,600
    pixels of 1.07 reach. Its rounding would still be lost in an FP16 accumulator, so in an FP16
    graph this product stays FP32 (`export.precision`, "products that a softmax takes").
    """

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, NC, H, W) -> the same shape."""
        rows = x.flatten(2)
        scaled = rows * (x.shape[2] ** -0.5 * x.shape[3] ** -0.5)
        attention = torch.softmax(scaled @ scaled.transpose(1, 2), dim=-1)
        return x + self.theta * (attention @ rows).reshape(x.shape)


class ACFM(nn.Module):
    """Attention within and between neighbouring channels (section 3.3.2, Eq. 3), alpha from 0.

    output = f + alpha * sigmoid(conv2(conv1(f))) * f. f is a volume of one channel whose depth is
    f's channels; conv1 is 1x3x3, conv2 3x1x1: 14 parameters. They are computed in two dimensions,
    which engines know better: conv1 as a depthwise convolution whose channels share their kernel,
    conv2 as a 1x1 convolution whose matrix has three diagonals. Both constants are folded when the
    network is exported.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Parameter(torch.empty(1, 1, 3, 3))
        self.spatial_bias = nn.Parameter(torch.zeros(1))
        self.depth = nn.Parameter(torch.empty(3))
        self.depth_bias = nn.Parameter(torch.zeros(1))
        self.alpha = nn.Parameter(torch.zeros(()))
        nn.init.normal_(self.spatial, std=1 / 3)
        nn.init.normal_(self.depth, std=3**-0.5)
        shifts = torch.stack([torch.diag(torch.ones(width - abs(k)), k) for k in (-1, 0, 1)])
        self.register_buffer("shifts", shifts, persistent=False)
        self.shifts: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        width = x.shape[1]
        kernel, bias = self.spatial.expand(width, 1, 3, 3), self.spatial_bias.expand(width)
        y = F.conv2d(x, kernel, bias, padding=1, groups=width)
        matrix = (self.depth.view(3, 1, 1) * self.shifts).sum(0)
        y = F.conv2d(y, matrix.view(width, width, 1, 1), self.depth_bias.expand(width))
        return x + self.alpha * torch.sigmoid(y) * x


class AttentionFusion(nn.Module):
    """ALFM of all blocks' outputs beside ACFM of the last one's (section 3.3.2), then 3x3.

    The paper does not say how the two meet: here a 1x1 convolution takes ALFM's channels to
    `outputs`, ACFM's are put beside them, and a 3x3 convolution joins both.
    """

    def __init__(self, blocks: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = ALFM()
        self.squeeze = _conv(blocks * width, outputs, 1)
        self.channels = ACFM(width)
        self.join = _conv(outputs + width, outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Each block's output, (N, width, H, W) -> (N, outputs, H, W)."""
        layers = self.squeeze(self.layers(torch.cat(features, dim=1)))
        return self.join(torch.cat([layers, self.channels(features[-1])], dim=1))  # type: ignore[no-any-return]


class Concatenation(nn.Module):
    """Table 3's fusion without ALFM and ACFM: all blocks' outputs side by side, 1x1, 3x3."""

    def __init__(self, blocks: int, width: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = _conv(blocks * width, width, 1)
        self.join = _conv(width, outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Each block's output, (N, width, H, W) -> (N, outputs, H, W)."""
        return self.join(self.squeeze(torch.cat(features, dim=1)))  # type: ignore[no-any-return]


class LMFN(nn.Module):
    """Encoder, distillation blocks, fusion, upsampling and global skip connection (Fig. 1).

    The fused features of the encoder are added after the blocks (as in RFDN), then the sum is
    upsampled twice by PixelShuffle to what the picture lacks. The paper does not give the
    upsampling, these two skip connections or the initialisation.

    Args:
        mshf: Table 3, "MSHF"; else strided convolutions with residual blocks.
        distillation_block: Table 3, "distillation block"; else as many plain residual blocks.
        alfm_acfm: Table 3, "ALFM/ACFM"; else a concatenation.
        blocks: Table 4, "distillation blocks setting".
        width: channels of encoder and upsampling; the paper's is 64.
        block_width: channels of the blocks; None for `RFDB_WIDTH`, or `PLAIN_WIDTH` without
            distillation.
    """

    name = "lmfn"
    multiple = 16

    def __init__(
        self, *, mshf: bool = True, distillation_block: bool = True, alfm_acfm: bool = True,
        blocks: int = 4, width: int = 64, block_width: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = block_width or (RFDB_WIDTH if distillation_block else PLAIN_WIDTH)
        self.encoder = (MSHF if mshf else PlainEncoder)(width)
        self.blur_channels = width
        self.enter = _conv(width, inner)
        block = RFDB if distillation_block else PlainResidualBlock
        self.blocks = nn.ModuleList(block(inner) for _ in range(blocks))
        self.fusion = (AttentionFusion if alfm_acfm else Concatenation)(blocks, inner, width)
        self.upsample = _upsample(width, width)
        self.tail = nn.Sequential(_conv(width, 12), nn.PixelShuffle(2))
        self._initialise()

    def _initialise(self) -> None:
        """He's start (ICCV 2015), branches beside a skip held small, the last layer at zero.

        So the restored image starts as the input. Without normalisation the branches must not let
        the features grow from sum to sum; nor may the last layer's inputs be large, or Adam's first
        steps throw the image far off.
        """
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            with torch.no_grad():
                if name.startswith("tail"):
                    module.weight.zero_()
                elif name.endswith(("body.2", "join", "upsample.0")) or ".refine." in name:
                    module.weight.mul_(0.3)

    @property
    def neck(self) -> nn.Module:
        """What takes the features that motion guidance reads the motion from."""
        return self.enter

    def features(self, image: Tensor) -> tuple[Tensor]:
        """(N, 3, H, W), multiples of 16 -> the encoder's features, (N, width, H/4, W/4)."""
        return (self.encoder(image),)

    def forward(self, image: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, H, W), any H and W -> restored RGB of the same shape, unclamped."""
        padded = pad_to_multiple(image, self.multiple)
        (fused,) = self.features(padded)
        x = self.enter(fused)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        x = self.upsample(fused + self.fusion(features))
        restored = padded + self.tail(x)
        return crop(restored, image)
