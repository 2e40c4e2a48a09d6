"""IDE-3D's encoder on EG3D: an image and its part labels -> ws (paper, Sec. 5 and App. A).

Known from the paper: IDE-3D "uses semantic segmentation to re-train EG3D" and "learns an encoder to get a latent code";
the comparison takes this encoder alone, without the tuning of the generator that follows in IDE-3D. Its row of Table 1
belongs to IDE-3D's own generator and weights.

Known from IDE-3D's publication (SIGGRAPH Asia 2022): its generator renders images and segmentation maps from separate
codes of geometry and texture, and its hybrid inversion starts from codes that a semantic encoder and a texture encoder
give, the first from the segmentation map, the second from the image.

Assumed, since neither says it: both encoders are a trunk, a pyramid and style blocks as pSp's; the map is one-hot, made
of the input by the parser that the losses use too, averaged to the encoder's resolution; the losses are the other
rivals' L_rec, without a latent discriminator and without L_w+.

What differs: our EG3D has one code for geometry and texture. The semantic encoder writes the leading
`geometry_rows` rows of ws, those that make F, and the texture encoder all others. Since these leading rows hold coarse
colours too, `geometry_sees=both` shows the image to the semantic encoder beside the map.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from goae.models.pyramid_encoder import RivalConfig, StylePyramid, WholeEncoder


class PartParser(NamedTuple):
    """A frozen network of part labels: images (B, 3, H, W) in [-1, 1] -> logits (B, num_parts, h, w), and num_parts."""

    logits: Callable[[Tensor], Tensor]
    num_parts: int


class IDE3DEncoder(WholeEncoder):
    """A semantic encoder for the leading rows and a texture encoder for the others.

    The parser is no part of the module: it is neither trained nor stored with it.
    """

    def __init__(self, config: RivalConfig, num_ws: int, w_dim: int, parser: PartParser) -> None:
        """Raises: ValueError if one of the two encoders has no row to write."""
        super().__init__(config, num_ws, w_dim)
        if not 0 < config.geometry_rows < num_ws:
            raise ValueError(
                f"rival.geometry_rows={config.geometry_rows} must leave rows to both encoders; ws has {num_ws}"
            )
        self.parser = parser
        channels = parser.num_parts + (3 if config.geometry_sees == "both" else 0)
        self.semantic = StylePyramid(config, channels, range(config.geometry_rows), w_dim)
        self.texture = StylePyramid(config, 3, range(config.geometry_rows, num_ws), w_dim)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, h, h) -> (B, num_ws, w_dim); no gradient flows through the part labels."""
        parts = self.parts(image)
        seen = torch.cat([parts, image], dim=1) if self.config.geometry_sees == "both" else parts
        return torch.cat([self.semantic(seen), self.texture(image)], dim=1)

    @torch.no_grad()
    def parts(self, image: Tensor) -> Tensor:
        """How much of each pixel the likeliest parts take: (B, num_parts, h, h), adding up to 1."""
        likeliest = self.parser.logits(image).argmax(1)
        shares = F.one_hot(likeliest, self.parser.num_parts).movedim(-1, 1).to(image.dtype)
        return F.adaptive_avg_pool2d(shares, image.shape[-1])
