"""Reference numbers of the released code: seeded weights and inputs, and the comparison of outputs with them.

The rule that makes every weight and input from its name and shape, and the layout of the files in
`tests/data/parity`, are described in `tests/data/parity/README.md`.
"""

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "data" / "parity"
# Entries that keep the value they are constructed with.
CONSTRUCTED = {
    "resample_filter",
    "relative_coords_table",
    "relative_position_index",
    "attn_mask",
    "num_batches_tracked",
}


def seeded(key: str, shape: list[int] | tuple[int, ...]) -> Tensor:
    """Standard normal float32 numbers from a CPU generator seeded by the crc32 of `key`."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def _weight(name: str, shape: tuple[int, ...], names: set[str], equalized: bool) -> Tensor:
    r, leaf = seeded(name, shape), name.rsplit(".", 1)[-1]
    slow = re.search(r"(^|\.)mapping\.fc\d+\.", name)  # learning-rate multiplier 0.01
    if leaf in ("const", "noise_const"):
        return r
    if leaf in ("noise_strength", "w_avg", "running_mean"):
        return 0.1 * r
    if leaf == "running_var":
        return 1 + 0.1 * r.abs()
    if leaf == "logit_scale":
        return math.log(10) + 0.1 * r
    if name.endswith("decoder.net.2.bias"):
        return 0.1 * r + 3.0 * (torch.arange(shape[0]) == 0)
    if leaf.endswith("bias"):
        if name.endswith("affine.bias"):
            return 1 + 0.1 * r
        return (10 if slow else 0.1) * r
    if len(shape) == 1:  # normalisation layers have a bias beside the weight, a PReLU has none
        has_bias = name.endswith("weight") and name[: -len("weight")] + "bias" in names
        return 1 + 0.1 * r if has_bias else 0.25 + 0.05 * r
    if name.endswith("decoder.net.0.weight"):
        return 2 * r * (math.sqrt(shape[1]) / r.norm(dim=1, keepdim=True))
    if name.endswith("decoder.net.2.weight"):
        return 2 * (r - r.mean(1, keepdim=True))
    if equalized or name.startswith("output_layer."):
        return (100 if slow else 1) * r
    return r / math.sqrt(math.prod(shape[1:]))


def make_state(shapes: dict[str, tuple[int, ...]], equalized: bool) -> dict[str, Tensor]:
    """The state dict for `{name: shape}`; `equalized` is True for EG3D's networks, False for the encoder and AFA."""
    names = set(shapes)
    return {n: _weight(n, s, names, equalized) for n, s in shapes.items() if n.rsplit(".", 1)[-1] not in CONSTRUCTED}


def load_state(module: torch.nn.Module, state: dict[str, Tensor], prefix: str = "") -> None:
    """Load a seeded state; only entries that keep their constructed value may be absent from it."""
    state = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    missing, unexpected = module.load_state_dict(state, strict=False)
    missing = [n for n in missing if n.rsplit(".", 1)[-1] not in CONSTRUCTED]
    assert not missing and not unexpected, (missing, unexpected)


class Case:
    """One reference file: `config`, `manifest(what)`, `input(name)`, `check(name, tensor)`."""

    def __init__(self, name: str) -> None:
        self.data = np.load(FOLDER / f"{name}.npz")
        self.config: dict[str, Any] = json.loads(str(self.data["config"]))

    def state(self, what: str, equalized: bool = True) -> dict[str, Tensor]:
        """The seeded state dict of `manifest/what`, with the names as they stand there (prefixes included)."""
        return make_state({n: tuple(s) for n, s in json.loads(str(self.data[f"manifest/{what}"]))}, equalized)

    def input(self, name: str) -> Tensor:
        """A stored or seeded input."""
        if f"in/{name}" in self.data:
            return torch.from_numpy(self.data[f"in/{name}"])
        made = self.config["inputs"][name]
        return seeded(made["key"], made["shape"]) * made.get("scale", 1.0) + made.get("offset", 0.0)

    def output(self, name: str) -> Tensor:
        """An output that is stored whole."""
        return torch.from_numpy(self.data[f"out/{name}"])

    def check(self, name: str, value: Tensor, tolerance: float, *, flips: float = 0.0) -> None:
        """Assert that the stored numbers of output `name` agree within `tolerance` of its largest absolute value.

        Args:
            flips: share of the numbers that may differ by more, since a threshold upstream can fall either way.
        """
        value = value.detach()
        if f"out/{name}" in self.data:
            expected = self.output(name)
            assert tuple(value.shape) == tuple(expected.shape), (
                f"{name}: {tuple(value.shape)} != {tuple(expected.shape)}"
            )
            _close(name, value, expected, tolerance, flips=flips)
            return
        assert list(value.shape) == list(self.data[f"out/{name}@shape"]), f"{name}: shape {tuple(value.shape)}"
        mean, std, norm, low, high = self.data[f"out/{name}@stats"].tolist()
        largest = max(abs(low), abs(high))
        picked = value.flatten()[torch.from_numpy(self.data[f"out/{name}@idx"]).long()]
        _close(name, picked, torch.from_numpy(self.data[f"out/{name}@val"]), tolerance, largest, flips)
        v = value.double()
        got = [v.mean(), v.std(unbiased=False), v.norm() / max(norm, 1e-30) * largest, v.min(), v.max()]
        stats = [mean, std, largest, low, high]
        kept = 3 if flips else 5  # an extreme may be one of the numbers that flip
        _close(f"{name}@stats", torch.stack(got[:kept]), torch.tensor(stats[:kept]), max(tolerance, 1e-4), largest)
        if f"out/{name}@pool32" in self.data:
            pooled = torch.nn.functional.adaptive_avg_pool2d(value, 32)
            expected = torch.from_numpy(self.data[f"out/{name}@pool32"])
            _close(f"{name}@pool32", pooled, expected, tolerance, largest, flips)


def _close(
    name: str, value: Tensor, expected: Tensor, tolerance: float, largest: float | None = None, flips: float = 0.0
) -> None:
    scale = float(expected.abs().max()) if largest is None else largest
    off = (value.double() - expected.double()).abs()
    far = ~(off <= tolerance * max(scale, 1e-12))  # not-a-number is far
    share = float(far.double().mean()) if value.numel() else 0.0
    assert share <= flips, (
        f"{name}: off by {float(off.max()):.3g}, largest value {scale:.3g}, tolerance {tolerance}; "
        f"a share of {share:.3g} is farther off, {flips} may be"
    )
