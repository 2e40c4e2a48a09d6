"""Cameras of data sets: mirroring a sample, drawing poses from labels or from the mini world's distribution."""

import math
from typing import Any

import torch
from eg3d.cameras import intrinsics_from_focal, join_label, mirror_label, pose_from_angles
from torch import Tensor

from goae.data.heads import mirror_signs

YAWS = (-60.0, -30.0, 0.0, 30.0, 60.0)  # degrees, of the multi-view split


def mirror_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """Mirror an item of `PosedImages`: image and maps flip left to right, the label and the factors follow."""
    flipped: dict[str, Any] = {key: sample[key].flip(-1) for key in ("image", "depth", "parts") if key in sample}
    flipped["c"] = mirror_label(sample["c"])
    for key, group in (("factors", None), ("identity", "identity")):
        if key in sample:
            flipped[key] = sample[key] * mirror_signs(group)
    return sample | flipped


def labels_from_angles(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Labels (N, 25) of EG3D's face cameras (radius 2.7, focal 4.2647) at yaw and pitch (N,) in radians."""
    return join_label(pose_from_angles(yaw, pitch), intrinsics_from_focal())


def sample_mini_labels(num: int, generator: torch.Generator) -> Tensor:
    """Cameras of the mini world: yaw 70 % N(0, 18°) and 30 % U(-65°, 65°), pitch N(0, 8°). Returns: (num, 25)."""
    normal = 18.0 * torch.randn(num, generator=generator)
    uniform = 65.0 * (2.0 * torch.rand(num, generator=generator) - 1.0)
    yaw = torch.where(torch.rand(num, generator=generator) < 0.7, normal, uniform).clamp(-75.0, 75.0)
    pitch = (8.0 * torch.randn(num, generator=generator)).clamp(-24.0, 24.0)
    return labels_from_angles(yaw * (math.pi / 180.0), pitch * (math.pi / 180.0))


def multiview_labels() -> Tensor:
    """Cameras at the five `YAWS`, pitch 0. Returns: (5, 25)."""
    yaw = torch.tensor(YAWS) * (math.pi / 180.0)
    return labels_from_angles(yaw, torch.zeros_like(yaw))


def sample_labels(labels: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw `num` labels uniformly, with replacement, from those of a data set (N, 25)."""
    return labels[torch.randint(len(labels), (num,), generator=generator)]
