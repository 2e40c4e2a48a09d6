"""Distances between sets of images in a feature space: Fréchet distance and kernel distance (FID and KID).

With Inception features these are FID (Heusel et al., 2017) and KID (Bińkowski et al., 2018), the latter over all pairs
instead of random subsets. Networks of up to 64 features allow sets of a few hundred images, on which 2,048 do not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae.data.cameras import sample_labels
from goae.data.datasets import PosedImages
from goae.paths import path

Features = Callable[[Tensor], Tensor]
BLOCK = 2048  # rows of a kernel matrix at once


@dataclass
class DistributionConfig:
    """How generated images are compared with real ones."""

    features: str = "inception"  # inception | mini | vgg: the network whose features are compared
    features_path: str = path()  # empty: the shipped or cached file
    num_samples: int = 50_000  # generated images
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.num_samples < 2 or self.batch_size < 1:
            raise ValueError(
                f"distribution.num_samples {self.num_samples}, batch_size {self.batch_size}; expected at least 2 and 1"
            )


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of features (N, D) and (M, D), in float64.

    The trace of the root is that of (S_1^(1/2) S_2 S_1^(1/2))^(1/2), which is symmetric. Covariances are unbiased. With
    fewer rows than features it is found from the rows: S_1 = A^T A and S_2 = B^T B make it the sum of the singular
    values of A B^T, (N, M), with A and B the centred rows over (N - 1)^(1/2) and (M - 1)^(1/2).
    Raises: ValueError for fewer than two rows or different widths.
    """
    first, second = _checked(first, second)
    if max(len(first), len(second)) < first.shape[1]:
        a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (first, second))
        shift = (first.mean(0) - second.mean(0)).square().sum()
        return float(shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())
    root = _root(torch.cov(first.T).reshape(first.shape[1], -1))
    cov = torch.cov(second.T).reshape(root.shape)
    cross = torch.linalg.eigvalsh(root @ cov @ root).clamp_min(0).sqrt().sum()
    shift = (first.mean(0) - second.mean(0)).square().sum()
    return float(shift + root.square().sum() + cov.trace() - 2 * cross)


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Unbiased squared MMD of features (N, D) and (M, D) under k(x, y) = (x.y / D + 1)^3, in float64.

    Its mean over independent draws of equal distributions is 0, so that it may be negative. Of inversions and the
    very images that they are of, which are not independent, it is smaller than of other images of these people.
    Raises: ValueError for fewer than two rows or different widths.
    """
    first, second = _checked(first, second)
    within = [
        (_kernel_sum(x, x) - _kernel(x.square().sum(1), x).sum()) / (len(x) * (len(x) - 1)) for x in (first, second)
    ]
    between = _kernel_sum(first, second) / (len(first) * len(second))
    return float(within[0] + within[1] - 2 * between)


def distances(first: Tensor, second: Tensor) -> dict[str, float]:
    """Both distances between two sets of features: `fd` and `kid`."""
    return {"fd": frechet_distance(first, second), "kid": kernel_distance(first, second)}


def compare_sets(real: Tensor, shown: Tensor) -> dict[str, float | int | str]:
    """FID and KID of features (N, D) and (M, D) with what they depend on: both counts, D, and a note where it is due.

    Returns: `fid`, `kid`, `num_real`, `num_shown`, `num_features`; `note` if a covariance lacks full rank.
    """
    found = distances(real, shown)
    counts: dict[str, float | int | str] = {
        "fid": found["fd"],
        "kid": found["kid"],
        "num_real": len(real),
        "num_shown": len(shown),
        "num_features": real.shape[1],
    }
    return counts | note_of_few(min(len(real), len(shown)), real.shape[1])


def note_of_few(fewest: int, num_features: int) -> dict[str, str]:
    """Return a `note` if the smallest set of images is too small for a covariance of full rank."""
    if fewest > num_features:
        return {}
    told = (
        f"{fewest} images span at most {fewest - 1} of {num_features} feature directions, so that a covariance "
        "lacks full rank: FID depends on the number of images, and compares with sets of the same size only"
    )
    return {"note": told}


def check_number(images: PosedImages, *, least: int) -> None:
    """Check that a data set has enough images for distances: two a set, four where its halves are compared.

    Raises: ValueError.
    """
    if len(images) < least:
        raise ValueError(
            f"{images.source.path} has {len(images)} images; distances need at least {least}, and some thousands to "
            f"mean something: give a larger data set"
        )


def floor(real: Tensor) -> dict[str, float]:
    """The distances between every other row and the rest: what real images of this number reach."""
    return {f"{name}_floor": value for name, value in distances(*halves(real)).items()}


def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Every other row, and the rest."""
    return rows[::2], rows[1::2]


@torch.no_grad()
def real_features(images: PosedImages, features: Features, *, batch_size: int, device: torch.device) -> Tensor:
    """Features (N, D) of all images of a data set."""
    found = []
    for start in range(0, len(images), batch_size):
        chunk = [images[i]["image"] for i in range(start, min(start + batch_size, len(images)))]
        found.append(features(torch.stack(chunk).to(device)))
    return torch.cat(found)


@torch.no_grad()
def generated_features(
    generator: TriPlaneGenerator,
    labels: Tensor,
    features: Features,
    *,
    num: int,
    batch_size: int,
    seed: int,
    rank: int = 0,
    num_ranks: int = 1,
    progress: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """Features (num, D) of generated images; rows that other processes have to find are 0, so that a sum joins them.

    Each image has its own z and a label drawn from `labels` (N, 25), which conditions and renders, as in EG3D's FID.
    They depend on the seed alone; renders take midpoints and the stored noise. `progress` hears the rows done.
    """
    generator.eval()
    device = generator.w_avg.device
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(num, generator.config.z_dim, generator=rng)
    c = sample_labels(labels, num, rng)
    size = generator.config.image_resolution
    width = features(torch.zeros(1, 3, size, size, device=device)).shape[1]
    found = torch.zeros(num, width, device=device)
    for start in range(rank * batch_size, num, num_ranks * batch_size):
        rows = slice(start, start + batch_size)
        found[rows] = features(as_stored(generator(z[rows].to(device), c[rows].to(device))))
        progress(min(start + batch_size, num))
    return found


def as_stored(image: Tensor) -> Tensor:
    """Images in [-1, 1] as they come back from 8 bits."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _checked(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise ValueError(
            f"features have shapes {tuple(first.shape)}, {tuple(second.shape)}; expected (N, D), (M, D), N and M >= 2"
        )
    return first.double(), second.double()


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _kernel(products: Tensor, like: Tensor) -> Tensor:
    return (products / like.shape[1] + 1) ** 3


def _kernel_sum(first: Tensor, second: Tensor) -> Tensor:
    """Sum of k over all pairs, in blocks of rows."""
    return torch.stack([_kernel(block @ second.T, first).sum() for block in first.split(BLOCK)]).sum()
