"""Inversion by ws alone: GOAE without its second stage, "Ours-w+" in the paper's Table 1, and the rival encoders."""

from pathlib import Path

import torch
from eg3d.generator import TriPlaneGenerator
from eg3d.uninitialized import Uninitialized
from torch import Tensor

from goae.loading import read_generator
from goae.models.ide3d_encoder import IDE3DEncoder, PartParser
from goae.models.latent_inverter import Coded, LatentInverter, View
from goae.models.pyramid_encoder import E4EEncoder, PSPEncoder, RivalConfig
from goae.models.storage import read_model, restore
from goae.precision import without_tf32
from goae.states import load_strictly

RIVALS = ("PSPEncoder", "E4EEncoder", "IDE3DEncoder")


class EncoderOnly:
    """Inversion by ws alone; the same two calls as `Inverter`."""

    def __init__(self, goae: LatentInverter) -> None:
        self.goae = goae.eval()

    @torch.inference_mode()
    @without_tf32()
    def invert(self, image: Tensor, c: Tensor) -> Coded:
        """(B, 3, H, H) in [-1, 1] and labels (B, 25) to codes and planes."""
        return self.goae.invert_w(image.to(self._device), c.to(self._device))

    @torch.inference_mode()
    @without_tf32()
    def render(self, inversion: Coded, c: Tensor) -> View:
        """Render from cameras (B, 25)."""
        return self.goae.render(inversion.planes, inversion.ws, c.to(self._device))

    def reconstruct(self, inversion: Coded) -> View:
        """The view of the input camera, which `invert` has rendered."""
        return inversion.view

    @property
    def _device(self) -> torch.device:
        return self.goae.generator.w_avg.device


def load_rival(
    *,
    generator: str | Path | TriPlaneGenerator,
    encoder: str | Path,
    parser: PartParser | None = None,
    device: str | torch.device | None = None,
) -> EncoderOnly:
    """Load a trained rival encoder: `encoder.safetensors` of its run, the .json beside it.

    Args:
        generator: published .pkl, our .safetensors, or a generator in hand.
        parser: IDE-3D's network of part labels, the one it was trained with, on `device`.
        device: where to; None: where the generator is.
    Raises: FileNotFoundError; ValueError if a file does not fit, or IDE-3D's encoder comes without a parser.
    """
    if not isinstance(generator, TriPlaneGenerator):
        generator = read_generator(generator)
    stored = read_model(encoder)
    if stored.name not in RIVALS:
        raise ValueError(f"{encoder} holds a {stored.name}; expected one of {', '.join(RIVALS)}")
    config = restore(RivalConfig, stored.config, "rival.")
    sizes = config, stored.facts["num_ws"], stored.facts["w_dim"]
    with Uninitialized():
        network = _network(stored.name, sizes, parser, encoder)
    load_strictly(network, stored.state, encoder)
    inverter = LatentInverter(generator, network)
    return EncoderOnly(inverter.to(device or next(generator.parameters()).device))


def _network(
    name: str, sizes: tuple[RivalConfig, int, int], parser: PartParser | None, path: str | Path
) -> PSPEncoder | E4EEncoder | IDE3DEncoder:
    """The encoder of a class name, with no weights yet."""
    if name == "PSPEncoder":
        return PSPEncoder(*sizes)
    if name == "E4EEncoder":
        return E4EEncoder(*sizes)
    if parser is None:
        raise ValueError(f"{path} is IDE-3D's encoder and needs parser=, the network of parts {sizes[0].parts!r}")
    return IDE3DEncoder(*sizes, parser)
