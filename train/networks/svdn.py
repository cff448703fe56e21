"""SVDN: spatially variant deconvolution network (Yuan, Su, Ma, CVPR 2020).

The paper's Figures 2 and 3 give the blocks; where the text is silent the layout below was chosen so
that both published sizes hold ("nearly 0.8 M" parameters, 3.1 MB): 0.81 M, 3.08 MiB in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.networks.deform_conv import DeformConv2d
from train.networks.padding import crop, pad_to_multiple

TAPS = 25
"""Sampling points of a 5x5 deformable kernel."""


def _conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with PReLU between them, plus the input (Fig. 3)."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width, width, dilation=dilation),
            nn.PReLU(width),
            _conv(width, width, dilation=dilation),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        y: Tensor = self.body(x)
        return x + y


class FeatureDeconvolution(nn.Module):
    """The neck: two stacked 5x5 modulated deformable convolutions (section 3.2).

    Eq. (4): ow1 = conv(blur). Eq. (5): ow2 = conv(f(conv(f(ow1)))), f = PReLU: the second layer's
    offsets come from the first's, never from its output. Each ow has 75 channels: 50 offsets,
    (dy, dx) interleaved, then 25 mask logits.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 3 * TAPS
        self.ow1 = _conv(width, wide)
        self.ow2 = nn.Sequential(
            nn.PReLU(wide), _conv(wide, wide), nn.PReLU(wide), _conv(wide, wide)
        )
        self.deform1 = DeformConv2d(width, width, 5, padding=2)
        self.deform2 = DeformConv2d(width, width, 5, padding=2)

    @torch.no_grad()
    def lay_points(self, weight: Tensor, bias: Tensor) -> None:
        """Let the first layer sample along the motion (dy, dx) = weight @ blur + bias.

        The inner 3x3 taps keep their places. The outer 16 are spread evenly from one motion's
        length before the pixel to one after it, which is what inverting a blur of that length
        takes. Training goes on from there.

        Args:
            weight: (2, width), with bias (2,): pixels of the image, which are half of this layer's.
        """
        outer = [k for k in range(TAPS) if max(abs(k // 5 - 2), abs(k % 5 - 2)) == 2]
        half = len(outer) // 2
        for number, k in enumerate(outer):
            along = (number - half + (number >= half)) / half / 2
            for axis, place in enumerate((k // 5 - 2, k % 5 - 2)):
                self.ow1.weight[2 * k + axis, :, 1, 1] = along * weight[axis]
                self.ow1.bias[2 * k + axis] = along * bias[axis] - place  # type: ignore[index]

    def offsets_and_masks(self, blur: Tensor) -> tuple[Tensor, Tensor]:
        """(N, width, H, W) -> ow1 and ow2, (N, 75, H, W) each, masks still as logits."""
        ow1 = self.ow1(blur)
        return ow1, self.ow2(ow1)

    def forward(self, blur: Tensor, content: Tensor) -> Tensor:
        """Blur feature and content feature, (N, width, H, W) each -> (N, width, H, W)."""
        ow1, ow2 = self.offsets_and_masks(blur)
        for layer, ow in ((self.deform1, ow1), (self.deform2, ow2)):
            content = layer(content, ow[:, : 2 * TAPS], torch.sigmoid(ow[:, 2 * TAPS :]))
        return content


class PlainNeck(nn.Module):
    """The ablation's neck: a residual block on the content feature (section 4.4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = ResidualBlock(width)

    def forward(self, blur: Tensor, content: Tensor) -> Tensor:
        """`blur` is not used; (N, width, H, W) -> the same shape."""
        y: Tensor = self.block(content)
        return y


class SVDN(nn.Module):
    """Backbone, neck, head and global skip connection (Fig. 2).

    Args:
        dilated: residual groups dilated by 1, 2, 4 (Table 2, "Dilated Backbone"); else by 1.
        feature_deconvolution: the deformable neck (Table 2, "FD Module"); else a residual block.
        width: channels; the paper's is 48.

    Table 2's third switch, flow-guided training, changes the loss, not the network.
    """

    name = "svdn"
    multiple = 2

    def __init__(
        self, *, dilated: bool = True, feature_deconvolution: bool = True, width: int = 48
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv(3, width), nn.PReLU(width), _conv(width, width, stride=2), nn.PReLU(width)
        )
        self.groups = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width, d) for _ in range(3)))
            for d in ((1, 2, 4) if dilated else (1, 1, 1))
        )
        self.fusion = _conv(3 * width, 2 * width)
        self.blur_channels = width
        self.neck = (FeatureDeconvolution if feature_deconvolution else PlainNeck)(width)
        # 4x4 stride-2 kernels: as a transposed convolution they cover every pixel four times.
        self.upsample = nn.Sequential(nn.ConvTranspose2d(width, width, 4, 2, 1), nn.PReLU(width))
        self.tail = _conv(width, 3)
        self._initialise()

    def _initialise(self) -> None:
        """Variance-preserving start, so that the neck sees features of unit size.

        The paper names Xavier's method; with it, the features shrink to a hundredth before the tail
        and the network needs hundreds of steps to make itself heard. He's (ICCV 2015) counts the
        PReLUs in.
        """
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | DeformConv2d):
                continue
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            if name.startswith(("neck.ow1", "neck.ow2.3", "tail")):
                # Offsets start at zero, so that training starts from a plain convolution; the
                # restored image starts as the input: with a random tail, training falls back to
                # the identity and stays there.
                nn.init.zeros_(module.weight)
                continue
            nn.init.kaiming_normal_(module.weight, a=0.25)
            with torch.no_grad():
                if isinstance(module, DeformConv2d):
                    module.weight.mul_(2)  # every tap is halved by its mask's sigmoid(0)
                elif isinstance(module, nn.ConvTranspose2d):
                    module.weight.mul_(2)  # a quarter of the taps meet at each output pixel
                elif name.endswith("body.2"):
                    module.weight.mul_(0.2)  # nine branches must not let the features grow
                elif name == "fusion":
                    module.weight.mul_(0.15)  # the skips between the groups double them thrice

    def offset_parameters(self) -> list[nn.Parameter]:
        """Parameters that predict offsets and masks; a trainer gives them a smaller rate."""
        return [p for name, p in self.neck.named_parameters() if name.startswith("ow")]

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> blur feature and content feature, (N, width, H/2, W/2) each."""
        x = self.stem(image)
        outputs = []
        for group in self.groups:
            x = x + group(x)
            outputs.append(x)
        blur, content = self.fusion(torch.cat(outputs, dim=1)).chunk(2, dim=1)
        return blur, content

    def forward(self, image: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, H, W), any H and W -> restored RGB of the same shape, unclamped."""
        padded = pad_to_multiple(image, self.multiple)
        blur, content = self.features(padded)
        restored = padded + self.tail(self.upsample(self.neck(blur, content)))
        return crop(restored, image)
