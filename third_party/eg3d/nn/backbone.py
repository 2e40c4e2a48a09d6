"""Backbone: intermediate latents to an image of plane features (EG3D, Sec. 4.1; StyleGAN2 synthesis network).

The forward pass can be cut after any block. `Features` is all that crosses the cut: the feature map and the running sum
of the blocks' images. In GOAE the map after 32 x 32 is F, and the rows of ws above it drive the second half.
"""

import math
from typing import NamedTuple

import torch
from eg3d.nn.layers import FILTER, Conv2d, SynthesisLayer, ToRGB
from eg3d.nn.mapping import MappingNetwork
from eg3d.ops import setup_filter, upsample2d
from eg3d.ops.choice import chosen
from torch import Tensor, nn

ARCHITECTURES = ("skip", "resnet", "orig")
HALF_DEVICES = ("cuda",)  # where blocks with `use_fp16` run in half precision


class Features(NamedTuple):
    """What a block hands to the next.

    x: (B, C, r, r) feature map, dtype of the block.
    skip: (B, img_channels, r, r) float32, sum of the blocks' images so far, zero where no block has made one.
    """

    x: Tensor
    skip: Tensor


class SynthesisBlock(nn.Module):
    """Two modulated convolutions and toRGB at one resolution; the first block has a constant and one convolution.

    Args:
        in_channels: 0 for the first block.
        resolution: of the output.
        is_last: the block that makes the image where the architecture is not "skip".
        up: 2 doubles the resolution; 1 keeps it, as the first block of some super-resolution modules does.
        use_fp16: run in half precision on CUDA.
        architecture: "skip" sums images, "resnet" adds a linear path beside the convolutions, "orig" does neither.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool = False,
        up: int = 2,
        architecture: str = "skip",
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is {architecture!r}, expected one of {', '.join(ARCHITECTURES)}")
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.up = up
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.impl = chosen(impl)
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 1 if is_last or architecture == "skip" else 0
        self.register_buffer("resample_filter", setup_filter(FILTER))

        def layer(channels: int, up: int) -> SynthesisLayer:
            return SynthesisLayer(
                channels, out_channels, w_dim=w_dim, resolution=resolution, up=up, conv_clamp=conv_clamp, impl=impl
            )

        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = layer(in_channels, up)
        self.conv1 = layer(out_channels, 1)
        if self.num_torgb:
            self.torgb = ToRGB(out_channels, img_channels, w_dim=w_dim, conv_clamp=conv_clamp, impl=impl)
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2d(in_channels, out_channels, 1, bias=False, up=up, impl=impl)

    def forward(
        self,
        features: Features | None,
        ws: Tensor,
        *,
        noise_mode: str = "const",
        rng: torch.Generator | None = None,
    ) -> Features:
        """Run the block.

        Args:
            features: of the block before; None for the first block.
            ws: (B, num_conv + num_torgb, w_dim), a row for each layer.
            noise_mode, rng: as in `SynthesisLayer`.
        Raises: ValueError for another number of rows, an unknown noise mode, or features that do not fit.
        """
        if ws.shape[1] != self.num_conv + self.num_torgb:
            raise ValueError(f"ws has shape {tuple(ws.shape)}, expected {self.num_conv + self.num_torgb} rows")
        x = self.convolve(None if features is None else features.x, ws, noise_mode=noise_mode, rng=rng)
        skip = self._carried(features, x)
        if self.num_torgb:
            skip = skip + self.image(x, ws)
        return Features(x, skip)

    def convolve(
        self, x: Tensor | None, ws: Tensor, *, noise_mode: str = "const", rng: torch.Generator | None = None
    ) -> Tensor:
        """The feature map: x of the block before (None for the first) through the block's convolutions."""
        dtype = torch.float16 if self.is_half(ws.device) else torch.float32
        if self.in_channels == 0:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
            return self.conv1(x, ws[:, 0], noise_mode=noise_mode, rng=rng)
        if x is None:
            raise ValueError(f"the block at {self.resolution} has {self.in_channels} input channels, but x is None")
        x = x.to(dtype)
        y = self.conv0(x, ws[:, 0], noise_mode=noise_mode, rng=rng)
        if self.architecture != "resnet":
            return self.conv1(y, ws[:, 1], noise_mode=noise_mode, rng=rng)
        half = math.sqrt(0.5)
        return self.skip(x, gain=half) + self.conv1(y, ws[:, 1], noise_mode=noise_mode, rng=rng, gain=half)

    def is_half(self, device: torch.device) -> bool:
        """Whether the block runs in half precision there."""
        return self.use_fp16 and device.type in HALF_DEVICES

    def image(self, x: Tensor, ws: Tensor) -> Tensor:
        """toRGB of the block's feature map, (B, img_channels, r, r) float32."""
        return self.torgb(x, ws[:, self.num_conv])

    def _carried(self, features: Features | None, x: Tensor) -> Tensor:
        """The sum of the images so far at this block's resolution."""
        if features is None:
            return torch.zeros((x.shape[0], self.img_channels, *x.shape[2:]), device=x.device)
        return upsample2d(features.skip, self.resample_filter, impl=self.impl) if self.up == 2 else features.skip


class SynthesisNetwork(nn.Module):
    """Blocks b4, b8, ... b{img_resolution}.

    Args:
        img_resolution: a power of two from 8 on.
        channel_base, channel_max: the block at r has min(channel_base // r, channel_max) channels.
        conv_clamp: limit of every layer's output; None does not limit.
        num_fp16_res: number of blocks, from the last, that run in half precision on CUDA.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = None,
        architecture: str = "skip",
        num_fp16_res: int = 0,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.resolutions = block_resolutions(img_resolution)
        channels = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        if min(channels.values()) < 1:
            raise ValueError(f"channel_base is {channel_base}, expected at least img_resolution {img_resolution}")
        first_fp16 = first_fp16_resolution(img_resolution, num_fp16_res)
        for r in self.resolutions:
            block = SynthesisBlock(
                channels[r // 2] if r > 4 else 0,
                channels[r],
                w_dim=w_dim,
                resolution=r,
                img_channels=img_channels,
                is_last=r == img_resolution,
                architecture=architecture,
                conv_clamp=conv_clamp,
                use_fp16=r >= first_fp16,
                impl=impl,
            )
            self.add_module(f"b{r}", block)
        self.num_ws = 2 * len(self.resolutions)

    def forward(self, ws: Tensor, *, noise_mode: str = "const", rng: torch.Generator | None = None) -> Tensor:
        """(B, num_ws, w_dim) -> (B, img_channels, img_resolution, img_resolution) float32; see `features`, `finish`."""
        return self.features(ws, self.img_resolution, noise_mode=noise_mode, rng=rng).skip

    def features(
        self, ws: Tensor, resolution: int, *, noise_mode: str = "const", rng: torch.Generator | None = None
    ) -> Features:
        """Run the blocks up to `resolution`.

        Args:
            ws: (B, num_ws, w_dim); rows up to `row_offset(resolution)`, inclusive, are used.
            resolution: of a block.
            noise_mode: "const", "random" (from `rng`, which must be passed on to `finish`) or "none".
        Raises: ValueError for ws of another shape, a resolution without a block, or an unknown noise mode.
        """
        self.row_offset(resolution)
        resolutions = [r for r in self.resolutions if r <= resolution]
        return self._run(None, resolutions, self._checked(ws), noise_mode, rng)

    def finish(
        self, features: Features, ws: Tensor, *, noise_mode: str = "const", rng: torch.Generator | None = None
    ) -> Tensor:
        """Run the blocks above the resolution of `features`, which may have been changed.

        With the features of `features(ws, resolution)` and constant noise the result is that of `forward`, bit for bit.

        Args:
            ws: (B, num_ws, w_dim), all rows; those from `row_offset(resolution)` on are used.
        Returns: (B, img_channels, img_resolution, img_resolution) float32.
        Raises: ValueError for features or ws of another shape.
        """
        resolution = features.x.shape[-1]
        self.row_offset(resolution)
        if features.skip.shape[1:] != (self.img_channels, resolution, resolution):
            raise ValueError(
                f"features.skip has shape {tuple(features.skip.shape)}, "
                f"expected (B, {self.img_channels}, {resolution}, {resolution}) as features.x is of that size"
            )
        resolutions = [r for r in self.resolutions if r > resolution]
        return self._run(features, resolutions, self._checked(ws), noise_mode, rng).skip

    def row_offset(self, resolution: int) -> int:
        """The first row of ws used above `resolution` (also the row of that block's toRGB): 7 for 32.

        Raises: ValueError if no block has that resolution.
        """
        if resolution not in self.resolutions:
            raise ValueError(f"resolution is {resolution}, expected one of {', '.join(map(str, self.resolutions))}")
        return 2 * self.resolutions.index(resolution) + 1

    def _run(
        self,
        features: Features | None,
        resolutions: list[int],
        ws: Tensor,
        noise_mode: str,
        rng: torch.Generator | None,
    ) -> Features:
        for r in resolutions:
            block = self.get_submodule(f"b{r}")
            assert isinstance(block, SynthesisBlock)
            end = self.row_offset(r) + block.num_torgb
            rows = ws[:, end - block.num_conv - block.num_torgb : end]
            features = block(features, rows, noise_mode=noise_mode, rng=rng)
        assert features is not None
        return features

    def _checked(self, ws: Tensor) -> Tensor:
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws has shape {tuple(ws.shape)}, expected (B, {self.num_ws}, {self.w_dim})")
        return ws.float()


class Backbone(nn.Module):
    """Mapping and synthesis under the names of the published tensors, `mapping.*` and `synthesis.b{r}.*`.

    Args:
        img_resolution, img_channels, channel_base, channel_max, conv_clamp, num_fp16_res, architecture: see
            `SynthesisNetwork`.
        mapping_layers: see `MappingNetwork`.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        *,
        img_resolution: int,
        img_channels: int,
        mapping_layers: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = None,
        architecture: str = "skip",
        num_fp16_res: int = 0,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(
            w_dim,
            img_resolution,
            img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_clamp=conv_clamp,
            architecture=architecture,
            num_fp16_res=num_fp16_res,
            impl=impl,
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, num_layers=mapping_layers, impl=impl)


def block_resolutions(img_resolution: int) -> list[int]:
    """4, 8, ... img_resolution.

    Raises: ValueError unless img_resolution is a power of two from 8 on.
    """
    if img_resolution < 8 or img_resolution & (img_resolution - 1):
        raise ValueError(f"img_resolution is {img_resolution}, expected a power of two from 8 on")
    return [2**i for i in range(2, img_resolution.bit_length())]


def first_fp16_resolution(img_resolution: int, num_fp16_res: int) -> int:
    """The lowest resolution in half precision, never below 8; twice img_resolution if there is none."""
    return max(2 * img_resolution // 2**num_fp16_res, 8)
