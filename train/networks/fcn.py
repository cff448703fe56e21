"""FCN: feature catcher network (Zhang, Wang, Dong, Zeng, ICBDT 2022).

Figures 2 to 5 and section 3 give the blocks and the width; where they are silent the layout was
chosen so that the published 20.309 M parameters hold: 20.28 M. The trust-ratio loss (section 3.6)
is no part of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.networks.padding import crop, pad_to_multiple

GRIDS = ((2, 4), (2, 2), (2, 1), (1, 1))
"""Rows and columns of patches in stages 0 to 3 (Fig. 2)."""

EPSILON = 1e-5
"""Of the layer normalisation. The paper does not give it; PyTorch's."""


def split(image: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> its patches as one batch, (N * rows * columns, C, H / rows, W / columns).

    H and W are multiples of the rows and columns of `grid`. An image's patches follow one another,
    row by row.
    """
    rows, columns = grid
    n, c, height, width = image.shape
    patches = image.reshape(n, c, rows, height // rows, columns, width // columns)
    patches = patches.permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(n * rows * columns, c, height // rows, width // columns)


def merge(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `split`."""
    rows, columns = grid
    m, c, height, width = patches.shape
    n = m // (rows * columns)
    image = patches.reshape(n, rows, columns, c, height, width).permute(0, 3, 1, 4, 2, 5)
    return image.reshape(n, c, rows * height, columns * width)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class ProcessingBlock(nn.Sequential):
    """PB: a 3x3 convolution, then convolution and SELU `repeats` times (section 3.1, Fig. 3a).

    Fig. 3(a) draws a second convolution into what is repeated; with the first one of the next
    repetition it would be one linear map, so it is left out. How often, the paper does not give.
    (N, inputs, H, W) -> (N, outputs, H, W).
    """

    def __init__(self, inputs: int, outputs: int, repeats: int) -> None:
        layers: list[nn.Module] = [_conv(inputs, outputs)]
        for _ in range(repeats):
            layers += [_conv(outputs, outputs), nn.SELU()]
        super().__init__(*layers)


class QueryKey(nn.Module):
    """The query-key mechanism: sigmoid(query) * key (section 3.2, Fig. 3b).

    The paper does not give how much is averaged for the query: here all of the patch, so that there
    are "the same number of queries and keys as the number of image chunks", and they are global.
    The query's convolutions are 1x1, the key's 3x3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Sequential(_conv(width, width, 1), nn.ReLU(), _conv(width, width, 1))
        self.key = nn.Sequential(
            _conv(width, width), _conv(width, width), nn.SELU(), _conv(width, width)
        )

    def forward(self, processed: Tensor, x: Tensor) -> Tensor:
        """What PB gave and what the key is made from, (N, width, H, W) each -> the same shape."""
        # float32: the sum over H * W exceeds what 16 bits hold.
        mean = processed.float().mean((2, 3), keepdim=True).to(processed.dtype)
        gated: Tensor = torch.sigmoid(self.query(mean)) * self.key(x)
        return gated


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel; (N, width, H, W) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Mean 0 and variance 1 per pixel, then scaled and shifted per channel."""
        wide = x.float()
        centred = wide - wide.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        y = centred / (variance + EPSILON).sqrt() * self.weight + self.bias
        return y.to(x.dtype)


class EFEM(nn.Module):
    """Enhanced feature extraction module, stage 0's (section 3.3, Fig. 4a).

    The number of channels "is changed in the middle"; the paper does not give to what (here twice
    as many), nor the activation (here SELU, as elsewhere).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            ChannelNorm(width), _conv(width, 2 * width, 1), nn.SELU(), _conv(2 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        return x * torch.sigmoid(self.gate(x))


class MSAM(nn.Module):
    """Multi-stage attention mechanism, stages 1 and 2 (section 3.4, Fig. 4b).

    Between the two 1x1 convolutions stands a SELU, which Fig. 4(b) does not draw: without it they
    would be one. The gate is read from the stage's image, as in MPRNet's supervised attention.
    """

    def __init__(self, width: int, repeats: int, *, pb: bool) -> None:
        super().__init__()
        self.pb = ProcessingBlock(width, width, repeats) if pb else nn.Identity()
        self.query_key = QueryKey(width)
        self.deepen = nn.Sequential(_conv(width, width, 1), nn.SELU(), _conv(width, width, 1))
        self.gate = _conv(3, width)

    def feature(self, x: Tensor) -> Tensor:
        """This stage's features plus the previous stage's -> "stage feature", the same shape."""
        processed = self.pb(x)
        feature: Tensor = processed + self.query_key(processed, processed)
        return feature

    def deep_information(self, feature: Tensor, restored: Tensor) -> Tensor:
        """The stage's feature and its image -> what the next stage takes, (N, width, H, W)."""
        deep: Tensor = self.deepen(feature)
        return deep * torch.sigmoid(self.gate(restored)) + deep


class EncoderDecoder(nn.Module):
    """The encoder and decoder of the input image (Fig. 2, section 3.5): a UNet of three levels.

    The paper does not give its layers: here processing blocks, width doubled per level, strided
    convolutions down, transposed ones up, skips added.
    """

    def __init__(self, width: int, repeats: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.stem = _conv(3, width)
        self.encoder = nn.ModuleList(ProcessingBlock(w, w, repeats) for w in widths)
        self.down = nn.ModuleList(_conv(w, 2 * w, stride=2) for w in widths[:-1])
        self.decoder = nn.ModuleList(ProcessingBlock(w, w, repeats) for w in widths)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:-1])

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(N, 3, H, W), H and W multiples of 4 -> features of encoder and decoder.

        Three each, the largest first: (N, width << level, H >> level, W >> level).
        """
        x = self.stem(image)
        encoded = [self.encoder[0](x)]
        for down, block in zip(self.down, list(self.encoder)[1:], strict=True):
            encoded.append(block(down(encoded[-1])))
        decoded = [self.decoder[2](encoded[2])]
        for level in (1, 0):
            x = self.up[level](decoded[0]) + encoded[level]
            decoded.insert(0, self.decoder[level](x))
        return encoded, decoded


class RIM(nn.Module):
    """Raw information mechanism, stage 3's (section 3.5, Fig. 5).

    Features of smaller levels are brought to the stage's width by 1x1 convolutions, then enlarged
    bilinearly; the paper does not give how.
    """

    def __init__(self, width: int, repeats: int, raw_repeats: int, *, pb: bool) -> None:
        super().__init__()
        self.raw = EncoderDecoder(width, raw_repeats)
        self.from_encoder = nn.ModuleList(_conv(width << i, width, 1) for i in range(3))
        self.from_decoder = nn.ModuleList(_conv(width << i, width, 1) for i in range(3))
        self.pb = nn.ModuleList(
            ProcessingBlock(width, width, repeats) if pb else nn.Identity() for _ in range(3)
        )
        self.query_key = nn.ModuleList(QueryKey(width) for _ in range(3))

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Stage 3's features plus stage 2's deep information, the image -> (N, width, H, W)."""
        encoded, decoded = self.raw(image)
        for i in range(3):
            processed = self.pb[i](x)
            y = self.query_key[i](processed, processed)
            raw = self.from_encoder[i](encoded[i]) + self.from_decoder[i](decoded[i])
            if i:
                raw = F.interpolate(raw, scale_factor=2**i, mode="bilinear", align_corners=False)
            x = (y if i else x + y) + raw
        return x


class Stage(nn.Module):
    """What every stage has of its own: its global feature catcher and its image (Fig. 2)."""

    def __init__(self, width: int, repeats: int, *, pb: bool) -> None:
        super().__init__()
        self.stem = _conv(3, width)
        self.pb = ProcessingBlock(width, width, repeats) if pb else nn.Identity()
        self.query_key = QueryKey(width)
        self.residual = _conv(width, 3)

    def catch(self, patches: Tensor) -> Tensor:
        """The stage's features: (N, 3, H, W) -> (N, width, H, W)."""
        x = self.stem(patches)
        caught: Tensor = x + self.query_key(self.pb(x), x)
        return caught

    def restore(self, feature: Tensor, patches: Tensor) -> Tensor:
        """(N, width, H, W) -> the stage's image, (N, 3, H, W)."""
        restored: Tensor = patches + self.residual(feature)
        return restored


class FCN(nn.Module):
    """Stages of 8, 4, 2 and 1 patches, each of which adds its residual to the input (Fig. 2).

    Args:
        stages: how many, 1 to 4 (Table 2, "stages"): the last ones of the four, so that the
            network always ends with the whole image. The last stage has the RIM; of the others the
            first has the EFEM, the rest MSAMs. Table 2 marks all modules for networks of one and
            two stages as well; the paper does not say where they stand there.
        pb: processing blocks (Table 2, "PB"); else features pass unprocessed.
        efem: the enhanced feature extraction module (Table 2, "EFEM"); else features pass.
        msam: the multi-stage attention mechanisms (Table 2, "MSAM"); else the previous stage's
            features are added to this one's and pass.
        rim: the raw information mechanism (Table 2, "RIM"), with its encoder and decoder; else as
            without `msam`.
        width: channels; the paper's is 96.
        repeats: of convolution and SELU in a processing block. The paper does not give it; 7 makes
            20.28 M parameters with a `raw_repeats` of 2.
        raw_repeats: the same in the encoder and decoder of the input image.

    Stages do not share weights. Raises ValueError for another number of stages.
    """

    name = "fcn"
    multiple = 4

    def __init__(
        self, *, stages: int = 4, pb: bool = True, efem: bool = True, msam: bool = True,
        rim: bool = True, width: int = 96, repeats: int = 7, raw_repeats: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        if stages not in range(1, len(GRIDS) + 1):
            raise ValueError(f"stages is {stages}, not 1 to {len(GRIDS)}")
        self.grids = GRIDS[-stages:]
        self.stages = nn.ModuleList(Stage(width, repeats, pb=pb) for _ in self.grids)
        middle = range(max(0, stages - 2))
        self.efem = EFEM(width) if efem and stages > 1 else None
        self.msam = nn.ModuleList(MSAM(width, repeats, pb=pb) for _ in middle if msam)
        self.rim = RIM(width, repeats, raw_repeats, pb=pb) if rim else None
        self._initialise()

    def _initialise(self) -> None:
        """LeCun's, which SELU keeps the variance with; every stage starts as the identity.

        The paper does not give it.
        """
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                continue
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            if name.endswith(".residual"):
                nn.init.zeros_(module.weight)
            else:
                # A transposed convolution of stride 2 and size 2: one tap of each input.
                inputs = module.weight[0].numel()
                if isinstance(module, nn.ConvTranspose2d):
                    inputs = module.in_channels
                nn.init.normal_(module.weight, std=inputs**-0.5)

    def _stage(self, i: int, patches: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Stage `i` on its patches: deep features for the next stage, and its patches restored."""
        stage, last = self.stages[i], i == len(self.stages) - 1
        assert isinstance(stage, Stage)
        x = stage.catch(patches)
        if previous is not None:
            x = x + previous
        if last and self.rim is not None:
            x = self.rim(x, patches)
        elif i == 0 and not last and self.efem is not None:
            x = self.efem(x)
        elif i > 0 and not last and len(self.msam):
            msam = self.msam[i - 1]
            assert isinstance(msam, MSAM)
            x = msam.feature(x)
            restored = stage.restore(x, patches)
            return msam.deep_information(x, restored), restored
        return x, stage.restore(x, patches)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """RGB in [0, 1], (N, 3, H, W), any H and W -> restored RGB of the same shape, unclamped.

        In train mode: all stages' images, the whole image's stage last.
        """
        padded = pad_to_multiple(image, self.multiple)
        deep: Tensor | None = None
        images: list[Tensor] = []
        for i, grid in enumerate(self.grids):
            previous = None if deep is None else split(deep, grid)
            features, restored = self._stage(i, split(padded, grid), previous)
            deep = merge(features, grid)
            images.append(crop(merge(restored, grid), image))
        return tuple(images) if self.training else images[-1]
