"""Perception in the mini world: identity, parts, depth, attributes and Fréchet features of 64² procedural heads.

The weights are shipped with the package, trained by `scripts/train_mini_perception.py`; their card lies beside them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eg3d.integrity import save_tensors, verify_pair
from eg3d.limits import read_json
from torch import Tensor
from torch.nn import functional as F

from goae.extractors.frozen import Frozen
from goae.extractors.mini_network import RESOLUTION, MiniNetwork, MiniNetworkConfig
from goae.states import load_strictly
from goae.weights import read_state

SHIPPED = Path(__file__).parents[1] / "assets" / "mini" / "perception.safetensors"


class MiniPerception(Frozen):
    """The trained network; every method takes (B, 3, H, W) images in [-1, 1] and is differentiable in them.

    Images of another size are resized to 64² and maps back to (H, W).

    Args:
        path: weights with their JSON beside them; None takes the shipped ones.
    Raises: FileNotFoundError naming the command that trains them; ValueError if the file does not fit.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        file = Path(path) if path else SHIPPED
        for needed in (file, file.with_suffix(".json")):
            if not needed.is_file():
                raise FileNotFoundError(
                    f"The mini perception network lacks {needed}. Run `python scripts/train_mini_perception.py --out "
                    f"{file}`, or set perception.identity_path and perception.background_path."
                )
        card = file.with_suffix(".json")
        self.card: dict[str, Any] = read_json(verify_pair(file).encode(), str(card))
        try:
            self.network = MiniNetwork(MiniNetworkConfig(**self.card["network"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"{card} is not the card of a mini perception network: {error}") from None
        state = {n: t.float() if t.is_floating_point() else t for n, t in read_state(file).items()}
        load_strictly(self.network, state, file)
        self.freeze()

    def embed(self, image: Tensor) -> Tensor:
        """Identity. Returns: (B, E) unit vectors."""
        return F.normalize(self.network.embed(self.network.trunk(_resized(image))[-1]))

    def features(self, image: Tensor) -> Tensor:
        """What Fréchet distances are measured on. Returns: (B, D), D <= 64."""
        return self.network.features(self.network.trunk(_resized(image))[-1])

    def parts(self, image: Tensor) -> Tensor:
        """Logits of the part labels, background first. Returns: (B, 11, H, W)."""
        logits, _ = self.network.maps(*self.network.trunk(_resized(image)))
        return _resized_back(logits, image)

    def depth(self, image: Tensor) -> Tensor:
        """Depth along the ray, scene units. Returns: (B, 1, H, W)."""
        _, depth = self.network.maps(*self.network.trunk(_resized(image)))
        return _resized_back(depth, image)

    def background(self, image: Tensor) -> Tensor:
        """Where background is the likeliest part. Returns: (B, 1, H, W), 1 is background."""
        return (self.parts(image).argmax(1, keepdim=True) == 0).to(image.dtype)

    def attributes(self, image: Tensor) -> Tensor:
        """Standardised attributes in the order of `card["attributes"]`. Returns: (B, A)."""
        return self.network(_resized(image)).attributes

    def angles(self, image: Tensor) -> Tensor:
        """Yaw and pitch of the camera, radians. Returns: (B, 2)."""
        return self.network(_resized(image)).angles


def export(
    network: MiniNetwork, path: Path, *, training: Mapping[str, Any], measured: Mapping[str, Any], attributes: list[str]
) -> None:
    """Write a trained network in half precision, with its sizes, settings and numbers in the JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = _halved(network)
    card = {
        "network": network.config.as_dict(),
        "attributes": attributes,
        "training": dict(training),
        "measured": dict(measured),
    }
    save_tensors({n: t.contiguous() for n, t in state.items()}, path, beside=json.dumps(card, indent=2) + "\n")


def as_stored(network: MiniNetwork) -> MiniNetwork:
    """The network that its file gives back, weights rounded to half precision: what is measured is what is shipped."""
    other = MiniNetwork(network.config)
    other.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in _halved(network).items()})
    return other.eval()


def _halved(network: MiniNetwork) -> dict[str, Tensor]:
    return {n: t.half() if t.is_floating_point() else t for n, t in network.state_dict().items()}


def _resized(image: Tensor) -> Tensor:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(image.shape)}; expected (B, 3, H, W)")
    if image.shape[2:] == (RESOLUTION, RESOLUTION):
        return image
    return F.interpolate(image, (RESOLUTION, RESOLUTION), mode="bilinear", align_corners=False, antialias=True)


def _resized_back(maps: Tensor, image: Tensor) -> Tensor:
    if maps.shape[2:] == image.shape[2:]:
        return maps
    return F.interpolate(maps, image.shape[2:], mode="bilinear", align_corners=False)
