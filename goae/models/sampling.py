"""A generator with other numbers of samples along its rays, for where a coarser render will do."""

from dataclasses import replace

from eg3d.generator import TriPlaneGenerator


def with_samples(generator: TriPlaneGenerator, samples: int, *, recompute: bool = False) -> TriPlaneGenerator:
    """A frozen copy that takes `samples` coarse and as many fine samples per ray; 0: as many as the generator.

    Args:
        recompute: find samples again in the backward pass, where the plain renderer is used.
    """
    rendering = generator.config.rendering
    if samples:
        rendering = replace(rendering, depth_resolution=samples, depth_resolution_importance=samples)
    other = TriPlaneGenerator(
        replace(generator.config, rendering=rendering),
        generator.impl,
        renderer=generator.renderer.mode,
        recompute=recompute,
        force_fp32=generator.force_fp32,
    )
    other.load_state_dict(generator.state_dict())
    return other.to(generator.w_avg.device).eval().requires_grad_(False)
