"""The yardstick: every network computed as the released code computes it, from the same weights.

The generator is the library's own with `impl="ref"`: planes sampled in channels-first layout, the samples of all rays
held at once, one group of convolutions for each image. The encoder is timm's Swin V2 as it stands, attention is torch's
`MultiheadAttention` with its weights returned, and feature alignment keeps convolutions and normalisations apart. An
inversion makes three whole images: of the code, of the refined planes (for its depth), and of the view asked for. A
mask from another depth than that image's is made as the library makes it, with plain operators.
"""

import math

import torch
import torch.nn.functional as F
from eg3d.cameras import split_label
from eg3d.generator import TriPlaneGenerator
from eg3d.rendering.rays import rays
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor, nn

from goae.models.afa import AFA, AFAConfig, AFAOutput
from goae.models.attention import CrossAttention
from goae.models.encoder import Encoder, EncoderConfig
from goae.models.goae import GOAE
from goae.models.occlusion import draw_sigmas, mix_planes, surface_points, visibility_masks
from goae.models.swin import Pyramid, SwinConfig, SwinPyramid
from goae.models.window_attention import FusedWindowAttention

ALL_POINTS = 2**62  # samples evaluated at once: all of any render


def plain_generator(generator: TriPlaneGenerator) -> TriPlaneGenerator:
    """The same weights and mode, plain operators, all samples of a render in one piece."""
    plain = TriPlaneGenerator(generator.config, impl="ref", force_fp32=generator.force_fp32).train(generator.training)
    plain.load_state_dict(generator.state_dict())
    plain.renderer.points_at_once = ALL_POINTS
    return plain.requires_grad_(False).to(generator.w_avg.device)


def plain_goae(goae: GOAE) -> GOAE:
    """The same weights in plain networks, in evaluation mode."""
    device = goae.generator.w_avg.device
    encoder = PlainEncoder(goae.encoder.config, goae.encoder.num_ws, goae.encoder.w_dim)
    encoder.load_state_dict(goae.encoder.state_dict())
    afa = PlainAFA(goae.afa.config)
    afa.load_state_dict(goae.afa.state_dict())
    return GOAE(plain_generator(goae.generator), encoder.to(device), afa.to(device), goae.config).eval()


def invert_and_view(goae: GOAE, image: Tensor, c: Tensor, novel_c: Tensor) -> Tensor:
    """The image of a new camera, after an inversion: three renders and three super-resolutions."""
    code = goae.invert_w(image, c)
    refined = goae.refine_planes(image, code)
    generator = goae.generator.config
    rays_per_axis = goae.config.mix.depth_resolution_for(generator.plane_resolution)
    if rays_per_axis == generator.neural_rendering_resolution:
        visibility = _visibility(goae, goae.render(refined.planes, code.ws, c).image_depth, c)
    else:
        visibility = goae.visibility(code.planes, refined.planes, c)
    planes = mix_planes(code.planes, refined.planes, visibility)
    return goae.render(planes, code.ws, novel_c).image


def _visibility(goae: GOAE, depth: Tensor, c: Tensor) -> Tensor:
    """The mask from the depth of the refined image, whose resolution the released code uses for it too."""
    mix, rendering = goae.config.mix, goae.generator.config.rendering
    resolution = goae.generator.config.plane_resolution
    points = surface_points(depth, *rays(*split_label(c), depth.shape[-1]))
    sigmas = draw_sigmas(mix, len(c), torch.Generator().manual_seed(0))
    return visibility_masks(
        points, mix, axes=rendering.plane_axes, resolution=resolution, box_warp=rendering.box_warp, sigmas=sigmas
    )


class PlainCrossAttention(CrossAttention):
    """Cross-attention by torch's module, which also averages and returns the attention weights."""

    def __init__(self, dim: int, *, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__(dim, num_heads=num_heads, feedforward_dim=feedforward_dim, dropout=dropout)
        self.share = dropout
        self.multihead_attn = nn.MultiheadAttention(dim, num_heads, dropout=dropout, batch_first=True)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """(B, n, d) queries and (B, m, d) memory -> (B, n, d)."""
        attended, _ = self.multihead_attn(queries, memory, memory, need_weights=True)
        y = F.layer_norm(queries + self._drop(attended), queries.shape[-1:])
        hidden = self._drop(torch.relu(F.linear(y, self.linear1.weight, self.linear1.bias)))
        return y + self._drop(F.linear(hidden, self.linear2.weight, self.linear2.bias))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.share, self.training)


class PlainPyramid(SwinPyramid):
    """The backbone by timm's own modules."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, FusedWindowAttention):
                module.__class__ = WindowAttention  # type: ignore[assignment]  # the same parameters

    def forward(self, image: Tensor) -> Pyramid:
        """Image (B, 3, H, W) -> the stages' inputs and the normalised output of the last."""
        x = self.patch_embed(image)
        taps = []
        for stage in self.layers:
            x = stage.get_submodule("downsample")(x)
            taps.append(x.flatten(1, 2))
            for block in stage.get_submodule("blocks").children():
                x = block(x)
        base = self.norm(x).flatten(1, 2)
        return Pyramid(taps[0], taps[1], taps[2], taps[3].transpose(1, 2), base.transpose(1, 2))


class PlainEncoder(Encoder):
    """The encoder around `PlainPyramid` and `PlainCrossAttention`."""

    def __init__(self, config: EncoderConfig, num_ws: int, w_dim: int) -> None:
        super().__init__(config, num_ws, w_dim)
        self.swin_model = PlainPyramid(config.backbone)

    def _cross_attention(self) -> CrossAttention:
        config = self.config
        return PlainCrossAttention(
            self.w_dim,
            num_heads=config.attention_heads,
            feedforward_dim=config.feedforward_dim,
            dropout=config.dropout,
        )


class PlainAFA(AFA):
    """Feature alignment layer by layer."""

    def __init__(self, config: AFAConfig) -> None:
        super().__init__(config)
        if config.variant == "official":
            for name in ("cross_att_gamma", "cross_att_beta"):
                setattr(self.modulation, name, _cross_attention(config))
        if config.variant == "paper":
            self.modulation.attention = nn.MultiheadAttention(
                config.feature_channels, config.attention_heads, dropout=config.dropout, batch_first=True
            )

    def forward(self, image: Tensor, image_w: Tensor, features: Tensor) -> AFAOutput:
        """F* = gamma ⊙ F + beta; arguments as for `AFA`."""
        x = image_w - image if self.config.subtracts_image else image - image_w
        for layer in self.input_layer:
            x = layer(x)
        for unit in self.body:
            x = _residual_unit(unit, x)
        x = _equalized(self.output_layer[0], x)
        x = _equalized(self.output_layer[2], F.leaky_relu(x, 0.2) * math.sqrt(2))
        gamma, beta = self._modulation(features, x)
        return AFAOutput(gamma * features + beta, gamma, beta)

    def _modulation(self, features: Tensor, residual_features: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma and beta (B, C, r, r)."""
        how = self.modulation
        if self.config.variant == "conv":
            return how(features, residual_features)
        queries, memory = _tokens(features), _tokens(residual_features)
        if self.config.variant == "official":
            gamma, beta = how.get_submodule("cross_att_gamma"), how.get_submodule("cross_att_beta")
            return _map(gamma(queries, memory), features), _map(beta(queries, memory), features)
        aligned, _ = how.get_submodule("attention")(queries, memory, memory, need_weights=True)
        aligned = _map(aligned, features)
        return how.get_submodule("conv_gamma")(aligned), how.get_submodule("conv_beta")(aligned)


def _cross_attention(config: AFAConfig) -> PlainCrossAttention:
    return PlainCrossAttention(
        config.feature_channels,
        num_heads=config.attention_heads,
        feedforward_dim=config.feedforward_dim,
        dropout=config.dropout,
    )


def _residual_unit(unit: nn.Module, x: Tensor) -> Tensor:
    """BN - Conv3 - PReLU - Conv3 - BN - SE beside the shortcut, one module after the other."""
    y = x
    *layers, excitation = unit.get_submodule("res_layer").children()
    for layer in layers:
        y = layer(y)
    pooled = F.adaptive_avg_pool2d(y, 1)
    fc1, fc2 = excitation.get_submodule("fc1"), excitation.get_submodule("fc2")
    return unit.get_submodule("shortcut_layer")(x) + y * torch.sigmoid(fc2(torch.relu(fc1(pooled))))


def _equalized(layer: nn.Module, x: Tensor) -> Tensor:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return F.conv2d(x, weight * (1 / math.sqrt(weight[0].numel())), bias, padding=1)


def _tokens(x: Tensor) -> Tensor:
    return F.layer_norm(x.flatten(2).transpose(1, 2), x.shape[1:2])


def _map(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(like.shape)
