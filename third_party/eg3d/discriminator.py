"""Dual discriminator: final image and enlarged raw image, judged together under a camera label (EG3D, Sec. 4.3).

A StyleGAN2 discriminator on six channels. The label passes a mapping network of its own; the logit is its inner product
with the image's code.
"""

import math

import torch
from eg3d.nn.backbone import ARCHITECTURES, block_resolutions, first_fp16_resolution
from eg3d.nn.layers import FILTER, Conv2d, FullyConnected, MinibatchStd
from eg3d.nn.mapping import MappingNetwork
from eg3d.ops import downsample2d, setup_filter
from eg3d.ops.choice import chosen
from eg3d.transfer import send
from torch import Tensor, nn
from torch.nn import functional as F

CONV_CLAMP = 256.0


class DiscriminatorBlock(nn.Module):
    """Two convolutions that halve the resolution.

    Args:
        resolution: of the input.
        img_channels: channels of the image.
        has_fromrgb: whether the block takes in the image: the first one does, and all in architecture "skip".
        architecture: "resnet" adds a linear path beside the convolutions, "skip" hands a smaller image to each block,
            "orig" does neither.
        use_fp16: run in half precision on CUDA.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resolution: int,
        img_channels: int,
        has_fromrgb: bool,
        architecture: str = "resnet",
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.architecture = architecture
        self.has_fromrgb = has_fromrgb
        self.use_fp16 = use_fp16
        self.impl = chosen(impl)
        self.register_buffer("resample_filter", setup_filter(FILTER))

        def conv(inputs: int, outputs: int, size: int, down: int = 1) -> Conv2d:
            return Conv2d(inputs, outputs, size, activation="lrelu", down=down, conv_clamp=conv_clamp, impl=impl)

        if has_fromrgb:
            self.fromrgb = conv(img_channels, in_channels, 1)
        self.conv0 = conv(in_channels, in_channels, 3)
        self.conv1 = conv(in_channels, out_channels, 3, down=2)
        if architecture == "resnet":
            self.skip = Conv2d(in_channels, out_channels, 1, bias=False, down=2, impl=impl)

    def forward(self, x: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the resolution r of the input.

        Args:
            x: (B, in, r, r) of the block before; None for the first block.
            image: (B, img_channels, r, r); read only where the block has fromrgb.
        Returns: x (B, out, r / 2, r / 2), and the image for the next block.
        """
        dtype = torch.float16 if self.use_fp16 and image.is_cuda else torch.float32
        x = None if x is None else x.to(dtype)
        if self.has_fromrgb:
            taken = self.fromrgb(image.to(dtype))
            x = taken if x is None else x + taken
        assert x is not None
        if self.architecture == "skip":
            image = downsample2d(image, self.resample_filter, impl=self.impl)
        if self.architecture != "resnet":
            return self.conv1(self.conv0(x)), image
        half = math.sqrt(0.5)
        return self.skip(x, gain=half) + self.conv1(self.conv0(x), gain=half), image


class DiscriminatorEpilogue(nn.Module):
    """From a 4 x 4 map to logits: minibatch deviation, convolution, two fully connected layers, label projection.

    Args:
        cmap_dim: size of the mapped label; 0 gives an unconditional logit.
        mbstd_group_size, mbstd_num_channels: see `MinibatchStd`; 0 channels leave it out.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        conv_clamp: float | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.cmap_dim = cmap_dim
        self.architecture = architecture
        if architecture == "skip":
            self.fromrgb = Conv2d(img_channels, in_channels, 1, activation="lrelu", impl=impl)
        self.mbstd = MinibatchStd(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels else nn.Identity()
        self.conv = Conv2d(
            in_channels + mbstd_num_channels, in_channels, 3, activation="lrelu", conv_clamp=conv_clamp, impl=impl
        )
        self.fc = FullyConnected(in_channels * resolution**2, in_channels, activation="lrelu", impl=impl)
        self.out = FullyConnected(in_channels, cmap_dim if cmap_dim > 0 else 1, impl=impl)

    def forward(self, x: Tensor, image: Tensor, cmap: Tensor | None) -> Tensor:
        """(B, in, r, r), image (B, img_channels, r, r), cmap (B, cmap_dim) -> logits (B, 1), float32."""
        x = x.float()
        if self.architecture == "skip":
            x = x + self.fromrgb(image.float())
        x = self.out(self.fc(self.conv(self.mbstd(x)).flatten(1)))
        if cmap is None:
            return x
        return (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)


class DualDiscriminator(nn.Module):
    """D(image, image_raw, c): logits, high for real images.

    Args:
        img_resolution: of `image`, a power of two from 8 on.
        c_dim: size of the label; 0 is unconditional.
        channel_base, channel_max: the block at r takes min(channel_base // r, channel_max) channels.
        num_fp16_res: number of blocks, from the first, that run in half precision on CUDA.
        conv_clamp: limit of the layers' outputs, also in float32; None does not limit.
        c_noise: standard deviation of noise on the label, in units of the batch's own deviation.
        cmap_dim: size of the mapped label; None takes the channels at 4 x 4.
    """

    resample_filter: Tensor

    def __init__(
        self,
        img_resolution: int,
        c_dim: int = 25,
        *,
        img_channels: int = 3,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "resnet",
        num_fp16_res: int = 4,
        conv_clamp: float | None = CONV_CLAMP,
        c_noise: float = 0.0,
        cmap_dim: int | None = None,
        mapping_layers: int = 8,
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is {architecture!r}, expected one of {', '.join(ARCHITECTURES)}")
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.c_dim = c_dim
        self.c_noise = c_noise
        self.resolutions = block_resolutions(img_resolution)[:0:-1]  # from img_resolution down to 8
        channels = {r: min(channel_base // r, channel_max) for r in [*self.resolutions, 4]}
        if min(channels.values()) < 1:
            raise ValueError(f"channel_base is {channel_base}, expected at least img_resolution {img_resolution}")
        cmap_dim = (channels[4] if cmap_dim is None else cmap_dim) if c_dim > 0 else 0
        first_fp16 = first_fp16_resolution(img_resolution, num_fp16_res)
        for r in self.resolutions:
            block = DiscriminatorBlock(
                channels[r],
                channels[r // 2],
                resolution=r,
                img_channels=2 * img_channels,
                has_fromrgb=r == img_resolution or architecture == "skip",
                architecture=architecture,
                conv_clamp=conv_clamp,
                use_fp16=r >= first_fp16,
                impl=impl,
            )
            self.add_module(f"b{r}", block)
        if c_dim > 0:
            self.mapping = MappingNetwork(
                0, c_dim, cmap_dim, None, num_layers=mapping_layers, w_avg_beta=None, impl=impl
            )
        self.b4 = DiscriminatorEpilogue(
            channels[4],
            cmap_dim=cmap_dim,
            resolution=4,
            img_channels=2 * img_channels,
            architecture=architecture,
            mbstd_group_size=mbstd_group_size,
            mbstd_num_channels=mbstd_num_channels,
            conv_clamp=conv_clamp,
            impl=impl,
        )
        self.register_buffer("resample_filter", setup_filter(FILTER))  # unused; in the published state

    def forward(
        self, image: Tensor, image_raw: Tensor, c: Tensor | None, *, rng: torch.Generator | None = None
    ) -> Tensor:
        """Judge images.

        Args:
            image: (B, img_channels, img_resolution, img_resolution), [-1, 1].
            image_raw: (B, img_channels, R, R), [-1, 1]; enlarged with antialiasing.
            c: (B, c_dim) rendering label; None only if c_dim is 0.
            rng: source of the noise on the label.
        Returns: logits (B, 1), float32.
        Raises: ValueError if a shape does not fit, or the minibatch groups do not divide the batch.
        """
        size = self.img_resolution
        if image.shape[1:] != (self.img_channels, size, size):
            raise ValueError(f"image has shape {tuple(image.shape)}, expected (B, {self.img_channels}, {size}, {size})")
        if image_raw.ndim != 4 or image_raw.shape[:2] != image.shape[:2]:
            raise ValueError(
                f"image_raw has shape {tuple(image_raw.shape)}, expected {tuple(image.shape[:2])} + (R, R)"
            )
        both = torch.cat([image, resize(image_raw, size)], dim=1).float()
        x = None
        for r in self.resolutions:
            x, both = self.get_submodule(f"b{r}")(x, both)
        cmap = self.mapping(None, self._noisy(c, rng)) if self.c_dim > 0 else None
        return self.b4(x, both, cmap)

    def _noisy(self, c: Tensor | None, rng: torch.Generator | None) -> Tensor | None:
        """The label plus c_noise std_batch(c) N(0, 1), as a new tensor."""
        if c is None or self.c_noise == 0:
            return c
        device = c.device if rng is None else rng.device
        return c + send(torch.randn(c.shape, generator=rng, device=device), c) * c.std(dim=0) * self.c_noise


def resize(image: Tensor, resolution: int) -> Tensor:
    """Bilinear with antialiasing to (B, C, resolution, resolution); it also makes the raw images of real ones."""
    size = (resolution, resolution)
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
