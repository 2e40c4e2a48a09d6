"""Training of the mini world's perception network on procedural people.

One network learns identity (softmax with an additive margin on the angle's cosine), parts, depth along the ray, the
head's factors, camera angles and attributes. Every step depends on (seed, step) alone, so a stopped run continues as
if it had not been stopped.
"""

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from eg3d.integrity import save_object
from torch import Tensor, nn
from torch.nn import functional as F

from goae.data.heads import ATTRIBUTES, NUM_FACTORS, mirror_signs
from goae.data.people import CHUNK, People, join_people, people_chunk
from goae.extractors.mini_network import NUM_PARTS, MiniNetwork, MiniNetworkConfig
from goae.training import checkpoint
from goae.training.nonfinite import norm_of

log = logging.getLogger(__name__)
HELD_OUT = 1 << 20  # people from this number on are never trained on


@dataclass
class PerceptionConfig:
    """How the network is trained."""

    people: int = 1000
    views: int = 4
    steps: int = 2500
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 1e-3
    warmup: int = 100
    scale: float = 20.0  # of the softmax's cosines
    margin: float = 0.25
    identity_weight: float = 0.5
    parts_weight: float = 1.0
    depth_weight: float = 4.0
    factors_weight: float = 1.0
    angles_weight: float = 2.0
    attributes_weight: float = 0.5
    seed: int = 0
    log_every: int = 50
    save_every: int = 200

    def __post_init__(self) -> None:
        if self.people % CHUNK or self.people < CHUNK or self.views < 2:
            raise ValueError(f"people={self.people} must be a multiple of {CHUNK} and views={self.views} at least 2")


def load_people(config: PerceptionConfig, folder: Path) -> People:
    """The training people, rendered where `folder` lacks them, with progress."""
    chunks, start, num = [], time.monotonic(), config.people // CHUNK
    for i in range(num):
        chunks.append(people_chunk(folder, i, config.views, config.seed))
        if (i + 1) % 4 == 0 or i + 1 == num:
            left = (time.monotonic() - start) / (i + 1) * (num - i - 1)
            log.info("people %d of %d, %.0f s left", (i + 1) * CHUNK, config.people, left)
    return join_people(chunks)


def held_out(config: PerceptionConfig, folder: Path, num_chunks: int = 3) -> People:
    """People that are never trained on, ten views each."""
    first = HELD_OUT // CHUNK
    return join_people([people_chunk(folder, first + i, 10, config.seed) for i in range(num_chunks)])


@dataclass(frozen=True)
class Batch:
    """Tensors of `People`, in training types; attributes are standardised."""

    image: Tensor
    depth: Tensor
    parts: Tensor
    factors: Tensor
    attributes: Tensor
    angles: Tensor
    person: Tensor


def batch_at(people: People, step: int, config: PerceptionConfig, moments: tuple[Tensor, Tensor]) -> Batch:
    """The batch of a step: drawn at random, half of it mirrored, images degraded as generated ones are."""
    rng = torch.Generator().manual_seed(((config.seed + 1) << 32) + step)
    index = torch.randint(len(people), (config.batch_size,), generator=rng)
    flip = torch.rand(config.batch_size, generator=rng) < 0.5
    image = people.image[index].float() / 127.5 - 1.0
    factors, angles = people.factors[index].clone(), people.angles[index].clone()
    factors[flip] *= mirror_signs()
    angles[flip, 0] *= -1.0
    return Batch(
        degrade(_mirror(image, flip), rng),
        _mirror(people.depth[index].float(), flip),
        _mirror(people.parts[index], flip)[:, 0].long(),
        factors,
        (people.attributes[index] - moments[0]) / moments[1],
        angles,
        people.person[index],
    )


def degrade(image: Tensor, rng: torch.Generator) -> Tensor:
    """Blur a third of the images, add noise to half of them: what is judged later comes from generators."""
    size = len(image)
    small = F.interpolate(image, scale_factor=0.5, mode="area")
    blurred = F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
    image = torch.where((torch.rand(size, generator=rng) < 0.33)[:, None, None, None], blurred, image)
    sigma = 0.08 * (torch.rand(size, generator=rng) * 2.0 - 1.0).clamp(min=0.0)[:, None, None, None]
    return image + sigma * torch.randn(image.shape, generator=rng)


def _mirror(x: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[:, None, None, None], x.flip(-1), x)


def losses(network: MiniNetwork, people_weight: Tensor, batch: Batch, config: PerceptionConfig) -> dict[str, Tensor]:
    """Named, unweighted losses of one batch."""
    out = network(batch.image)
    return {
        "identity": margin_softmax(out.embedding, people_weight, batch.person, config.scale, config.margin),
        "parts": F.cross_entropy(out.parts, batch.parts),
        "depth": F.smooth_l1_loss(out.depth, batch.depth, beta=0.05),
        "factors": F.smooth_l1_loss(out.factors, batch.factors),
        "angles": F.smooth_l1_loss(out.angles, batch.angles, beta=0.2),
        "attributes": F.smooth_l1_loss(out.attributes, batch.attributes),
    }


def margin_softmax(embedding: Tensor, weight: Tensor, person: Tensor, scale: float, margin: float) -> Tensor:
    """-log softmax of scale * (cos - margin at the true person); embedding (B, E), weight (people, E)."""
    cosine = F.normalize(embedding) @ F.normalize(weight).T
    target = F.one_hot(person, len(weight)).to(cosine.dtype)
    return F.cross_entropy(scale * (cosine - margin * target), person)


def learning_rate(step: int, config: PerceptionConfig) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


class Training:
    """What survives a restart: the network, one direction per person, the optimiser, the step."""

    def __init__(self, config: PerceptionConfig) -> None:
        torch.manual_seed(config.seed)
        self.config, self.step = config, 0
        sizes = MiniNetworkConfig(num_factors=NUM_FACTORS, num_attributes=len(ATTRIBUTES))
        self.network = MiniNetwork(sizes)
        self.people = nn.Parameter(torch.randn(config.people, sizes.embedding_dim))
        parameters = [*self.network.parameters(), self.people]
        self.optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)

    def state_dict(self) -> dict[str, Any]:
        """Everything, with the settings it belongs to."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "people": self.people.detach(),
            "optimizer": self.optimizer.state_dict(),
            "config": _science(self.config),
        }

    def resume(self, path: Path) -> None:
        """Continue from `path` if it is there. Raises: ValueError if it was made with other settings."""
        if not path.is_file():
            return
        state = checkpoint.load(path, torch.device("cpu"))
        stored = {name: value for name, value in state["config"].items() if name != "lr"}
        if stored != _science(self.config):
            raise ValueError(f"{path} was made with {stored}, not {_science(self.config)}; use another folder")
        self.network.load_state_dict(state["network"])
        self.people.data.copy_(state["people"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])

    def save(self, path: Path) -> None:
        """Write atomically, with a checksum. Raises: FloatingPointError if a weight is not finite."""
        if not bool(norm_of(self.network).isfinite()):
            raise FloatingPointError(f"a weight is not finite before step {self.step}; lower lr and start again")
        save_object(self.state_dict(), path)


def _science(config: PerceptionConfig) -> dict[str, Any]:
    """What a run that goes on may not change; the rate of one whose loss was not finite has to be lowered."""
    return {name: value for name, value in asdict(config).items() if name not in ("lr", "log_every", "save_every")}


def train(config: PerceptionConfig, people: People, folder: Path) -> MiniNetwork:
    """Train, resuming from `folder`/state.pt. Returns: the network, in evaluation mode.

    Raises: FloatingPointError naming step and term if a loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state, training = folder / "state.pt", Training(config)
    training.resume(state)
    moments = attribute_moments(people)
    weights = {name.removesuffix("_weight"): v for name, v in asdict(config).items() if name.endswith("_weight")}
    weights.pop("decay", None)
    start, first = time.monotonic(), training.step
    training.network.train()
    while training.step < config.steps:
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate(training.step, config)
        batch = batch_at(people, training.step, config, moments)
        terms = losses(training.network, training.people, batch, config)
        _check_finite(terms, training.step)
        training.optimizer.zero_grad(set_to_none=True)
        sum((weights[name] * term for name, term in terms.items()), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(training.network.parameters(), 5.0)
        training.optimizer.step()
        training.step += 1
        if training.step % config.log_every == 0 or training.step == config.steps:
            left = (time.monotonic() - start) / (training.step - first) * (config.steps - training.step)
            shown = ", ".join(f"{name} {float(term.detach()):.3f}" for name, term in terms.items())
            log.info("step %d of %d, %.0f s left: %s", training.step, config.steps, left, shown)
        if training.step % config.save_every == 0 or training.step == config.steps:
            training.save(state)
    return training.network.eval()


def attribute_moments(people: People) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each attribute, (A,) each."""
    return people.attributes.mean(0), people.attributes.std(0).clamp(min=1e-6)


def _check_finite(terms: dict[str, Tensor], step: int) -> None:
    for name, term in terms.items():
        if not torch.isfinite(term):
            raise FloatingPointError(f"the loss {name} is {float(term.detach())} at step {step}; lower lr")


@torch.no_grad()
def measure(network: MiniNetwork, people: People, batch_size: int = 64) -> dict[str, Any]:
    """Numbers on unseen people.

    identity_*: over all pairs of pictures, see `identity_scores`; part_iou: per class, part_miou their mean;
    depth_mae: scene units, where the head is; angle_mae_degrees: yaw and pitch.
    """
    outs = [network(x.float() / 127.5 - 1.0) for x in people.image.split(batch_size)]
    embedding = F.normalize(torch.cat([o.embedding for o in outs]))
    parts = torch.cat([o.parts.argmax(1) for o in outs])
    depth = torch.cat([o.depth for o in outs])
    angles = torch.cat([o.angles for o in outs])
    iou = part_iou(parts, people.parts[:, 0].long())
    head = people.parts > 0
    return {
        "pictures": len(people),
        **identity_scores(embedding, people.person),
        "part_miou": sum(iou) / len(iou),
        "part_iou": iou,
        "background_iou": iou[0],
        "depth_mae": float((depth - people.depth.float()).abs()[head].mean()),
        "angle_mae_degrees": ((angles - people.angles).abs().mean(0) * (180.0 / math.pi)).tolist(),
    }


def identity_scores(embedding: Tensor, person: Tensor) -> dict[str, float]:
    """AUC, mean cosine of same and different people, and the accuracy at the best threshold; embedding (N, E) unit."""
    i, j = torch.triu_indices(len(person), len(person), 1)
    cosine, same = (embedding @ embedding.T)[i, j].double(), person[i] == person[j]
    order = cosine.argsort()
    hits = same[order].double()
    ranks = torch.arange(1, len(order) + 1, dtype=torch.float64)
    num_same, num_other = float(hits.sum()), float((1 - hits).sum())
    auc = (float((ranks * hits).sum()) - num_same * (num_same + 1) / 2) / (num_same * num_other)
    # balanced accuracy when everything behind position k is called the same person
    missed = hits.cumsum(0) / num_same
    refused = (1 - hits).cumsum(0) / num_other
    best = (0.5 * (refused + 1 - missed)).max(0)
    return {
        "identity_auc": auc,
        "identity_accuracy": float(best.values),
        "threshold": float(cosine[order[min(int(best.indices) + 1, len(order) - 1)]]),
        "cosine_same": float(cosine[same].mean()),
        "cosine_other": float(cosine[~same].mean()),
    }


def part_iou(predicted: Tensor, true: Tensor) -> list[float]:
    """Intersection over union per class, over all pictures; 1 for a class that neither shows."""
    confusion = torch.bincount((true * NUM_PARTS + predicted).flatten(), minlength=NUM_PARTS**2)
    confusion = confusion.reshape(NUM_PARTS, NUM_PARTS).double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return torch.where(union > 0, confusion.diag() / union.clamp(min=1), torch.ones_like(union)).tolist()
