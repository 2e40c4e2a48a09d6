"""What an archive's file becomes in the cache: bytes -> tensors by the names our modules give them."""

import numpy as np

from goae.fetching.pickles import load_arrays

# convolution number in the archive -> name in `lpips.LPIPS`
ALEX = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
VGG = (
    *("slice1.0", "slice1.2", "slice2.5", "slice2.7", "slice3.10", "slice3.12", "slice3.14"),
    *("slice4.17", "slice4.19", "slice4.21", "slice5.24", "slice5.26", "slice5.28"),
)


def alex_trunk(data: bytes) -> dict[str, np.ndarray]:
    """AlexNet's five convolutions by the names of `lpips.LPIPS(net="alex")`."""
    return _trunk(data, "AlexNet_0", ALEX)


def vgg_trunk(data: bytes) -> dict[str, np.ndarray]:
    """VGG16's thirteen convolutions by the names of `lpips.LPIPS(net="vgg")`."""
    return _trunk(data, "VGG16_0", VGG)


def _trunk(data: bytes, module: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    arrays, state = load_arrays(data), {}
    for i, name in enumerate(names):
        kernel, bias = (arrays.get(f"{module}.Conv_{i}.{what}") for what in ("kernel", "bias"))
        if kernel is None or bias is None or kernel.ndim != 4:
            raise ValueError(f"the file has no convolution {module}.Conv_{i}; it has {', '.join(sorted(arrays))}")
        state[f"net.{name}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))  # HWIO -> OIHW
        state[f"net.{name}.bias"] = np.ascontiguousarray(bias)
    return state
