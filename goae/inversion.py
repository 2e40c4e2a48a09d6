"""One photo -> a 3D head: invert once, then render and edit at will (paper, Sec. 4, Fig. 4).

An `Inversion` is a plain value: codes, refined features and visibility, with the mixed tri-planes that follow from
them. Files hold all but the planes, which the same generator makes again bit by bit.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eg3d.cameras import LABEL_LENGTH, check_label
from eg3d.checkpoint import generator_hash
from eg3d.integrity import load_tensors, save_tensors
from eg3d.nn.backbone import Features
from eg3d.transfer import send
from torch import Tensor

from goae.models.goae import GOAE
from goae.models.latent_inverter import View
from goae.models.occlusion import draw_sigmas, mix_planes
from goae.photos import Photo, photos
from goae.precision import without_tf32

FORMAT = "goae-inversion-1"
Numbers = Tensor | np.ndarray | Sequence[Any]
_NOT_FINITE = (
    "weights or a direction hold NaN or Inf, or half precision overflowed. Get the weights again, or give "
    "force_fp32=True to load_inverter (force_fp32=true to a script)"
)
STORED = ("ws", "late_ws", "c", "features", "visibility", "sigmas")


@dataclass(frozen=True)
class Inversion:
    """What `Inverter.invert` returns, for a batch of B images."""

    ws: Tensor  # (B, num_ws, w_dim), w_avg included
    late_ws: Tensor  # (B, num_ws, w_dim), the code whose rows above F make the refined planes; ws, but for some edits
    c: Tensor  # (B, 25) label of the input camera, on which visibility depends
    features: Tensor  # F*, (B, C, r, r)
    visibility: Tensor  # (B, 3, 1, P, P) in [0, 1], 1 is seen by the input camera
    sigmas: Tensor  # (B, 2) widths of the mask's blurs; an edit blurs the same way
    planes: Tensor  # (B, 3, C, P, P), mixed; not stored in files
    generator: str  # hash of the generator's weights
    edited: bool = False  # by `Inverter.edit`

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with everything but the planes; its folder is made if it is missing."""
        path = _path(path)
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder; give the name of a file in it, for example {path / 'head.safetensors'}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name).detach().cpu().contiguous().clone() for name in STORED}
        save_tensors(
            tensors, path, metadata={"format": FORMAT, "generator": self.generator, "edited": str(self.edited)}
        )

    @staticmethod
    def load(path: str | Path, inverter: "Inverter") -> "Inversion":
        """Read a file that `save` wrote and make its planes again.

        Raises: FileNotFoundError; ValueError if it is no such file, or was made with another generator.
        """
        path = _path(path)
        if not isinstance(inverter, Inverter):
            raise ValueError(f"inverter is of type {type(inverter).__name__}; expected the Inverter of its generator")
        tensors, generator, edited = _read(path)
        if generator != inverter.generator_hash:
            raise ValueError(
                f"{path} was made with a generator whose weights have hash {generator[:12]}, but the one in hand has "
                f"{inverter.generator_hash[:12]}: codes mean nothing to another generator. Load that generator, or "
                "invert the image again."
            )
        try:
            return inverter.assemble(**{name: tensors[name] for name in STORED}, edited=edited)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from error


class Inverter:
    """Inversion, rendering and editing with a GOAE module; no gradients, and nothing remembered between calls.

    Float32 is computed in full: TF32 is off within the calls, whatever the caller has chosen.
    """

    def __init__(self, goae: GOAE) -> None:
        """Puts the module into evaluation mode; its device is where everything happens."""
        self.goae = goae.eval()
        self.generator_hash = generator_hash(goae.generator)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.goae.generator.parameters()).device

    @torch.inference_mode()
    @without_tf32()
    def invert(self, image: Photo, c: Numbers, *, sigmas: Numbers | None = None, seed: int = 0) -> Inversion:
        """Invert photos that show a face, cropped and aligned as the generator's training images were.

        Args:
            image: (B, 3, H, H) float in [-1, 1]; or uint8 (H, H, 3) or (B, H, H, 3); or a PIL image or the path of a
                file; or a list of them. They reach the encoder by PIL's bicubic resize, as the released one expects.
            c: (25,) or (B, 25) labels of the cameras that took them, at the generator's radius; a tensor, an array or
                lists.
            sigmas: (B, 2) widths of the mask's blurs, where the mask is blurred; None: as configured.
            seed: of random blur widths (`mix.sigma` null, as in the official preset).
        Raises: ValueError naming what is wrong with an image or a label, or if what comes out is not finite.
        """
        goae, config = self.goae, self.goae.generator.config
        full, small = photos(image, config.image_resolution, goae.encoder_resolution)
        full, small = send(full, self.device), send(small, self.device)
        c = self._labels(c, len(full), radius=config.avg_camera_radius)
        if not isinstance(seed, Integral):
            raise ValueError(f"seed is {seed!r}; expected an integer")
        if sigmas is None:
            sigmas = draw_sigmas(goae.config.mix, len(full), torch.Generator().manual_seed(seed))
        else:
            sigmas = _fitting(sigmas, (len(full), 2), "sigmas", "widths of two blurs for each image")
        code = goae.invert_w(full, c, encoder_image=small)
        refined = goae.refine_planes(full, code)
        mixed = goae.mix(code.planes, refined.planes, c, sigmas=sigmas)
        visibility, star = mixed.visibility, refined.features.x
        return _finite(Inversion(code.ws, code.ws, c, star, visibility, sigmas, mixed.planes, self.generator_hash))

    @torch.inference_mode()
    @without_tf32()
    def render(self, inversion: Inversion, c: Numbers, *, resolution: int | None = None) -> View:
        """Render from other cameras: always the mixed planes.

        Args:
            c: (25,) or (B, 25) labels; one camera serves all images, and one image all cameras.
            resolution: of the raw render; None: the generator's own.
        Raises: ValueError for a label that is none, or if the image is not finite.
        """
        _check_inversion(inversion)
        if resolution is not None and not isinstance(resolution, Integral):
            raise ValueError(f"resolution is {resolution!r}; expected an integer")
        return self._render(inversion, self._labels(c, len(inversion.ws)), resolution)

    @torch.inference_mode()
    @without_tf32()
    def reconstruct(self, inversion: Inversion) -> View:
        """Render the input camera: from the mixed planes, or the refined ones where `mix.input_view` is F*.

        An edited head is shown mixed in every view, as in the released code.
        """
        _check_inversion(inversion)
        if inversion.edited or self.goae.config.mix.input_view == "mix":
            return self._render(inversion, inversion.c)
        generator = self.goae.generator
        skip = generator.features(inversion.ws, self.goae.feature_resolution).skip
        planes_f = generator.planes(Features(inversion.features, skip), inversion.late_ws)
        return _finite_view(self.goae.render(planes_f, inversion.ws, inversion.c))

    @torch.inference_mode()
    @without_tf32()
    def edit(self, inversion: Inversion, delta_ws: Numbers, *, late_rows: str | None = None) -> Inversion:
        """Move the code by delta_ws and the refined features with it: F̂* = F* + F^ŵ − F^w (Eq. 10).

        The mask is made again from the depth of the edited head under the input camera.

        Args:
            delta_ws: (num_ws, w_dim) for all images, or (B, num_ws, w_dim).
            late_rows: which rows above F make the refined planes: "edited" (paper) or "source" (release);
                None: `edit_late_rows` of the configuration.
        Raises: ValueError for a direction of another shape, or if what comes out is not finite.
        """
        _check_inversion(inversion)
        goae = self.goae
        late_rows = late_rows or goae.config.edit_late_rows
        if late_rows not in ("edited", "source"):
            raise ValueError(f"late_rows is {late_rows!r}; expected edited or source")
        expected = f"numbers of shape {tuple(inversion.ws.shape[1:])}"
        delta = send(_numbers(delta_ws, "delta_ws", expected), inversion.ws)
        if delta.shape not in (inversion.ws.shape, inversion.ws.shape[1:], (1, *inversion.ws.shape[1:])):
            raise ValueError(
                f"delta_ws has shape {tuple(delta.shape)}; expected {tuple(inversion.ws.shape[1:])} for all images, or "
                f"{tuple(inversion.ws.shape)}"
            )
        ws, late = inversion.ws + delta, inversion.late_ws + delta if late_rows == "edited" else inversion.late_ws
        edited, star = goae.edit_features(inversion.features, inversion.ws, ws)
        planes_w, planes_f = goae.generator.planes(edited, ws), goae.generator.planes(star, late)
        mixed = goae.mix(planes_w, planes_f, inversion.c, sigmas=inversion.sigmas)
        c, sigmas = inversion.c, inversion.sigmas
        moved = Inversion(ws, late, c, star.x, mixed.visibility, sigmas, mixed.planes, inversion.generator, edited=True)
        return _finite(moved)

    @torch.inference_mode()
    @without_tf32()
    def assemble(
        self,
        *,
        ws: Tensor,
        late_ws: Tensor,
        c: Tensor,
        features: Tensor,
        visibility: Tensor,
        sigmas: Tensor,
        edited: bool = False,
    ) -> Inversion:
        """Make an inversion from its stored parts: the planes follow from them.

        Raises: ValueError if a part does not fit the networks.
        """
        generator, side = self.goae.generator, self.goae.feature_resolution
        if features.ndim == 4 and features.shape[-1] != side:
            raise ValueError(
                f"the inversion holds F* of {features.shape[-1]}², but feature alignment works at {side}²; load it "
                "with the feature alignment it was made with"
            )
        codes = (len(ws), generator.num_ws, generator.config.w_dim)
        ws, late_ws = (
            _fitting(x, codes, name, "codes").to(self.device) for name, x in (("ws", ws), ("late_ws", late_ws))
        )
        c, sigmas = self._labels(c, len(ws)), _fitting(sigmas, (len(ws), 2), "sigmas", "widths of two blurs")
        coded = generator.features(ws, side)
        features = _fitting(features, tuple(coded.x.shape), "features", "F*").to(self.device)
        planes_w = generator.planes(coded, ws)
        batch, axes, _, *size = planes_w.shape
        visibility = _fitting(visibility, (batch, axes, 1, *size), "visibility", "a mask of planes").to(self.device)
        planes_f = generator.planes(Features(features, coded.skip), late_ws)
        planes = mix_planes(planes_w, planes_f, visibility)
        return _finite(Inversion(ws, late_ws, c, features, visibility, sigmas, planes, self.generator_hash, edited))

    def _render(self, inversion: Inversion, c: Tensor, resolution: int | None = None) -> View:
        """Render under labels (B, 25) that were checked."""
        one = len(inversion.ws) == 1
        planes, ws = (x.expand(len(c), *x.shape[1:]) if one else x for x in (inversion.planes, inversion.ws))
        return _finite_view(self.goae.render(planes, ws, c, resolution=resolution))

    def _labels(self, c: Numbers, batch: int, radius: float | None = None) -> Tensor:
        """(B, 25) float32 on the device; a single label serves the whole batch. They are checked on the host."""
        c = _numbers(c, "a camera label", f"{LABEL_LENGTH} numbers, or as many for each image").float().cpu()
        check_label(c, radius, centred=radius is not None)
        c = send(c.view(-1, c.shape[-1]), self.device)
        if len(c) != batch and len(c) != 1 and not (radius is None and batch == 1):
            raise ValueError(f"{len(c)} camera labels were given for {batch} images; give one for all or one for each")
        return c.expand(batch, -1) if len(c) == 1 else c


def _numbers(value: Numbers, what: str, expected: str) -> Tensor:
    """A tensor of real numbers out of one, an array or lists."""
    try:
        if isinstance(value, list | tuple) and value and all(isinstance(part, Tensor) for part in value):
            value = torch.stack(list(value))
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} is of type {type(value).__name__} ({error}); expected {expected}") from error
    if found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"{what} has type {found.dtype}; expected {expected}")
    return found


def _fitting(value: Numbers, shape: tuple[int, ...], what: str, meaning: str) -> Tensor:
    found = _numbers(value, what, f"{meaning}, {shape}")
    if found.shape != shape:
        raise ValueError(f"{what} has shape {tuple(found.shape)}; expected {meaning}, {shape}")
    return found if found.is_floating_point() else found.float()


def _path(path: str | Path) -> Path:
    if not isinstance(path, str | PathLike):
        raise ValueError(
            f"path is of type {type(path).__name__}; expected that of a file, for example head.safetensors"
        )
    return Path(path).expanduser()


def _check_inversion(inversion: Inversion) -> None:
    if not isinstance(inversion, Inversion):
        raise ValueError(f"inversion is of type {type(inversion).__name__}; expected what Inverter.invert returned")


def _finite(inversion: Inversion) -> Inversion:
    """The inversion. Raises: ValueError if it has numbers that are not finite, which would make black pictures."""
    parts = (inversion.ws, inversion.late_ws, inversion.features, inversion.planes)
    ends = [end for part in parts for end in part.aminmax()]  # NaN passes on; 2 ms of planes of 256², not 59
    if not torch.stack(ends).isfinite().all():
        raise ValueError(f"the inversion is not finite: {_NOT_FINITE}")
    return inversion


def _finite_view(view: View) -> View:
    if not view.image.isfinite().all():
        raise ValueError(f"a rendered image is not finite: {_NOT_FINITE}")
    return view


def read_stored(path: Path, *, saver: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a stored inversion, of whatever format; `saver` is what writes such files.

    Raises: FileNotFoundError; ValueError if it is damaged, or no safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no inversion at {path}; `{saver}` writes one")
    return load_tensors(path, remedy="Invert the image again.")


def _read(path: Path) -> tuple[dict[str, Tensor], str, bool]:
    """Tensors and generator hash of a stored inversion, and whether it was edited (files of old do not say)."""
    tensors, metadata = read_stored(path, saver="Inversion.save")
    missing = [name for name in STORED if name not in tensors] + ["generator"] * ("generator" not in metadata)
    if metadata.get("format") != FORMAT or missing:
        found = json.dumps(metadata.get("format"))
        raise ValueError(f"{path} is no inversion: format {found}, expected {FORMAT!r}; missing parts: {missing}")
    return tensors, metadata["generator"], metadata.get("edited") == "True"
