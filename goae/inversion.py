"""One photo -> a 3D head: invert once, then render and edit at will (paper, Sec. 4, Fig. 4).

An `Inversion` is a plain value: codes, refined features and visibility, with the mixed tri-planes that follow from
them. Files hold all but the planes, which the same generator makes again bit by bit.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from eg3d.cameras import check_label
from eg3d.checkpoint import generator_hash
from eg3d.integrity import load_tensors, save_tensors
from eg3d.nn.backbone import Features
from torch import Tensor

from goae.models.goae import GOAE
from goae.models.latent_inverter import View
from goae.models.occlusion import draw_sigmas, mix_planes
from goae.photos import Photo, photos
from goae.precision import without_tf32

FORMAT = "goae-inversion-1"
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
        """Write a safetensors file with everything but the planes."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous().clone() for name in STORED}
        save_tensors(
            tensors, path, metadata={"format": FORMAT, "generator": self.generator, "edited": str(self.edited)}
        )

    @staticmethod
    def load(path: str | Path, inverter: "Inverter") -> "Inversion":
        """Read a file that `save` wrote and make its planes again.

        Raises: FileNotFoundError; ValueError if it is no such file, or was made with another generator.
        """
        tensors, generator, edited = _read(Path(path))
        if generator != inverter.generator_hash:
            raise ValueError(
                f"{path} was made with a generator whose weights have hash {generator[:12]}, but the one in hand has "
                f"{inverter.generator_hash[:12]}: codes mean nothing to another generator. Load that generator, or "
                "invert the image again."
            )
        return inverter.assemble(**{name: tensors[name] for name in STORED}, edited=edited)


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
    def invert(self, image: Photo, c: Tensor, *, sigmas: Tensor | None = None, seed: int = 0) -> Inversion:
        """Invert photos that show a face, cropped and aligned as the generator's training images were.

        Args:
            image: (B, 3, H, H) float in [-1, 1]; or uint8 (H, H, 3) or (B, H, H, 3); or a PIL image or a list of them.
                They reach the encoder by PIL's bicubic resize, as the released encoder expects.
            c: (25,) or (B, 25) labels of the cameras that took them, at the generator's radius.
            sigmas: (B, 2) widths of the mask's blurs, where the mask is blurred; None: as configured.
            seed: of random blur widths (`mix.sigma` null, as in the official preset).
        Raises: ValueError naming what is wrong with an image or a label.
        """
        goae, config = self.goae, self.goae.generator.config
        full, small = photos(image, config.image_resolution, goae.encoder_resolution)
        full, small = full.to(self.device), small.to(self.device)
        c = self._labels(c, len(full), radius=config.avg_camera_radius)
        if sigmas is None:
            sigmas = draw_sigmas(goae.config.mix, len(full), torch.Generator().manual_seed(seed))
        code = goae.invert_w(full, c, encoder_image=small)
        refined = goae.refine_planes(full, code)
        mixed = goae.mix(code.planes, refined.planes, c, sigmas=sigmas)
        visibility, star = mixed.visibility, refined.features.x
        return Inversion(code.ws, code.ws, c, star, visibility, sigmas, mixed.planes, self.generator_hash)

    @torch.inference_mode()
    @without_tf32()
    def render(self, inversion: Inversion, c: Tensor, *, resolution: int | None = None) -> View:
        """Render from other cameras: always the mixed planes.

        Args:
            c: (25,) or (B, 25) labels; one camera serves all images, and one image all cameras.
            resolution: of the raw render; None: the generator's own.
        """
        batch = len(inversion.ws)
        c = self._labels(c, batch)
        planes, ws = (x.expand(len(c), *x.shape[1:]) if batch == 1 else x for x in (inversion.planes, inversion.ws))
        return self.goae.render(planes, ws, c, resolution=resolution)

    @torch.inference_mode()
    @without_tf32()
    def reconstruct(self, inversion: Inversion) -> View:
        """Render the input camera: from the mixed planes, or the refined ones where `mix.input_view` is F*.

        An edited head is shown mixed in every view, as in the released code.
        """
        if inversion.edited or self.goae.config.mix.input_view == "mix":
            return self.render(inversion, inversion.c)
        generator = self.goae.generator
        skip = generator.features(inversion.ws, self.goae.feature_resolution).skip
        planes_f = generator.planes(Features(inversion.features, skip), inversion.late_ws)
        return self.goae.render(planes_f, inversion.ws, inversion.c)

    @torch.inference_mode()
    @without_tf32()
    def edit(self, inversion: Inversion, delta_ws: Tensor, *, late_rows: str | None = None) -> Inversion:
        """Move the code by delta_ws and the refined features with it: F̂* = F* + F^ŵ − F^w (Eq. 10).

        The mask is made again from the depth of the edited head under the input camera.

        Args:
            delta_ws: (num_ws, w_dim) for all images, or (B, num_ws, w_dim).
            late_rows: which rows above F make the refined planes: "edited" (paper) or "source" (release);
                None: `edit_late_rows` of the configuration.
        """
        goae = self.goae
        late_rows = late_rows or goae.config.edit_late_rows
        if late_rows not in ("edited", "source"):
            raise ValueError(f"late_rows is {late_rows!r}; expected edited or source")
        if delta_ws.shape[-2:] != inversion.ws.shape[-2:] or delta_ws.ndim not in (2, 3):
            raise ValueError(
                f"delta_ws has shape {tuple(delta_ws.shape)}; expected {tuple(inversion.ws.shape[1:])}, with or "
                "without a batch in front"
            )
        delta = delta_ws.to(inversion.ws)
        ws, late = inversion.ws + delta, inversion.late_ws + delta if late_rows == "edited" else inversion.late_ws
        edited, star = goae.edit_features(inversion.features, inversion.ws, ws)
        planes_w, planes_f = goae.generator.planes(edited, ws), goae.generator.planes(star, late)
        mixed = goae.mix(planes_w, planes_f, inversion.c, sigmas=inversion.sigmas)
        c, sigmas = inversion.c, inversion.sigmas
        return Inversion(ws, late, c, star.x, mixed.visibility, sigmas, mixed.planes, inversion.generator, edited=True)

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
        """An inversion from its stored parts: the planes follow from them."""
        side = self.goae.feature_resolution
        if features.shape[-1] != side:
            raise ValueError(
                f"the inversion holds F* of {features.shape[-1]}², but feature alignment works at {side}²; load it "
                "with the feature alignment it was made with"
            )
        generator = self.goae.generator
        ws, late_ws, c, features, visibility = (x.to(self.device) for x in (ws, late_ws, c, features, visibility))
        coded = generator.features(ws, side)
        planes_f = generator.planes(Features(features, coded.skip), late_ws)
        planes = mix_planes(generator.planes(coded, ws), planes_f, visibility)
        return Inversion(ws, late_ws, c, features, visibility, sigmas, planes, self.generator_hash, edited)

    def _labels(self, c: Tensor, batch: int, radius: float | None = None) -> Tensor:
        """(B, 25) float32 on the device; a single label serves the whole batch."""
        c = torch.as_tensor(c, dtype=torch.float32, device=self.device)
        check_label(c, radius, centred=radius is not None)
        c = c.view(-1, c.shape[-1])
        if len(c) != batch and len(c) != 1 and not (radius is None and batch == 1):
            raise ValueError(f"{len(c)} camera labels were given for {batch} images; give one for all or one for each")
        return c.expand(batch, -1) if len(c) == 1 else c


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
    missing = [name for name in STORED if name not in tensors]
    if metadata.get("format") != FORMAT or missing:
        found = json.dumps(metadata.get("format"))
        raise ValueError(f"{path} is no inversion: format {found}, expected {FORMAT!r}; missing tensors: {missing}")
    return tensors, metadata["generator"], metadata.get("edited") == "True"
