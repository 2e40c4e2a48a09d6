"""Statistics of the canonical latent space W_c: average background depth and average w (paper, Sec. 3 and 4.1)."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from eg3d.cameras import canonical_label
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from eg3d.integrity import load_tensors, save_tensors
from torch import Tensor

from goae.losses.depth import background_mask

Background = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CanonicalStats:
    """What L_BG and the encoder need to know of W_c.

    d_avg: () mean depth along the ray of all background pixels of front views; d_map: (1, 1, R, R) the same per pixel,
    with d_avg where no sample showed background; w_avg: (w_dim,) mean of w_c; num_samples: images seen; per_ray: coarse
    and fine samples, as in "48 + 48". Fewer of them find depths farther away, in the mini world the background by 0.013
    scene units at 12 + 12 against 24 + 24; so statistics serve the renderer that they were measured with. mask: how
    the background was found, "" where a file of old does not say.
    """

    d_avg: Tensor
    d_map: Tensor
    w_avg: Tensor
    num_samples: int
    generator: str
    per_ray: str
    mask: str = ""

    def save(self, path: Path) -> None:
        """Write a small safetensors file."""
        tensors = {"d_avg": self.d_avg, "d_map": self.d_map, "w_avg": self.w_avg}
        meta = {name: str(getattr(self, name)) for name in ("num_samples", "generator", "per_ray", "mask")}
        save_tensors({n: t.contiguous() for n, t in tensors.items()}, path, metadata=meta)

    @classmethod
    def load(cls, path: Path, generator: TriPlaneGenerator, *, mask: str = "") -> "CanonicalStats":
        """Read a file that `save` wrote for this very generator, with as many samples per ray and the same `mask`.

        Raises: FileNotFoundError naming the command that makes it; ValueError if it is damaged, or of other weights,
            samples or mask.
        """
        if not path.exists():
            raise FileNotFoundError(
                f"The canonical statistics {path} do not exist. Make them once for each generator with "
                f"`python scripts/canonical_stats.py experiment=...`, or set paths.canonical_stats to the file."
            )
        tensors, meta = load_tensors(path, remedy="Delete it and run `python scripts/canonical_stats.py`.")
        if meta["generator"] != generator_hash(generator):
            raise ValueError(
                f"The canonical statistics {path} were made for a generator with hash {meta['generator'][:12]}, but "
                f"the one in hand has {generator_hash(generator)[:12]}. Run `python scripts/canonical_stats.py` for it."
            )
        per_ray = meta.get("per_ray", "an unknown number of")
        if per_ray != samples_per_ray(generator):
            raise ValueError(
                f"The canonical statistics {path} were measured with {per_ray} samples per ray, but depths are to be "
                f"compared at {samples_per_ray(generator)}. Run `python scripts/canonical_stats.py` for the "
                f"experiment that is trained, with paths.canonical_stats to keep both files."
            )
        known = meta.get("mask", "")
        if known and mask and known != mask:
            raise ValueError(
                f"The canonical statistics {path} were measured where background is found by {known}, but it is to be "
                f"found by {mask}. Run `python scripts/canonical_stats.py` for the experiment that is trained, with "
                f"paths.canonical_stats to keep both files."
            )
        sums = tensors["d_avg"], tensors["d_map"], tensors["w_avg"]
        return cls(*sums, int(meta["num_samples"]), meta["generator"], per_ray, known)

    def digest(self) -> str:
        """Hash of the numbers."""
        found = hashlib.sha256()
        for tensor in (self.d_avg, self.d_map, self.w_avg):
            found.update(tensor.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def samples_per_ray(generator: TriPlaneGenerator) -> str:
    """Coarse and fine samples that a generator takes."""
    rendering = generator.config.rendering
    return f"{rendering.depth_resolution} + {rendering.depth_resolution_importance}"


@torch.no_grad()
def canonical_statistics(
    generator: TriPlaneGenerator,
    background: Background,
    *,
    num_samples: int,
    batch_size: int,
    seed: int,
    partial: Path | None = None,
    erode: int = 1,
    mask: str = "",
) -> Iterator[CanonicalStats]:
    """Sample W_c, render front views and average their background depth; yields after every batch.

    Each batch has its own seed, so that with `partial`, where the running sums are kept, a stopped run continues
    with the same result.

    Args:
        background: (image (B, 3, H, W) in [-1, 1], depth (B, 1, R, R)) -> (B, 1, h, w), 1 where it is background.
        erode: pixels by which the mask is shrunk, away from silhouettes.
        mask: how `background` and `erode` find it, in words, to be kept with the numbers.
    Raises: ValueError, at the end, if no sample showed any background.
    """
    device = generator.w_avg.device
    c0 = canonical_label().to(device)
    resolution = generator.config.neural_rendering_resolution
    sums = {
        "seen": torch.zeros((), dtype=torch.float64, device=device),
        "depth": torch.zeros(1, 1, resolution, resolution, dtype=torch.float64, device=device),
        "count": torch.zeros(1, 1, resolution, resolution, dtype=torch.float64, device=device),
        "w": torch.zeros_like(generator.w_avg, dtype=torch.float64),
    }
    identity = generator_hash(generator)
    settings = {"generator": identity, "batch_size": str(batch_size), "seed": str(seed), "erode": str(erode)}
    settings |= {"per_ray": samples_per_ray(generator), "mask": mask}
    if partial is not None and partial.exists():
        sums = _read_partial(partial, settings, device)
    while int(sums["seen"]) < num_samples:
        seen = int(sums["seen"])
        size = min(batch_size, num_samples - seen)
        rng = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, seen]).generate_state(1)[0]))
        z = torch.randn(size, generator.config.z_dim, generator=rng).to(device)
        c = c0.expand(size, -1)
        ws = generator.mapping(z, c)
        front = generator.synthesis(ws, c)
        behind = background_mask(background(front.image, front.image_depth), resolution, erode).double()
        sums["seen"] += size
        sums["depth"] += (front.image_depth.double() * behind).sum(0, keepdim=True)
        sums["count"] += behind.sum(0, keepdim=True)
        sums["w"] += ws[:, 0].double().sum(0)
        if partial is not None:
            _write_partial(sums, partial, settings)
        yield _finish(sums, settings)


def _finish(sums: dict[str, Tensor], settings: dict[str, str]) -> CanonicalStats:
    count = sums["count"].sum()
    if count == 0:
        raise ValueError(
            "No background was found in any sampled front view. Check the background network (perception.background) "
            "and that it belongs to this generator."
        )
    d_avg = sums["depth"].sum() / count
    d_map = torch.where(sums["count"] > 0, sums["depth"] / sums["count"].clamp(min=1), d_avg)
    w_avg = sums["w"] / sums["seen"]
    told = settings["generator"], settings["per_ray"], settings["mask"]
    return CanonicalStats(d_avg.float(), d_map.float(), w_avg.float(), int(sums["seen"]), *told)


def _write_partial(sums: dict[str, Tensor], path: Path, settings: dict[str, str]) -> None:
    save_tensors(sums, path, metadata={"settings": json.dumps(settings)})


def _read_partial(path: Path, settings: dict[str, str], device: torch.device) -> dict[str, Tensor]:
    sums, metadata = load_tensors(path, device=device, remedy="Delete it to start again.")
    found = json.loads(metadata["settings"])
    if found != settings:
        raise ValueError(f"{path} holds sums made with {found}, not {settings}. Delete it to start again.")
    return sums
