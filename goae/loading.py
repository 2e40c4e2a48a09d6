"""From files to an `Inverter`, by plain JSON and without Hydra."""

from dataclasses import asdict
from pathlib import Path

import torch
from eg3d import checkpoint
from eg3d.generator import TriPlaneGenerator
from eg3d.ops.choice import using
from eg3d.uninitialized import Uninitialized
from torch import nn

from goae.inversion import Inverter
from goae.models import published
from goae.models.afa import AFA, AFAConfig
from goae.models.encoder import Encoder, EncoderConfig
from goae.models.goae import GOAE, GOAEConfig
from goae.models.goae import preset as named_preset
from goae.models.latent_inverter import LatentEncoder
from goae.models.storage import Stored, is_stored, read_model, restore, save_model
from goae.states import load_strictly
from goae.weights import find


def load_inverter(
    *,
    generator: str | Path | TriPlaneGenerator,
    encoder: str | Path,
    refiner: str | Path,
    preset: str | GOAEConfig | None = None,
    device: str | torch.device | None = None,
    allow_unexpected: bool = False,
    force_fp32: bool = False,
    impl: str = "auto",
) -> Inverter:
    """Load an inverter from weights: released files, or our own (.safetensors with its .json).

    Args:
        generator: published .pkl, our .safetensors, or a generator in hand.
        encoder, refiner: the encoder's and the feature alignment's weights. A file without a .json beside it is taken
            as a released one: released sizes, released names.
        preset: "paper" or "official", or a whole configuration. None: what a refiner of ours was saved with; official
            for a released one.
        device: where to; None: where the generator is.
        allow_unexpected: ignore, with a warning, tensors in released files that the networks do not have.
        force_fp32: run the super-resolution in float32 on CUDA, where a published generator takes half precision; of
            a generator in hand, its constructor decides.
        impl: of the operators, "auto", "ref", "cpu" or "cuda", see `eg3d.ops.choice`; of a generator in hand, its
            constructor decides.
    Raises: FileNotFoundError; ValueError if a file does not fit, listing the tensors concerned, or for a device that
        is not there.
    """
    if device is not None:
        _check_device(device)
    with using(impl):
        if not isinstance(generator, TriPlaneGenerator):
            generator = read_generator(generator, force_fp32=force_fp32)
        encoding = load_encoder(encoder, generator, allow_unexpected=allow_unexpected)
        afa, trained_with = _refiner(find(refiner), allow_unexpected)
    config = named_preset(preset) if isinstance(preset, str) else preset or trained_with
    goae = GOAE(generator, encoding, afa, config)
    return Inverter(goae.to(device or next(generator.parameters()).device))


def read_generator(path: str | Path, *, force_fp32: bool = False) -> TriPlaneGenerator:
    """A stored generator, published .pkl or our .safetensors, a published one also from the cache; on the CPU."""
    return checkpoint.load(find(path), force_fp32=force_fp32)


def load_encoder(path: str | Path, generator: TriPlaneGenerator, *, allow_unexpected: bool = False) -> Encoder:
    """GOAE's encoder from its file, released or our own; arguments and errors as in `load_inverter`."""
    path = find(path)
    if not is_stored(path):
        with Uninitialized():
            encoder = Encoder(EncoderConfig(), generator.num_ws, generator.config.w_dim)
        published.load_encoder(encoder, path, allow_unexpected=allow_unexpected)
        return encoder
    stored = _of_class(path, Encoder)
    config = restore(EncoderConfig, stored.config, "encoder.")
    with Uninitialized():
        encoder = Encoder(config, stored.facts["num_ws"], stored.facts["w_dim"])
    load_strictly(encoder, stored.state, path)
    return encoder


def save_encoder(encoder: LatentEncoder, path: str | Path) -> None:
    """Write an encoder, GOAE's or a rival's, as a .safetensors file and its .json."""
    save_model(encoder, path, num_ws=encoder.num_ws, w_dim=encoder.w_dim)


def save_refiner(afa: AFA, config: GOAEConfig, path: str | Path) -> None:
    """Write feature alignment, with the choices of mixing and editing it was trained with."""
    save_model(afa, path, goae=asdict(config))


def _check_device(device: str | torch.device) -> None:
    """Raises: ValueError if PyTorch cannot use a device of this name."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a PyTorch without CUDA
        told = str(error).split("\n")[0].rstrip(".")
        raise ValueError(
            f"device is {str(device)!r} ({told}); give cpu, or cuda or cuda:N where PyTorch finds GPUs"
        ) from error


def _refiner(path: Path, allow_unexpected: bool) -> tuple[AFA, GOAEConfig]:
    """Feature alignment, and the configuration it comes with."""
    if not is_stored(path):
        with Uninitialized():
            afa = AFA(AFAConfig(variant="official"))
        published.load_afa(afa, path, allow_unexpected=allow_unexpected)
        return afa, named_preset("official")
    stored = _of_class(path, AFA)
    with Uninitialized():
        afa = AFA(restore(AFAConfig, stored.config, "afa."))
    load_strictly(afa, stored.state, path)
    return afa, restore(GOAEConfig, stored.facts["goae"], "goae.")


def _of_class(path: Path, expected: type[nn.Module]) -> Stored:
    stored = read_model(path)
    if stored.name != expected.__name__:
        raise ValueError(f"{path} holds a {stored.name}; expected weights of the {expected.__name__}")
    return stored
