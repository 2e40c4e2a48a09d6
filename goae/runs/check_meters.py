"""Let every meter prove itself on pairs of procedural people; measure the mini perception network on unseen ones."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from goae import build
from goae.config import CheckMetersConfig
from goae.data.datasets import PosedImages
from goae.data.people import drawn_attributes
from goae.evaluation.geometry import depth_errors
from goae.evaluation.intervals import Estimate, bootstrap, mean_interval
from goae.evaluation.meters import meter_record, pair_auc
from goae.evaluation.pairs import view_pairs
from goae.evaluation.perception import balanced_accuracy, head_iou
from goae.evaluation.records import update_section
from goae.extractors.mini import MiniPerception
from goae.runs.setup import device_of

FLAGS = ("glasses", "beard")  # attributes that are 0 or 1


def check_meters(config: CheckMetersConfig) -> Path:
    """Write sections `meters` and `perception` of the file of numbers, one meter after the other; returns its path."""
    path, device = Path(config.metrics), device_of(config)
    views = PosedImages(config.multiview, extras=("person", "expression", "view"))
    pairs = view_pairs(*(views.rows[name] for name in ("person", "expression", "view")), seed=config.seed)
    images = torch.stack([views[i]["image"] for i in range(len(views))]).to(device)
    for name in track(config.meters, description="meters", console=Console(stderr=True)):
        between = build.build_between(name, config, images)
        record = meter_record(pair_auc(between, pairs, num=config.resamples, seed=config.seed), pairs)
        update_section(path, "meters", {name: record})
        if name in ("identity", "identity_independent"):
            update_section(path, "perception", {f"{name}_auc": record["auc"]})
        print(f"{name}: AUC {record['auc']:.3f} {'' if record['informative'] else '(uninformative)'}".rstrip())
    update_section(path, "perception", check_perception(config, device))
    return path


@torch.no_grad()
def check_perception(config: CheckMetersConfig, device: torch.device) -> dict[str, Any]:
    """Mask, depth and attributes that the mini perception network sees on the test images, with intervals over images.

    mask_iou: of the head, mean over images; depth_error: scene units inside the true head; attribute_accuracy: mean
    over attributes of the balanced accuracy of the side of `split_at` they are told to lie on.
    """
    images = PosedImages(config.test, extras=("depth", "parts", "attributes"))
    network = MiniPerception(config.perception_path or None).to(device)
    split, mean, std = split_at(network.card)
    ious, depths, told, true = [], [], [], []
    for start in range(0, len(images), config.batch_size):
        samples = [images[i] for i in range(start, min(start + config.batch_size, len(images)))]
        image, depth, parts, attributes = (
            torch.stack([s[name] for s in samples]).to(device) for name in ("image", "depth", "parts", "attributes")
        )
        ious.append(head_iou(network.background(image), parts))
        depths.append(depth_errors(network.depth(image), depth, parts))
        told.append(network.attributes(image).cpu() * std + mean > split)
        true.append(attributes.cpu() > split)
    positive, is_true = torch.cat(told), torch.cat(true)

    def accuracy(rows: Tensor) -> Tensor:
        return balanced_accuracy(positive[rows], is_true[rows]).mean()

    num, seed = config.resamples, config.seed
    found: dict[str, Estimate] = {
        "mask_iou": mean_interval(torch.cat(ious), num=num, seed=seed),
        "depth_error": mean_interval(torch.cat(depths), num=num, seed=seed),
        "attribute_accuracy": bootstrap(accuracy, torch.arange(len(images)), num=num, seed=seed),
    }
    shares = dict(zip(network.card["attributes"], balanced_accuracy(positive, is_true).tolist(), strict=True))
    record: dict[str, Any] = {"num_images": len(images), "attribute_accuracies": shares}
    for name, estimate in found.items():
        record |= estimate.as_record(name)
    return record


def split_at(card: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Where attributes are split in two, and the mean and deviation that the network's are standardised by: (A,) each.

    They are split at the mean of the people it was trained on, those that are 0 or 1 in the middle.
    """
    training = card["training"]
    seen = drawn_attributes(training["people"], training["views"], training["seed"])
    mean, std = seen.mean(0), seen.std(0).clamp(min=1e-6)
    is_flag = torch.tensor([name in FLAGS for name in card["attributes"]])
    return torch.where(is_flag, torch.full_like(mean, 0.5), mean), mean, std
