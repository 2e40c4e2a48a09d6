"""The renderer of a run with renderer=auto: chosen by a timing when training starts, and kept in its folder.

What is stored is never timed again, so that a resumed run computes what it has computed before.
"""

import json
import logging
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from eg3d.ops.choice import RENDERERS
from eg3d.rendering.timing import fastest, offered, render_calls

from goae.config import RunConfig
from goae.evaluation.runner import write_json

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
FILE = "renderer.json"


def stored_renderer(run_dir: Path) -> str:
    """Return what was chosen for a run, "auto" if nothing was. Raises: ValueError for a damaged file."""
    path = run_dir / FILE
    if not path.exists():
        return "auto"
    try:
        mode = json.loads(path.read_text())["renderer"]
        if mode in RENDERERS[1:]:
            return str(mode)
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{path} does not say which renderer the run computes with; give renderer={'|'.join(RENDERERS[1:])}, or delete "
        f"the file to choose again by a timing"
    )


def wanted_renderer(config: Any) -> str:
    """Return the mode that a job asks for: of renderer=auto what its run has stored, if it is one of a run."""
    run_dir = getattr(config, "run_dir", None)
    return stored_renderer(run_dir) if config.renderer == "auto" and run_dir else str(config.renderer)


def settle_renderer(
    config: RunConfig, generator: TriPlaneGenerator, batch: int, fabric: "Fabric", *, write: bool = True
) -> None:
    """Choose the mode of a generator's renderer by a timing, where renderer=auto, nothing is stored, and modes differ.

    Args:
        generator: on its device.
        batch: images that are rendered at once.
        write: store the choice in the run folder.
    """
    modes = offered(generator, generator.w_avg.device)
    if config.renderer != "auto" or stored_renderer(config.run_dir) != "auto" or len(modes) == 1:
        return
    path = config.run_dir / FILE if write else None
    mode = _timed(generator, modes, batch, path) if fabric.is_global_zero else ""
    generator.renderer.mode = fabric.broadcast(mode)


def _timed(generator: TriPlaneGenerator, modes: tuple[str, ...], batch: int, path: Path | None) -> str:
    config, device = generator.config, generator.w_avg.device
    rng, size = torch.Generator().manual_seed(0), config.plane_resolution
    planes = torch.randn(batch, 3, config.plane_channels, size, size, generator=rng).to(device)
    c = canonical_label(config.avg_camera_radius).expand(batch, -1).to(device)
    mode, seconds = fastest(render_calls(generator, planes, c, modes), device)
    log.info("renderer: %s, the fastest of %s", mode, ", ".join(f"{m} {s * 1e3:.1f} ms" for m, s in seconds.items()))
    if path:
        times = {name: s if isfinite(s) else None for name, s in seconds.items()}
        write_json({"renderer": mode, "seconds": times, "batch": batch}, path)
    return mode
