"""Tuning a generator to one image at a fixed code: the second half of PTI and of Pose Opt. (paper, App. B).

    θ* = argmin_θ  λ_2 ‖G_θ(ws, c) − I‖² + λ_LPIPS LPIPS(G_θ(ws, c), I)        (Roich et al., 2022, Sec. 3.2)

The shared generator is never written to: tuned tensors live beside it, one set for each image, and are put in its place
for the time of a render by `torch.func.functional_call`.

The paper says that it replaces PTI's 2D generator by EG3D's and keeps the official settings. PTI tunes the synthesis
network; what that is in EG3D is our choice: everything behind the mapping network, which is backbone, decoder and
super-resolution. Locality regularisation is off, as in the official settings.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from eg3d.integrity import save_tensors
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize

from goae.baselines.optimization import Distance, Progress, sized
from goae.inversion import read_stored
from goae.models.latent_inverter import View
from goae.models.sampling import with_samples

PARTS = {"backbone": "backbone.synthesis.", "decoder": "decoder.", "superresolution": "superresolution."}
FORMAT = "goae-tuned-1"
Weights = dict[str, Tensor]


@dataclass
class TuningConfig:
    """How a generator is tuned; the defaults are PTI's official settings."""

    steps: int = 350
    lr: float = 3e-4  # of Adam, constant
    l2: float = 1.0  # of the mean squared error
    lpips: float = 1.0  # of the perceptual distance; 0 skips its network
    lpips_resolution: int = 0  # images are resized to it for the perceptual network; 0: their own
    stop_lpips: float = 0.06  # an image is done as soon as its perceptual distance is below; 0: never
    parts: list[str] = field(default_factory=lambda: list(PARTS))  # of the generator that are tuned
    locality: float = 0.0  # of keeping images near the code as they were; PTI proposes 0.1; 0: off
    locality_distance: float = 30.0  # between the code and those near it (PTI's alpha)
    samples: int = 0  # coarse and fine samples per ray while tuning; 0: the generator's own numbers
    seed: int = 0  # of where the samples lie, and of the codes near the code

    def __post_init__(self) -> None:
        if min(self.steps, self.samples, self.lpips_resolution) < 0 or self.lr <= 0:
            raise ValueError(
                f"tuning.steps {self.steps}, samples {self.samples}, lpips_resolution {self.lpips_resolution}, lr "
                f"{self.lr}; expected lr > 0 and no other below 0"
            )
        if min(self.l2, self.lpips, self.locality, self.stop_lpips) < 0 or not (self.l2 or self.lpips):
            raise ValueError(
                f"tuning.l2 {self.l2}, lpips {self.lpips}, locality {self.locality}, stop_lpips {self.stop_lpips}; "
                "expected none below 0, and l2 or lpips above"
            )
        if self.stop_lpips and not self.lpips:
            raise ValueError("tuning.stop_lpips needs the perceptual distance: set tuning.lpips above 0, or it to 0")
        if not self.parts or set(self.parts) - PARTS.keys():
            raise ValueError(f"tuning.parts is {self.parts}; expected one or more of {', '.join(PARTS)}")


@dataclass(frozen=True)
class Tuned:
    """B images, each with a code, a camera and a generator of its own."""

    ws: Tensor  # (B, num_ws, w_dim)
    c: Tensor  # (B, 25), the cameras under which the images were fitted
    given: Tensor  # (B, 25), the cameras that `invert` was given; c, unless the method estimates cameras
    weights: tuple[Weights, ...]  # of each image: those of the generator's tensors that tuning has changed
    code_steps: int  # iterations spent on each code
    tuning_steps: tuple[int, ...]  # iterations spent on each generator; fewer than configured where it stopped early
    generator: str  # hash of the shared generator's weights

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; per image it holds nearly a generator: 5 MB in the mini world, 120 MB for faces."""
        tensors = {"ws": self.ws, "c": self.c, "given": self.given, "tuning_steps": torch.tensor(self.tuning_steps)}
        for i, weights in enumerate(self.weights):
            tensors |= {f"weights.{i}.{name}": tensor for name, tensor in weights.items()}
        stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        metadata = {"format": FORMAT, "generator": self.generator, "code_steps": str(self.code_steps)}
        save_tensors(stored, path, metadata=metadata)

    @staticmethod
    def load(path: str | Path, generator: TriPlaneGenerator) -> "Tuned":
        """Read what `save` wrote, onto the device of the generator it was made with.

        Raises: FileNotFoundError; ValueError if it is no such file, or was made with another generator.
        """
        tensors, metadata = _read(Path(path))
        own = generator_hash(generator)
        if metadata["generator"] != own:
            raise ValueError(
                f"{path} was made with a generator whose weights have hash {metadata['generator'][:12]}, but the one "
                f"in hand has {own[:12]}. Load that generator, or invert the image again."
            )
        tensors = {name: tensor.to(generator.w_avg.device) for name, tensor in tensors.items()}
        steps = tuple(tensors["tuning_steps"].tolist())
        weights: tuple[Weights, ...] = tuple({} for _ in steps)
        for name, tensor in tensors.items():
            if name.startswith("weights."):
                _, i, rest = name.split(".", 2)
                weights[int(i)][rest] = tensor
        code_steps = int(metadata["code_steps"])
        return Tuned(tensors["ws"], tensors["c"], tensors["given"], weights, code_steps, steps, own)


class GeneratorTuning:
    """Finds each image's tensors, and renders with them; the generator itself stays as it is."""

    def __init__(
        self,
        generator: TriPlaneGenerator,
        config: TuningConfig,
        *,
        lpips: Distance | None,
        progress: Progress = lambda step, losses: None,
    ) -> None:
        """`lpips` maps two batches of images to (B,); `progress` hears the steps done and the last loss (1,).

        Raises: ValueError for a weight without its network.
        """
        if config.lpips and lpips is None:
            raise ValueError("tuning.lpips is not 0, but no perceptual network was given; give one, or set it to 0")
        self.generator = generator.eval().requires_grad_(False)
        self.config, self.lpips, self.progress = config, lpips, progress
        self.shown = _Synthesis(generator)
        self.draft = _Synthesis(with_samples(generator, config.samples)) if config.samples else self.shown
        self.generator_hash = generator_hash(generator)

    @torch.enable_grad()
    def tune(self, ws: Tensor, c: Tensor, image: Tensor) -> tuple[Weights, int]:
        """Fit the generator to one image (1, 3, H, H) at a code (1, num_ws, w_dim) and a camera (1, 25).

        Returns: the tensors that have changed, by their names in the generator, and the number of steps taken.
        Raises: FloatingPointError if a loss is not finite.
        """
        config = self.config
        weights = {name: tensor.clone().requires_grad_(True) for name, tensor in self._tuned_parameters().items()}
        optimizer = torch.optim.Adam(weights.values(), lr=config.lr)
        rng = torch.Generator().manual_seed(config.seed)
        done = 0
        for step in range(config.steps):
            shown = _with(self.draft, weights, ws, c, rng).image
            loss, distance = self._compare(shown, image)
            if config.stop_lpips and float(distance.detach()) < config.stop_lpips:
                break
            if config.locality:
                loss = loss + config.locality * self._locality(weights, ws, c, rng)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {float(loss.detach())} at tuning step {step}; lower tuning.lr")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done = step + 1
            self.progress(done, loss.detach()[None])
        own = self.generator.state_dict()
        return {name: t.detach() for name, t in weights.items() if not torch.equal(t, own[name])}, done

    @torch.no_grad()
    def render(self, tuned: Tuned, c: Tensor) -> View:
        """Render every image with its own generator: from (B, 25) cameras, from one, or one image from many.

        Raises: ValueError if the numbers of images and cameras do not fit, or it was made with another generator.
        """
        if tuned.generator != self.generator_hash:
            raise ValueError("the inversion was made with another generator; invert the image again with this one")
        batch, c = len(tuned.ws), c.to(tuned.ws)
        if batch > 1 and len(c) == 1:
            c = c.expand(batch, -1)
        if batch > 1 and len(c) != batch:
            raise ValueError(f"{len(c)} cameras were given for {batch} images; give one for all or one for each")
        views = [
            _with(self.shown, weights, tuned.ws[i : i + 1], c[i : i + 1] if batch > 1 else c, None)
            for i, weights in enumerate(tuned.weights)
        ]
        return View(*(torch.cat(parts) for parts in zip(*views, strict=True)))

    def _tuned_parameters(self) -> Weights:
        prefixes = tuple(PARTS[part] for part in self.config.parts)
        return {name: p.detach() for name, p in self.generator.named_parameters() if name.startswith(prefixes)}

    def _compare(self, shown: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum of both distances, and the perceptual one; scalars."""
        config = self.config
        squared, distance = (shown - image).square().mean(), shown.new_zeros(())
        if config.lpips and self.lpips is not None:
            size = config.lpips_resolution
            distance = self.lpips(sized(shown, size), sized(image, size)).squeeze()
        return config.l2 * squared + config.lpips * distance, distance

    def _locality(self, weights: Weights, ws: Tensor, c: Tensor, rng: torch.Generator) -> Tensor:
        """The change of the image at w_r = w_p + α (w_z − w_p) / ‖w_z − w_p‖, z random (PTI, Sec. 3.3)."""
        z = torch.randn(1, self.generator.config.z_dim, generator=rng).to(ws)
        direction = normalize(self.generator.mapping(z, c) - ws, dim=-1)
        near = ws + self.config.locality_distance * direction
        seed = int(torch.randint(2**31, (), generator=rng))
        with torch.no_grad():
            before = _with(self.draft, {}, near, c, torch.Generator().manual_seed(seed)).image
        after = _with(self.draft, weights, near, c, torch.Generator().manual_seed(seed)).image
        return self._compare(after, before)[0]


class _Synthesis(nn.Module):
    """A code (1, num_ws, w_dim) seen by cameras (N, 25), as the forward pass that `functional_call` asks for."""

    def __init__(self, generator: TriPlaneGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ws: Tensor, c: Tensor, uniforms: torch.Generator | None) -> View:
        generator = self.generator
        planes = generator.planes(generator.features(ws, generator.config.plane_resolution), ws)
        found = generator.render(planes.expand(len(c), *planes.shape[1:]), c, uniforms=uniforms)
        image = generator.superresolve(found.image_raw, found.feature_image, ws.expand(len(c), *ws.shape[1:]))
        return View(image, found.image_raw, found.image_depth)


def _with(module: _Synthesis, weights: Weights, ws: Tensor, c: Tensor, uniforms: torch.Generator | None) -> View:
    """The render of `module` with `weights` in the place of its generator's own, for this one call."""
    named = {f"generator.{name}": tensor for name, tensor in weights.items()}
    view: View = functional_call(module, named, (ws, c, uniforms))
    return view


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a stored inversion."""
    tensors, metadata = read_stored(path, saver="Tuned.save")
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no tuned inversion: format {metadata.get('format')!r}, expected {FORMAT!r}")
    return tensors, metadata
