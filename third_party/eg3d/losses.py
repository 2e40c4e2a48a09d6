"""Training losses of EG3D: dual discrimination, R1, density smoothness, and their schedules (EG3D, Sec. 4 and 5).

There are four phases. `generator_main` and `discriminator_main` run at every iteration, `density_regularization` at
every `Schedule.density_interval`-th and `discriminator_r1` at every `Schedule.r1_interval`-th, where their loss is
multiplied by the interval. The functions draw nothing: what is random comes in as tensors, or as the `torch.Generator`
that the generator's own steps take.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from eg3d.discriminator import DualDiscriminator, resize
from eg3d.generator import Synthesis, TriPlaneGenerator
from eg3d.ops import filter2d
from eg3d.rendering.sampling import Uniforms
from torch import Tensor
from torch.nn.functional import softplus


class Step(NamedTuple):
    """What the schedules say at one moment.

    resolution: of the raw image.
    blur_sigma: of `blur`, in pixels.
    swap_probability: of conditioning the mapping on another sample's label; None: on no label.
    """

    resolution: int
    blur_sigma: float
    swap_probability: float | None


@dataclass
class Schedule:
    """Quantities that change with the number of real images shown to the discriminator.

    Lengths are in thousands of images; 0 puts the end value in force from the start.
    """

    resolution: int = 64
    """Raw image at the start."""
    final_resolution: int | None = None
    """Raw image at the end; None keeps the first."""
    resolution_kimg: float = 1000.0
    """Length of the change between the two."""
    blur_sigma: float = 10.0
    """Blur of the discriminator's input at the start, in pixels; it ends at 0. Resumed runs take 0."""
    blur_kimg: float = 200.0
    """Length of the blur; the released recipe takes 200 * batch / 32."""
    swap_probability: float | None = 0.5
    """Share of swapped conditioning labels at the end, from all at the start; None trains without conditioning."""
    swap_kimg: float = 1000.0
    """Length of the decay to it. Resumed runs take 0."""
    density_interval: int = 4
    """Iterations per density regularisation."""
    r1_interval: int = 16
    """Iterations per R1."""

    def __post_init__(self) -> None:
        if self.swap_probability is not None and not 0 <= self.swap_probability <= 1:
            raise ValueError(f"swap_probability is {self.swap_probability}, expected None or 0 to 1")
        lengths = {"resolution_kimg": self.resolution_kimg, "blur_kimg": self.blur_kimg, "swap_kimg": self.swap_kimg}
        for name, value in (lengths | {"blur_sigma": self.blur_sigma}).items():
            if value < 0:
                raise ValueError(f"{name} is {value}, expected 0 or more")
        counts = {"resolution": self.resolution, "final_resolution": self.final_resolution}
        counts |= {"density_interval": self.density_interval, "r1_interval": self.r1_interval}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}, expected 1 or more")

    def at(self, num_images: int) -> Step:
        """The values after `num_images` real images."""
        grown = _progress(num_images, self.resolution_kimg)
        final = self.resolution if self.final_resolution is None else self.final_resolution
        decay = _progress(num_images, self.swap_kimg)
        swap = self.swap_probability
        return Step(
            resolution=round(self.resolution * (1 - grown) + final * grown),
            blur_sigma=self.blur_sigma * (1 - _progress(num_images, self.blur_kimg)),
            swap_probability=None if swap is None else (1 - decay) + swap * decay,
        )


def _progress(num_images: int, kimg: float) -> float:
    return min(num_images / (1000 * kimg), 1.0) if kimg > 0 else 1.0


def lazy_adam(lr: float, betas: tuple[float, float], interval: int) -> tuple[float, tuple[float, float]]:
    """Adam's rate and betas for k + 1 steps in k = interval iterations: lr rho and beta^rho, rho = k / (k + 1)."""
    rho = interval / (interval + 1)
    return lr * rho, (betas[0] ** rho, betas[1] ** rho)


def ema_decay(batch_size: int, num_images: int, *, kimg: float | None = None, ramp: float | None = 0.05) -> float:
    """Decay per iteration of the averaged generator: 0.5^(batch / halflife), halflife = min(kimg, ramp num_images).

    Args:
        kimg: thousands of images; None is batch_size * 10 / 32.
        ramp: None for resumed runs, which keep the full half-life.
    """
    halflife = 1000 * (batch_size * 10 / 32 if kimg is None else kimg)
    if ramp is not None:
        halflife = min(halflife, num_images * ramp)
    return 0.5 ** (batch_size / max(halflife, 1e-8))


def blur(image: Tensor, sigma: float) -> Tensor:
    """Filter with taps 2^(-(i / sigma)^2), |i| <= floor(3 sigma), of sum 1; zeros outside; (B, C, H, W).

    An image smaller than the filter is no obstacle. Below sigma = 1/3 nothing is done.
    """
    radius = int(3 * sigma)
    if radius == 0:
        return image
    taps = torch.arange(-radius, radius + 1, device=image.device).div(sigma).square().neg().exp2()
    return filter2d(image, taps / taps.sum())


def swap_labels(c: Tensor, probability: float | None, draw: Tensor) -> Tensor:
    """Labels that condition the mapping: the rendering label or that of the sample before (EG3D, Sec. 4.4).

    Args:
        c: (B, 25) rendering labels.
        probability: of a swap; None gives zeros.
        draw: uniform in [0, 1): (B, 1) to decide for each sample, () for all at once. A draw below `probability` swaps.
    """
    if probability is None:
        return torch.zeros_like(c)
    return torch.where(draw < probability, c.roll(1, dims=0), c)


class Pair(NamedTuple):
    """What the discriminator judges: (B, 3, H, W) and (B, 3, R, R)."""

    image: Tensor
    image_raw: Tensor


def real_pair(image: Tensor, step: Step) -> Pair:
    """Real images (B, 3, H, W) and their antialiased reduction, both blurred by the same number of their own pixels."""
    return Pair(blur(image, step.blur_sigma), blur(resize(image, step.resolution), step.blur_sigma))


def fake_pair(synthesis: Synthesis, step: Step) -> Pair:
    """Generated images; only the final one is blurred.

    The released cars were trained with the raw image of `TriPlaneGenerator.released_image_raw`; to go on training them,
    put it into the synthesis.
    """
    return Pair(blur(synthesis.image, step.blur_sigma), synthesis.image_raw)


def generator_loss(logits_fake: Tensor) -> Tensor:
    """softplus(-D(fake)), non-saturating; elementwise."""
    return softplus(-logits_fake)


def discriminator_loss(logits_fake: Tensor, logits_real: Tensor) -> Tensor:
    """softplus(D(fake)) + softplus(-D(real)); elementwise."""
    return softplus(logits_fake) + softplus(-logits_real)


def r1_penalty(logits: Tensor, pair: Pair) -> Tensor:
    """|d logit / d image|^2 + |d logit / d image_raw|^2, summed over pixels: (B,), differentiable again.

    Args:
        logits: (B, 1), computed from `pair`, whose members require gradients and do not depend on each other.
    """
    gradients = torch.autograd.grad(logits.sum(), list(pair), create_graph=True)
    return torch.stack([gradient.square().sum(dim=(1, 2, 3)) for gradient in gradients]).sum(dim=0)


def density_difference(generator: TriPlaneGenerator, planes: Tensor, points: Tensor, offsets: Tensor) -> Tensor:
    """mean |sigma(p) - sigma(p + offset)| of raw densities; a scalar.

    Args:
        planes: (B, 3, C, P, P).
        points: (B, K, 3), uniform in [-1, 1]^3: scene units, whatever the size of the box.
        offsets: (B, K, 3), Gaussian.
    """
    _, sigma = generator.sample(planes, torch.cat([points, points + offsets], dim=1))
    here, there = sigma.chunk(2, dim=1)
    return (here - there).abs().mean()


class Judgement(NamedTuple):
    """Losses of one phase, per sample, before gains; with the logits they came from.

    loss: (B, 1). fake, real: logits (B, 1), None where the phase has none.
    """

    loss: Tensor
    fake: Tensor | None = None
    real: Tensor | None = None


def generate(
    generator: TriPlaneGenerator,
    z: Tensor,
    c: Tensor,
    step: Step,
    *,
    swap: Tensor,
    uniforms: Uniforms | torch.Generator | None,
    noise_mode: str = "random",
    rng: torch.Generator | None = None,
    update_w_avg: bool = False,
) -> Synthesis:
    """Map with swapped labels, synthesise with the labels themselves.

    Args:
        z, c: (B, z_dim), (B, 25).
        swap: draws for `swap_labels`.
        uniforms: for rendering; a `torch.Generator` to draw them, None for midpoints.
        noise_mode, rng: per-pixel noise of the backbone.
        update_w_avg: move the running mean of w.
    """
    ws = generator.mapping(z, swap_labels(c, step.swap_probability, swap), update_w_avg=update_w_avg)
    return generator.synthesis(ws, c, resolution=step.resolution, uniforms=uniforms, noise_mode=noise_mode, rng=rng)


def generator_main(discriminator: DualDiscriminator, synthesis: Synthesis, c: Tensor, step: Step) -> Judgement:
    """Adversarial loss of the generator on `generate`d images and their rendering labels."""
    logits = discriminator(*fake_pair(synthesis, step), c)
    return Judgement(generator_loss(logits), fake=logits)


def discriminator_main(
    discriminator: DualDiscriminator, synthesis: Synthesis, c: Tensor, image: Tensor, image_c: Tensor, step: Step
) -> Judgement:
    """Adversarial loss of the discriminator; the generated images, of labels c, receive no gradient.

    The released code moves the running mean of w in this phase alone: `generate(..., update_w_avg=True)`.

    Args:
        image, image_c: (B, 3, H, W) real images, their labels.
    """
    fake = discriminator(*(member.detach() for member in fake_pair(synthesis, step)), c)
    real = discriminator(*real_pair(image, step), image_c)
    return Judgement(discriminator_loss(fake, real), fake=fake, real=real)


def discriminator_r1(
    discriminator: DualDiscriminator, image: Tensor, image_c: Tensor, step: Step, *, gamma: float
) -> Judgement:
    """gamma / 2 times `r1_penalty` at what the discriminator sees of real images, that is, after the blur."""
    pair = Pair(*(member.detach().requires_grad_() for member in real_pair(image, step)))
    logits = discriminator(*pair, image_c)
    return Judgement(gamma / 2 * r1_penalty(logits, pair)[:, None], real=logits)


def density_regularization(
    generator: TriPlaneGenerator,
    z: Tensor,
    c: Tensor,
    step: Step,
    *,
    swap: Tensor,
    points: Tensor,
    offsets: Tensor,
    weight: float = 0.25,
    noise_mode: str = "random",
    rng: torch.Generator | None = None,
) -> Tensor:
    """Weight times `density_difference` of generated scenes; a scalar.

    Args:
        swap: a draw for `swap_labels`; the released code makes one for the whole batch, ().
        points, offsets: (B, K, 3); the released code takes K = 1000 and offsets of deviation 0.004.
        noise_mode, rng: per-pixel noise of the backbone.
    """
    ws = generator.mapping(z, swap_labels(c, step.swap_probability, swap))
    features = generator.features(ws, generator.config.plane_resolution, noise_mode=noise_mode, rng=rng)
    planes = generator.planes(features, ws, noise_mode=noise_mode, rng=rng)
    return weight * density_difference(generator, planes, points, offsets)
