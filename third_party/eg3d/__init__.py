"""An independent EG3D: tri-plane 3D GAN (Chan et al., CVPR 2022)."""

from .generator import GeneratorConfig, Rendering, Synthesis, TriPlaneGenerator
from .nn.backbone import Features
from .rendering.renderer import RenderingConfig
from .rendering.sampling import Uniforms

__all__ = [
    "Features",
    "GeneratorConfig",
    "Rendering",
    "RenderingConfig",
    "Synthesis",
    "TriPlaneGenerator",
    "Uniforms",
]
