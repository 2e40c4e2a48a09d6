"""How long one inversion takes: median wall seconds at batch 1, models loaded, after warm-up, device synchronised.

What is timed is from the posed image in memory to the reconstruction of the input view (paper, App. B; novel views and
preprocessing are not counted). A method may tell its parts apart by a generator that does the same work and yields the
name of each part when it is done.
"""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from goae.evaluation.runner import Method, reconstruct
from goae.models.goae import GOAE
from goae.models.latent_inverter import Coded, LatentInverter, View

T = TypeVar("T")
Steps = Callable[[Tensor, Tensor], Generator[str, None, View]]


def encoder_steps(inverter: LatentInverter, image: Tensor, c: Tensor) -> Generator[str, None, View]:
    """Invert by ws alone and reconstruct in parts: encode (image to ws), render. Returns: the input camera's view."""
    coded = yield from _encode(inverter, image, c)
    yield "render"
    return coded.view


def goae_steps(goae: GOAE, image: Tensor, c: Tensor) -> Generator[str, None, View]:
    """Invert and reconstruct in parts: encode (image to ws), refine (W+ render, AFA, refined planes), mix, render.

    Returns: the view of the input camera.
    """
    coded = yield from _encode(goae, image, c)
    refined = goae.refine_planes(image, coded)
    yield "refine"
    mixed = goae.mix(coded.planes, refined.planes, c)
    yield "mix"
    view = goae.render(mixed.planes if goae.config.mix.input_view == "mix" else refined.planes, coded.ws, c)
    yield "render"
    return view


def _encode(inverter: LatentInverter, image: Tensor, c: Tensor) -> Generator[str, None, Coded]:
    """Yields once ws are there; what follows, planes and the view, belongs to the next part."""
    ws = inverter.encode(inverter.encoder_input(image))
    yield "encode"
    features = inverter.generator.features(ws, inverter.feature_resolution)
    planes = inverter.generator.planes(features, ws)
    return Coded(ws, features, planes, inverter.render(planes, ws, c))


def inversion_seconds(
    method: Method[T],
    samples: Sequence[dict[str, Any]],
    *,
    warm_up: int,
    device: torch.device,
    steps: Steps | None = None,
) -> dict[str, float]:
    """Median seconds `time` over samples, and `time_<part>` where the method tells its parts apart.

    Samples whose optimisation diverges are left out; `timed_images` counts the others. Without any there is no `time`.

    Args:
        warm_up: uncounted inversions of the first sample before each of the two measurements.
        steps: the method's parts; they are timed in a pass of their own, so that they need not add up to `time`.
    """
    rows = [samples[0]] * warm_up + list(samples)
    inputs = [(row["image"][None].to(device), row["c"][None].to(device)) for row in rows]
    whole = [_seconds(method, image, c, device) for image, c in inputs][warm_up:]
    known = [seconds for seconds in whole if seconds is not None]
    found: dict[str, float] = {"timed_images": len(known)}
    if known:
        found["time"] = float(np.median(known))
    if steps is not None:
        parts = [_parts(steps, image, c, device) for image, c in inputs][warm_up:]
        found |= {f"time_{name}": float(np.median([part[name] for part in parts])) for name in parts[0]}
    return found


def _seconds(method: Method[T], image: Tensor, c: Tensor, device: torch.device) -> float | None:
    """Of one inversion; None where its optimisation diverges."""
    began = _now(device)
    try:
        reconstruct(method, image, c)
    except FloatingPointError:
        return None
    return _now(device) - began


@torch.inference_mode()
def _parts(steps: Steps, image: Tensor, c: Tensor, device: torch.device) -> dict[str, float]:
    seconds: dict[str, float] = {}
    began = _now(device)
    for name in steps(image, c):
        ended = _now(device)
        seconds[name] = seconds.get(name, 0.0) + ended - began
        began = ended
    return seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
