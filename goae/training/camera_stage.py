"""Training of the camera regressor on renders of the generator alone, whose cameras are known exactly.

Every step has new scenes: z at random, poses drawn from a data set's labels or uniformly from a range. The mapping
network is conditioned with the canonical camera unless configured otherwise, so that an identity tells nothing about
its pose. Photos are not renders: light, sharpness and noise of the images are disturbed.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from eg3d.transfer import send
from torch import Tensor, nn
from torch.nn import functional as F

from goae.camera.regressor import CameraRegressor
from goae.camera.sphere import DEGREES, SphereConfig, angles_from_label, camera_errors, label_from_angles
from goae.data.cameras import sample_labels
from goae.data.datasets import PosedImages
from goae.data.synthetic import sample_views
from goae.models.sampling import with_samples
from goae.training.loop import FitConfig
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.phases import Batch, Draw, Phase

CONDITIONING = ("canonical", "camera")
HELD_OUT = 1 << 30  # renders of validation and preview stand at this step, which no training reaches


@dataclass
class PosesConfig:
    """Where no data set's labels are given: uniform within plus and minus so many degrees."""

    yaw: float = 75.0
    pitch: float = 25.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.yaw <= 180 and 0 <= self.pitch < 90 and 0 <= self.roll <= 180):
            raise ValueError(f"poses are {self}; expected degrees, pitch below 90 and the others up to 180")


@dataclass
class CameraStageConfig:
    """How the regressor is trained."""

    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=20_000, batch_size=32, ema=0.998, monitor="angle"))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", lr=1e-3))
    poses: PosesConfig = field(default_factory=PosesConfig)
    conditioning: str = "canonical"  # canonical | camera: what the mapping network is told; camera as EG3D's FID has it
    samples: int = 0  # coarse and fine samples per ray of the training renders; 0: the generator's own numbers
    disturb: bool = True  # light, sharpness and noise of the training images

    def __post_init__(self) -> None:
        if self.conditioning not in CONDITIONING:
            raise ValueError(f"camera.conditioning is {self.conditioning!r}; expected one of {', '.join(CONDITIONING)}")
        if self.samples < 0:
            raise ValueError(f"camera.samples is {self.samples}; expected at least 0")


class CameraStage:
    """One phase: angles against those of the rendered cameras."""

    name = "camera"
    main = "regressor"
    preview_columns = 2
    complete = True

    def __init__(
        self,
        regressor: CameraRegressor,
        generator: TriPlaneGenerator,
        labels: Tensor | None,
        config: CameraStageConfig,
    ) -> None:
        """`labels` (N, 25): the poses to draw from; None: the configured range."""
        self.regressor, self.config, self.labels = regressor.requires_grad_(True), config, labels
        self.generator = with_samples(generator, config.samples)
        self.modules: dict[str, nn.Module] = {"regressor": regressor}
        self.optimizer = build_optimizer(config.optimizer, regressor.parameters())
        self.phases = [Phase("camera", [regressor], self.optimizer, {"angles": 1.0}, self._losses)]

    def begin(self, step: int) -> None:
        """Train mode; the learning rate is constant."""
        self.regressor.train()

    def batch(self, draw: Draw, num: int) -> Batch:
        """New scenes, `num` of them: ws, c and image."""
        rng = draw.generator("cameras")
        if self.labels is None:
            c = uniform_labels(num, self.config.poses, self.regressor.config.sphere, rng)
        else:
            c = sample_labels(self.labels, num, rng)
        known = c if self.config.conditioning == "camera" else canonical_label().expand(num, -1)
        return sample_views(self.generator, c, known, draw.generator("scenes"))

    def preview(self, batch: Batch) -> Tensor:
        """Rows of two: a render, and the same scene from the estimated camera."""
        with torch.no_grad():
            found = self.regressor.estimate(batch["image"])
            again = self.generator.synthesis(batch["ws"], found).image
        return torch.stack([batch["image"], again], 1).flatten(0, 1)

    def slot_state(self) -> dict[int, Any]:
        """Nothing is remembered between steps."""
        return {}

    def load_slot_state(self, state: dict[int, Any]) -> None:
        """Nothing to take back."""

    def _losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        config = self.regressor.config
        image = fitted(batch["image"], config.resolution)
        if self.config.disturb:
            image = disturbed(image, draw.generator("disturbance"))
        true = angles_from_label(batch["c"], config.sphere)
        count = 3 if config.roll else 2
        return {"angles": F.smooth_l1_loss(self.regressor(image)[:, :count], true[:, :count], beta=0.2)}


def uniform_labels(num: int, poses: PosesConfig, sphere: SphereConfig, rng: torch.Generator) -> Tensor:
    """Cameras (num, 25) of the sphere, uniform within the range."""
    limits = torch.tensor([poses.yaw, poses.pitch, poses.roll]) / DEGREES
    return label_from_angles((2 * torch.rand(num, 3, generator=rng) - 1) * limits, sphere)


def fitted(image: Tensor, size: int) -> Tensor:
    """Renders (B, 3, H, H) at the regressor's resolution."""
    return image if image.shape[-1] == size else F.interpolate(image, (size, size), mode="bilinear", antialias=True)


def disturbed(image: Tensor, rng: torch.Generator) -> Tensor:
    """Images as if from another camera: gain and offset of all colours, of each by less, blur, noise; `rng` on CPU."""
    batch = len(image)

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return send(low + (high - low) * torch.rand(batch, channels, 1, 1, generator=rng), image)

    half = F.interpolate(image, scale_factor=0.5, mode="area")
    blurred = F.interpolate(half, size=image.shape[-2:], mode="bilinear", align_corners=False)
    image = image.lerp(blurred, uniform(-0.5, 1).clamp_min(0))
    image = image * uniform(0.8, 1.25) * uniform(0.95, 1.05, 3) + uniform(-0.15, 0.15) + uniform(-0.05, 0.05, 3)
    return image + uniform(-0.06, 0.06).clamp_min(0) * send(torch.randn(image.shape, generator=rng), image)


class CameraValidation:
    """Mean errors in degrees of a regressor, on held-out renders and, if given, on a data set's images (`data_*`)."""

    def __init__(self, renders: Batch, images: PosedImages | None, *, num_images: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.sets = {"": (renders["image"], renders["c"])}
        if images is not None:
            items = [images[i] for i in range(min(num_images, len(images)))]
            self.sets["data_"] = (torch.stack([i["image"] for i in items]), torch.stack([i["c"] for i in items]))

    @torch.no_grad()
    def __call__(self, regressor: nn.Module) -> dict[str, float]:
        assert isinstance(regressor, CameraRegressor)
        regressor.eval()
        found: dict[str, float] = {}
        for prefix, (image, c) in self.sets.items():
            labels = torch.cat([regressor.estimate(part).to(c) for part in image.split(self.batch_size)])
            errors = camera_errors(labels, c, regressor.config.sphere)
            found |= {f"{prefix}{name}": float(values.mean()) for name, values in errors.items()}
        return found
