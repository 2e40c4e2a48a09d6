"""Window-attention backbone: image -> feature pyramid (paper, Sec. 4.1, "Swin transformer").

The paper does not state the version or the layers it taps. Released weights need Swin V2 with taps at the *input* of
each stage, after the merging of 2 x 2 patches and before any block: the finest features have seen no attention at all.
Only the base feature is an output, that of the last stage after the final norm. Images are not normalised by ImageNet's
mean and deviation.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

NUM_STAGES = 4


@dataclass
class SwinConfig:
    """Sizes of the backbone; the defaults are those of timm's `swinv2_base_window12to16_192to256`."""

    image_resolution: int = 256  # side of the square input
    patch_size: int = 4  # side of the patches that become tokens
    embed_dim: int = 128  # channels of stage 0; each later stage doubles them
    depths: list[int] = field(default_factory=lambda: [2, 2, 18, 2])  # blocks per stage
    num_heads: list[int] = field(default_factory=lambda: [4, 8, 16, 32])  # heads per stage
    window_size: int = 16  # side of the attention windows; never more than the stage's grid
    # windows that scale the coordinates of the position bias; 0 takes the window in use
    pretrained_window_sizes: list[int] = field(default_factory=lambda: [12, 12, 12, 6])
    mlp_ratio: float = 4.0  # hidden width of a block's MLP over its channels
    drop_path: float = 0.2  # stochastic depth of the last block, rising linearly from 0; training mode only

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads", "pretrained_window_sizes"):
            value = getattr(self, name)
            if len(value) != NUM_STAGES:
                raise ValueError(f"encoder.backbone.{name}={value}: expected {NUM_STAGES} numbers, one per stage")
        if self.image_resolution % (self.patch_size * 2 ** (NUM_STAGES - 1)):
            raise ValueError(
                f"encoder.backbone.image_resolution={self.image_resolution} must be a multiple of 8 x "
                f"encoder.backbone.patch_size={self.patch_size}, so that the grid can be halved three times"
            )
        for channels, heads in zip(self.channels, self.num_heads, strict=True):
            if channels % heads:
                raise ValueError(
                    f"encoder.backbone.num_heads={self.num_heads} must divide the stages' channels {self.channels}"
                )

    @property
    def channels(self) -> list[int]:
        """Channels of the four stages."""
        return [self.embed_dim * 2**s for s in range(NUM_STAGES)]

    @property
    def grids(self) -> list[int]:
        """Side of the token grid of the four stages."""
        return [self.image_resolution // self.patch_size // 2**s for s in range(NUM_STAGES)]


class Pyramid(NamedTuple):
    """Taps of the backbone; C_s and N_s are channels and tokens (row-major) of stage s."""

    fine: Tensor  # (B, N_0, C_0) the embedded patches
    mid: Tensor  # (B, N_1, C_1)
    coarse: Tensor  # (B, N_2, C_2)
    query: Tensor  # (B, C_3, N_3), channels first
    base: Tensor  # (B, C_3, N_3), channels first; normalised output of the last stage


class SwinPyramid(nn.Module):
    """Swin V2 as a pyramid of stage inputs; `patch_embed`, `layers` and `norm` are timm's modules and carry its names.

    Blocks add their normalised branches, and those norms start at zero: an untrained backbone is a chain of identities.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        # imported here: timm takes seconds to import, and a configuration is checked without it
        from timm.models.swin_transformer_v2 import SwinTransformerV2, WindowAttention

        from goae.models.window_attention import FusedWindowAttention

        swin = SwinTransformerV2(
            img_size=config.image_resolution,
            patch_size=config.patch_size,
            num_classes=0,
            embed_dim=config.embed_dim,
            depths=tuple(config.depths),
            num_heads=tuple(config.num_heads),
            window_size=config.window_size,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            pretrained_window_sizes=tuple(config.pretrained_window_sizes),
        )
        for module in swin.modules():
            if isinstance(module, WindowAttention):
                module.__class__ = FusedWindowAttention  # the same parameters, another way through them
        self.patch_embed, self.layers, self.norm = swin.patch_embed, swin.layers, swin.norm

    def forward(self, image: Tensor) -> Pyramid:
        """Image (B, 3, H, W) in [-1, 1] with H = W = `config.image_resolution` -> `Pyramid`.

        Raises: ValueError if the image has another shape.
        """
        side = self.config.image_resolution
        if image.shape[1:] != (3, side, side):
            raise ValueError(
                f"the encoder expects images of shape (B, 3, {side}, {side}), got {tuple(image.shape)}; resize the "
                "image or change encoder.backbone.image_resolution"
            )
        x = self.patch_embed(image)  # (B, h, w, C), as everything inside
        taps = []
        for stage in self.layers:
            x = stage.get_submodule("downsample")(x)  # identity in stage 0
            taps.append(x.flatten(1, 2))
            for block in stage.get_submodule("blocks").children():
                x = block(x)
        base = self.norm(x).flatten(1, 2)
        return Pyramid(taps[0], taps[1], taps[2], taps[3].transpose(1, 2), base.transpose(1, 2))
