"""A tiny GOAE with seeded weights: every part real, small in every size."""

from pathlib import Path

import torch
import yaml
from eg3d.cameras import canonical_label, join_label, pose_from_angles, split_label
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from eg3d.rendering.renderer import RenderingConfig
from parity import load_state, make_state, seeded
from torch import Tensor, nn

from goae.models.afa import AFA, AFAConfig
from goae.models.encoder import Encoder, EncoderConfig
from goae.models.goae import GOAE, GOAEConfig
from goae.models.storage import restore

CONFIGS = Path(__file__).parents[1] / "configs"


def seeded_weights(module: nn.Module, *, equalized: bool) -> None:
    """Fill a module by the rule of the parity files, which gives scenes that are neither empty nor solid."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    load_state(module, make_state(shapes, equalized))


def tiny_generator(plane_axes: str = "xy,xz,zy") -> TriPlaneGenerator:
    """8 rows of 16, planes of 32², raw render 16², image 32²."""
    config = GeneratorConfig(
        z_dim=16,
        w_dim=16,
        image_resolution=32,
        plane_resolution=32,
        plane_channels=4,
        channel_base=512,
        channel_max=16,
        neural_rendering_resolution=16,
        superresolution="2X",
        superresolution_input=16,
        superresolution_channels=[8, 8],
        sr_num_fp16_res=0,
        rendering=RenderingConfig(depth_resolution=6, depth_resolution_importance=6, plane_axes=plane_axes),
    )
    generator = TriPlaneGenerator(config)
    seeded_weights(generator, equalized=True)
    return generator


def tiny_goae(
    config: GOAEConfig | None = None, *, variant: str = "paper", generator: TriPlaneGenerator | None = None
) -> GOAE:
    """In evaluation mode; its refined planes differ from the W+ planes."""
    generator = generator or tiny_generator()
    encoder_values, afa_values = (yaml.safe_load((CONFIGS / f"{x}/tiny.yaml").read_text()) for x in ("encoder", "afa"))
    encoder = Encoder(restore(EncoderConfig, encoder_values), generator.num_ws, generator.config.w_dim)
    afa = AFA(restore(AFAConfig, afa_values | {"variant": variant}))
    seeded_weights(encoder, equalized=False)
    seeded_weights(afa, equalized=False)
    return GOAE(generator, encoder, afa, config or GOAEConfig()).eval()


def tiny_images(batch: int = 2, size: int = 32) -> Tensor:
    """Smooth images in [-1, 1]."""
    coarse = seeded("tiny/image", [batch, 3, 4, 4])
    return torch.tanh(nn.functional.interpolate(coarse, (size, size), mode="bilinear"))


def tiny_labels(batch: int = 2) -> Tensor:
    """Cameras at different yaws."""
    _, intrinsics = split_label(canonical_label())
    return join_label(pose_from_angles(torch.linspace(-0.3, 0.4, batch), 0.1), intrinsics)
