"""Geometry and occlusion-aware encoding for 3D GAN inversion.

The public names are imported at their first use: a data worker needs none of the networks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goae.inversion import Inversion, Inverter
    from goae.loading import load_inverter

__all__ = ["Inversion", "Inverter", "load_inverter"]


def __getattr__(name: str) -> Any:
    if name == "load_inverter":
        from goae.loading import load_inverter

        return load_inverter
    if name in ("Inversion", "Inverter"):
        from goae import inversion

        return getattr(inversion, name)
    raise AttributeError(f"module 'goae' has no attribute {name!r}")
