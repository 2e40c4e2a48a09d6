"""What methods that look at every pixel are given."""

from eg3d.cameras import check_label
from eg3d.generator import TriPlaneGenerator
from torch import Tensor


def check_input(image: Tensor, c: Tensor, generator: TriPlaneGenerator) -> tuple[Tensor, Tensor]:
    """Images and labels as methods that look at every pixel take them, on the generator's device.

    Raises: ValueError unless they are (B, 3, H, H) float, H being the generator's, and (B, 25) valid labels.
    """
    size = generator.config.image_resolution
    if image.ndim != 4 or image.shape[1:] != (3, size, size) or not image.is_floating_point() or not len(image):
        raise ValueError(
            f"images have shape {tuple(image.shape)} and type {image.dtype}; expected float (B, 3, {size}, {size}) in "
            "[-1, 1], the generator's size; resize them first"
        )
    if c.shape != (len(image), 25):
        raise ValueError(f"camera labels have shape {tuple(c.shape)}; expected ({len(image)}, 25), one for each image")
    check_label(c, centred=True)
    device = generator.w_avg.device
    return image.to(device), c.to(device)
