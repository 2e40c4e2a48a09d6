"""An independent EG3D: tri-plane 3D GAN (Chan et al., CVPR 2022)."""

from eg3d.generator import GeneratorConfig, Rendering, Synthesis, TriPlaneGenerator
from eg3d.nn.backbone import Features
from eg3d.rendering.renderer import RenderingConfig
from eg3d.rendering.sampling import Uniforms

__all__ = [
    "Features",
    "GeneratorConfig",
    "Rendering",
    "RenderingConfig",
    "Synthesis",
    "TriPlaneGenerator",
    "Uniforms",
]
