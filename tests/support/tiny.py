"""A tiny GOAE and tiny rivals with seeded weights: every part real, small in every size."""

from pathlib import Path
from typing import Any

import torch
import yaml
from eg3d.cameras import canonical_label, join_label, pose_from_angles, split_label
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from parity import load_state, make_state, seeded
from torch import Tensor, nn

from goae.models.afa import AFA, AFAConfig
from goae.models.encoder import Encoder, EncoderConfig
from goae.models.goae import GOAE, GOAEConfig
from goae.models.ide3d_encoder import IDE3DEncoder, PartParser
from goae.models.latent_inverter import LatentInverter
from goae.models.pyramid_encoder import E4EEncoder, PSPEncoder, RivalConfig
from goae.models.storage import restore

CONFIGS = Path(__file__).parents[2] / "configs"


def seeded_weights(module: nn.Module, *, equalized: bool) -> None:
    """Fill a module by the rule of the parity files, which gives scenes that are neither empty nor solid."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    load_state(module, make_state(shapes, equalized))


def tiny_values(part: str) -> dict[str, Any]:
    """The values of configs/<part>/tiny.yaml."""
    return yaml.safe_load((CONFIGS / part / "tiny.yaml").read_text())


def tiny_generator(plane_axes: str = "xy,xz,zy") -> TriPlaneGenerator:
    """8 rows of 32, planes of 32², raw render 16², image 32²."""
    config = restore(GeneratorConfig, tiny_values("generator"))
    config.rendering.plane_axes = plane_axes
    generator = TriPlaneGenerator(config)
    seeded_weights(generator, equalized=True)
    return generator


def tiny_goae(
    config: GOAEConfig | None = None, *, variant: str = "paper", generator: TriPlaneGenerator | None = None
) -> GOAE:
    """In evaluation mode; its refined planes differ from the W+ planes."""
    generator = generator or tiny_generator()
    encoder = Encoder(restore(EncoderConfig, tiny_values("encoder")), generator.num_ws, generator.config.w_dim)
    afa = AFA(restore(AFAConfig, tiny_values("afa") | {"variant": variant}))
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


def tiny_rival(
    method: str, generator: TriPlaneGenerator | None = None, *, parser: PartParser | None = None
) -> LatentInverter:
    """psp, e4e or ide3d before the tiny generator, in evaluation mode.

    `parser` is ide3d's; None: parts are darker, middle and brighter pixels.
    """
    generator = generator or tiny_generator()
    sizes = restore(RivalConfig, tiny_values("rival")), generator.num_ws, generator.config.w_dim
    encoder: PSPEncoder | E4EEncoder | IDE3DEncoder
    if method == "ide3d":
        encoder = IDE3DEncoder(*sizes, parser or BRIGHTNESS)
    else:
        encoder = {"psp": PSPEncoder, "e4e": E4EEncoder}[method](*sizes)
    seeded_weights(encoder, equalized=False)
    return LatentInverter(generator, encoder).eval()


def brightness_parts(image: Tensor) -> Tensor:
    """Logits (B, 3, H, W), the largest that of the pixel's part: below -0.2, between, above 0.2."""
    grey = image.mean(1)
    return torch.stack([-grey - 0.2, torch.zeros_like(grey), grey - 0.2], dim=1)


BRIGHTNESS = PartParser(brightness_parts, 3)
