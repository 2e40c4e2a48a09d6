"""Edit directions of a generator by InterFaceGAN (paper, Sec. 4.4 and App. A, "Editing").

Heads are drawn with the canonical pose as condition and seen from the front. An attribute is scored on each; a linear
SVM learns to tell the codes of the highest from those of the lowest scores, and its unit normal is the direction. A
scorer is any function of images: the mini perception network, or a classifier of the user's, whose scores come by file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from torch import Tensor


@dataclass
class InterFaceGANConfig:
    """Sampling and fit; the defaults are the paper's."""

    num_samples: int = 500_000  # heads that are scored
    extremes: int = 10_000  # with the highest scores, and as many with the lowest
    held_out: float = 0.3  # share of the extremes on which the SVM is checked
    penalty: float = 1.0  # C of the SVM, for codes of unit deviation
    truncation_psi: float = 1.0
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.extremes <= self.num_samples // 2:
            raise ValueError(
                f"sampling.extremes is {self.extremes}; expected from 2 to half of sampling.num_samples "
                f"{self.num_samples}"
            )
        if not 0 < self.held_out < 1 or self.penalty <= 0 or self.batch_size < 1:
            raise ValueError(
                f"sampling.held_out {self.held_out}, penalty {self.penalty}, batch_size {self.batch_size}; expected a "
                f"share between 0 and 1, a positive number, and at least 1"
            )


class Direction(NamedTuple):
    """A direction of W: unit normal (w_dim,) towards higher scores, and what is known of it.

    `step`: how far the two groups lie apart along it, which an alpha of 1 covers; small where a weak cue parts them.
    `accuracy`: on extremes that the SVM did not see, parted half-way between the means of those that it saw: what the
    normal is worth, whatever the SVM's offset.
    """

    normal: Tensor
    step: float
    accuracy: float


def draw_heads(generator: TriPlaneGenerator, config: InterFaceGANConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of codes w (B, w_dim) and their front images (B, 3, H, H) in [-1, 1]; they depend on the seed alone."""
    rng, device = torch.Generator().manual_seed(config.seed), generator.w_avg.device
    c = canonical_label(generator.config.avg_camera_radius).to(device)
    for start in range(0, config.num_samples, config.batch_size):
        num = min(config.batch_size, config.num_samples - start)
        z = torch.randn(num, generator.config.z_dim, generator=rng).to(device)
        with torch.inference_mode():
            ws = generator.mapping(z, c.expand(num, -1), truncation_psi=config.truncation_psi)
            image = front_images(generator, ws)
        yield ws[:, 0], image


def front_images(generator: TriPlaneGenerator, ws: Tensor) -> Tensor:
    """Images (B, 3, H, H) of codes (B, num_ws, w_dim) under the canonical camera."""
    c = canonical_label(generator.config.avg_camera_radius).to(ws)
    return generator.synthesis(ws, c.expand(len(ws), -1)).image


def fit_direction(codes: Tensor, scores: Tensor, config: InterFaceGANConfig) -> Direction:
    """The normal of the plane between high and low heads.

    Args:
        codes: (N, w_dim).
        scores: (N,), higher is more of the attribute.
    Raises: ValueError if scores are no numbers, or all extremes have one score; if scikit-learn is missing.
    """
    low, high = extremes(scores, config.extremes)
    rng = torch.Generator().manual_seed(config.seed)
    kept = min(max(round(config.extremes * (1 - config.held_out)), 1), config.extremes - 1)
    groups = [group[torch.randperm(len(group), generator=rng)] for group in (low, high)]
    scale = codes.std(0).square().mean().sqrt()  # one number: directions keep their meaning
    x = [codes[group].double() / scale for group in groups]
    normal = _separate(torch.cat([part[:kept] for part in x]), torch.arange(2).repeat_interleave(kept), config)
    a, b = (part @ normal for part in x)
    middle = (a[:kept].mean() + b[:kept].mean()) / 2
    right = torch.cat([a[kept:] < middle, b[kept:] > middle])
    return Direction(normal.float(), float((b.mean() - a.mean()) * scale), float(right.double().mean()))


def extremes(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Rows with the lowest and with the highest scores, (num,) each."""
    if not bool(scores.isfinite().all()):
        raise ValueError(f"{int((~scores.isfinite()).sum())} of {len(scores)} scores are no finite numbers")
    order = scores.argsort(stable=True)
    low, high = order[:num], order[-num:]
    if scores[low].max() >= scores[high].min():
        raise ValueError(
            f"the {num} highest and the {num} lowest of {len(scores)} scores overlap at {float(scores[high].min()):g}; "
            f"lower sampling.extremes, or draw more heads by sampling.num_samples"
        )
    return low, high


def orthogonal(normal: Tensor, others: Sequence[Tensor]) -> Tensor:
    """InterFaceGAN's conditional direction: the unit vector (w_dim,) of what `others` do not share with `normal`.

    Raises: ValueError if nothing is left.
    """
    basis = torch.linalg.qr(torch.stack(list(others), dim=1).double()).Q
    rest = normal.double() - basis @ (basis.T @ normal.double())
    if rest.norm() < 1e-3:
        raise ValueError("a direction lies within those it shall be orthogonal to; name fewer of them")
    return (rest / rest.norm()).float()


def _separate(x: Tensor, labels: Tensor, config: InterFaceGANConfig) -> Tensor:
    """Unit normal (w_dim,) of a linear SVM."""
    try:
        from sklearn.svm import LinearSVC
    except ModuleNotFoundError as error:
        raise ValueError("edit directions need scikit-learn; run pip install -e '.[edit]'") from error
    machine = LinearSVC(C=config.penalty, dual="auto", random_state=config.seed, max_iter=10_000)
    machine.fit(x.numpy(), labels.numpy())
    normal = torch.from_numpy(machine.coef_[0])
    return normal / normal.norm()
