"""Pose Opt.: code and camera found together, then a generator tuned to the image (paper, App. B).

    ws*, c* = argmin  λ_2 ‖G(ws, c) − I‖² + λ_LPIPS LPIPS(G(ws, c), I),   then θ* as in PTI, at ws* and c*

400 and 400 iterations are the paper's, which also starts "with its pre-trained encoder for pivot latent code and camera
pose": here the camera regressor's estimate, and the code of an encoder where one is given, else w_avg. The method's
internals are not in the paper; chosen are a code in W+, yaw and pitch on the generator's sphere (a small rigid motion
of the camera on request), and Adam with the schedule of StyleGAN2's projector for both.

The method is not told the input's camera, so its head may stand turned in its world. `render` takes target cameras in
the data set's world and, by default, keeps the motion from the input camera to the target (`relative_camera`); tables
use that, since it does not count a turned world as an error of the view. `targets: absolute` takes them as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from eg3d.cameras import join_label, split_label
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae.baselines.inputs import check_input
from goae.baselines.optimization import Distance, OptimizationConfig, Progress, learning_rate, sized
from goae.baselines.tuning import GeneratorTuning, Tuned, TuningConfig
from goae.camera.sphere import SphereConfig, angles_from_label, label_from_angles, relative_camera
from goae.models.latent_inverter import View
from goae.models.sampling import with_samples

TARGETS = ("relative", "absolute")


@dataclass
class PoseOptimizationConfig:
    """Both halves, and what is free in the camera."""

    pivot: OptimizationConfig = field(default_factory=lambda: OptimizationConfig(steps=400, lr=5e-3, l2=1.0, lpips=1.0))
    camera_lr: float = 5e-3  # largest, of yaw and pitch in radians; it follows the code's schedule
    offset: bool = False  # whether the camera may also leave the sphere: a small rigid motion with its rate
    targets: str = "relative"  # relative | absolute: what the cameras that `render` gets mean
    tuning: TuningConfig = field(default_factory=lambda: TuningConfig(steps=400))

    def __post_init__(self) -> None:
        if self.camera_lr < 0:
            raise ValueError(f"pose_opt.camera_lr is {self.camera_lr}; expected at least 0")
        if self.targets not in TARGETS:
            raise ValueError(f"pose_opt.targets is {self.targets!r}; expected one of {', '.join(TARGETS)}")


class PoseOptimization:
    """A code, a camera and a tuned generator for each image; the same two calls as `Inverter`.

    One image is worked on after the other, so that none depends on its batch.
    """

    def __init__(
        self,
        generator: TriPlaneGenerator,
        config: PoseOptimizationConfig,
        *,
        estimate: Callable[[Tensor], Tensor],
        sphere: SphereConfig,
        lpips: Distance | None,
        encode: Callable[[Tensor], Tensor] | None = None,
        progress: Progress = lambda step, losses: None,
    ) -> None:
        """The start comes from `estimate`, images -> labels (B, 25), and `encode`, images -> ws; None: w_avg.

        Args:
            estimate, encode: take images (B, 3, H, H) in [-1, 1] of the generator's size.
            sphere: on which yaw and pitch move the camera.
            lpips, progress: as of `PTI`.
        Raises: ValueError for a weight without its network.
        """
        if config.pivot.lpips and lpips is None:
            raise ValueError(
                "pose_opt.pivot.lpips is not 0, but no perceptual network was given; give one, or set it to 0"
            )
        self.generator, self.config = generator.eval().requires_grad_(False), config
        self.estimate, self.sphere, self.encode = estimate, sphere, encode
        self.lpips, self.progress = lpips, progress
        self.draft = with_samples(generator, config.pivot.samples) if config.pivot.samples else generator
        self.tuning = GeneratorTuning(generator, config.tuning, lpips=lpips, progress=progress)

    def invert(self, image: Tensor, c: Tensor) -> Tuned:
        """Fit images (B, 3, H, H) in [-1, 1]; c (B, 25) tells `render` later what its targets are relative to.

        Raises: ValueError if sizes do not fit; FloatingPointError if a loss is not finite.
        """
        image, c = check_input(image, c, self.generator)
        codes, cameras, tuned = [], [], []
        for i in range(len(image)):
            one = image[i : i + 1].clone()
            ws, found = self.search(one)
            codes.append(ws)
            cameras.append(found)
            tuned.append(self.tuning.tune(ws, found, one))
        weights, steps = zip(*tuned, strict=True)
        spent, own = self.config.pivot.steps, self.tuning.generator_hash
        return Tuned(torch.cat(codes), torch.cat(cameras), c, weights, spent, steps, own)

    def render(self, inversion: Tuned, c: Tensor) -> View:
        """Render from target cameras (B, 25) of the data set's world; one serves all images, one image all cameras."""
        c = c.to(inversion.ws)
        if self.config.targets == "relative":
            count = max(len(c), len(inversion.c))
            rows = [x.expand(count, -1) if len(x) == 1 else x for x in (c, inversion.given, inversion.c)]
            if len({len(x) for x in rows}) > 1:
                raise ValueError(
                    f"{len(c)} cameras were given for {len(inversion.c)} images; give one for all or one for each"
                )
            c = relative_camera(*rows)
        return self.tuning.render(inversion, c)

    def reconstruct(self, inversion: Tuned) -> View:
        """The input view, from the camera that was found for it."""
        return self.tuning.render(inversion, inversion.c)

    @torch.enable_grad()
    def search(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The code (1, num_ws, w_dim) and the camera (1, 25) of one image (1, 3, H, H)."""
        config = self.config.pivot
        code, start = self._start(image)
        code.requires_grad_(True)
        angles = angles_from_label(start, self.sphere).requires_grad_(True)
        twist = torch.zeros(1, 6, device=image.device).requires_grad_(True)
        free = [angles, twist] if self.config.offset else [angles]
        groups = [{"params": [code], "peak": config.lr}, {"params": free, "peak": self.config.camera_lr}]
        optimizer = torch.optim.Adam(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]))
        rng = torch.Generator().manual_seed(config.seed)
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate(step, config) / config.lr
            shown = self.draft.synthesis(code, self._camera(angles, twist), uniforms=rng).image
            loss = self._loss(shown, image)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {float(loss.detach())} at step {step}; lower pose_opt.pivot.lr")
            optimizer.zero_grad()
            loss.backward()
            assert angles.grad is not None
            angles.grad[:, 2] = 0  # roll stays as it was estimated
            optimizer.step()
            self.progress(step + 1, loss.detach()[None])
        return code.detach(), self._camera(angles, twist).detach()

    @torch.no_grad()
    def _start(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Code and camera before the first step."""
        num_ws = self.generator.num_ws
        code = self.generator.w_avg.expand(1, num_ws, -1) if self.encode is None else self.encode(image)
        if code.shape != (1, num_ws, self.generator.config.w_dim):
            raise ValueError(
                f"the encoder gives codes of shape {tuple(code.shape)}; expected (1, {num_ws}, "
                f"{self.generator.config.w_dim}), as the generator takes them"
            )
        return code.detach().clone(), self.estimate(image).to(image).clone()

    def _camera(self, angles: Tensor, twist: Tensor) -> Tensor:
        """Labels (1, 25): a camera of the sphere, moved within its own axes by exp(twist) where that is free."""
        c = label_from_angles(angles, self.sphere)
        if not self.config.offset:
            return c
        cam2world, intrinsics = split_label(c)
        return join_label(cam2world @ rigid_motion(twist), intrinsics)

    def _loss(self, shown: Tensor, image: Tensor) -> Tensor:
        config = self.config.pivot
        loss = config.l2 * (shown - image).square().mean()
        if config.lpips and self.lpips is not None:
            size = config.lpips_resolution
            loss = loss + config.lpips * self.lpips(sized(shown, size), sized(image, size)).squeeze()
        return loss


def rigid_motion(twist: Tensor) -> Tensor:
    """exp: se(3) -> SE(3), twists (B, 6), rotation before translation, to matrices (B, 4, 4)."""
    x, y, z, *move = twist.unbind(1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, move[0], z, zero, -x, move[1], -y, x, zero, move[2], zero, zero, zero, zero]
    return torch.linalg.matrix_exp(torch.stack(rows, 1).view(-1, 4, 4))
