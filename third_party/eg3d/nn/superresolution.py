"""Super-resolution: raw image and feature image to the final image (EG3D, Sec. 4.3).

Two synthesis blocks, both driven by the last row of ws alone. In the modules for 256 and 128 the first block does not
upsample. The released code then adds that block's colours in place to the raw image it was given, so that the raw
image it returns is another one; here it stays as it is, and `shadow_rgb` makes the other.
"""

from typing import NamedTuple

import torch
from eg3d.nn.backbone import Features, SynthesisBlock
from eg3d.nn.gradient_scale import GradientScale
from eg3d.nn.layers import FILTER
from eg3d.ops import setup_filter
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


class Variant(NamedTuple):
    """What tells the released modules apart.

    input_resolution: of the first block's input; the input is resized to it.
    hidden_channels: of the two blocks.
    up: of the first block; the second always doubles.
    shrinks: whether larger inputs are resized too; without it they do not fit.
    has_filter: whether the module holds an unused filter of its own, as in the released state dicts.
    antialias: whether resizing may filter.
    """

    input_resolution: int
    hidden_channels: tuple[int, int]
    up: int
    shrinks: bool = True
    has_filter: bool = True
    antialias: bool = True


VARIANTS = {
    "8XDC": Variant(128, (256, 128), up=2, has_filter=False),
    "8X": Variant(128, (128, 64), up=2),
    "4X": Variant(128, (128, 64), up=1, shrinks=False),
    "2X": Variant(64, (128, 64), up=1),
    "Deepfp32": Variant(128, (128, 64), up=1, shrinks=False, antialias=False),
}
CONV_CLAMP = 256.0


class SuperResolution(nn.Module):
    """The released super-resolution modules SuperresolutionHybrid{variant}.

    Args:
        variant: a name in `VARIANTS`.
        channels: of the feature image.
        input_resolution, hidden_channels: None takes those of the variant.
        num_fp16_res: above 0 every layer's output is limited to 256, and both blocks run in half precision on CUDA.
        antialias: filter where the input is made smaller.
        noise_mode: of both blocks; released models were trained with "none".
        half: False keeps float32 on CUDA, with the limit that num_fp16_res asks for.

    Attributes:
        channels_last: whether half precision keeps the channels of a pixel beside each other, as tensor cores take
            them. It changes rounding alone.
    """

    resample_filter: Tensor
    channels_last = False

    def __init__(
        self,
        variant: str,
        *,
        channels: int = 32,
        w_dim: int = 512,
        input_resolution: int | None = None,
        hidden_channels: tuple[int, int] | None = None,
        num_fp16_res: int = 4,
        antialias: bool = True,
        noise_mode: str = "none",
        half: bool = True,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"superresolution variant is {variant!r}, expected one of {', '.join(VARIANTS)}")
        chosen = VARIANTS[variant]
        self.variant = variant
        self.input_resolution = chosen.input_resolution if input_resolution is None else input_resolution
        self.output_resolution = self.input_resolution * chosen.up * 2
        self.antialias = antialias and chosen.antialias
        self.noise_mode = noise_mode
        self.channels = channels

        def block(in_channels: int, out_channels: int, resolution: int, up: int) -> SynthesisBlock:
            return SynthesisBlock(
                in_channels,
                out_channels,
                w_dim=w_dim,
                resolution=resolution,
                img_channels=3,
                up=up,
                conv_clamp=CONV_CLAMP if num_fp16_res > 0 else None,
                use_fp16=num_fp16_res > 0 and half,
                impl=impl,
            )

        first, second = chosen.hidden_channels if hidden_channels is None else hidden_channels
        self.block0 = block(channels, first, self.output_resolution // 2, chosen.up)
        self.block1 = block(first, second, self.output_resolution, 2)
        if chosen.has_filter:
            self.register_buffer("resample_filter", setup_filter(FILTER))

    def forward(self, rgb: Tensor, x: Tensor, ws: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Make the final image.

        Args:
            rgb: (B, 3, R, R), the raw image.
            x: (B, channels, R, R), the feature image.
            ws: (B, num_ws, w_dim); the last row is used.
            rng: source of the noise where noise_mode is "random".
        Returns: (B, 3, output_resolution, output_resolution) float32, about [-1, 1].
        Raises: ValueError if the shapes disagree, or R is too large for a variant that does not shrink its input.
        """
        return self._run((self.block0, self.block1), *self._inputs(rgb, x, ws), rng)

    def changes_raw(self, resolution: int) -> bool:
        """Whether the released module changes a raw image of that size (see the head of this file)."""
        return self.block0.up == 1 and resolution == self.input_resolution

    def shadow_rgb(self, rgb: Tensor, x: Tensor, ws: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The raw image that the released module leaves behind: rgb + toRGB of the first block, or rgb itself.

        Arguments as in `forward`. Returns: (B, 3, R, R).
        """
        if not self.changes_raw(rgb.shape[-1]):
            return rgb
        return self._run((self.block0,), *self._inputs(rgb, x, ws), rng)

    def _run(
        self, blocks: tuple[SynthesisBlock, ...], features: Features, rows: Tensor, rng: torch.Generator | None
    ) -> Tensor:
        """The sum of the blocks' images; in half precision, gradients are scaled on their way back."""
        options = {"noise_mode": self.noise_mode, "rng": rng}
        half = self.block0.is_half(rows.device)
        if half and self.channels_last:
            features = Features(features.x.contiguous(memory_format=torch.channels_last), features.skip)
        if not (torch.is_grad_enabled() and half):
            for block in blocks:
                features = block(features, rows, **options)
            return features.skip
        scale = GradientScale()
        features, rows = Features(*map(scale.enter, features)), scale.enter(rows)
        for block in blocks:
            trained = {name: scale.enter(p) for name, p in block.named_parameters() if p.requires_grad}
            features = functional_call(block, trained, (features, rows), options)
        return scale.leave(features.skip)

    def _inputs(self, rgb: Tensor, x: Tensor, ws: Tensor) -> tuple[Features, Tensor]:
        """The first block's input at its resolution, and the last row of ws three times."""
        if rgb.ndim != 4 or rgb.shape[1] != 3 or x.shape != (rgb.shape[0], self.channels, *rgb.shape[2:]):
            raise ValueError(
                f"rgb has shape {tuple(rgb.shape)} and x {tuple(x.shape)}, "
                f"expected (B, 3, R, R) and (B, {self.channels}, R, R)"
            )
        if ws.ndim != 3:
            raise ValueError(f"ws has shape {tuple(ws.shape)}, expected (B, num_ws, w_dim)")
        return Features(self._resize(x), self._resize(rgb)), ws[:, -1:].float().repeat(1, 3, 1)

    def _resize(self, x: Tensor) -> Tensor:
        size = self.input_resolution
        if x.shape[2:] == (size, size):
            return x
        if x.shape[-1] > size and not VARIANTS[self.variant].shrinks:
            raise ValueError(
                f"superresolution {self.variant} takes inputs up to {size} x {size}, got {tuple(x.shape)}; "
                "lower the neural rendering resolution"
            )
        return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=self.antialias)
