"""How tensors of the host reach a GPU that is busy."""

import torch
from torch import Tensor


def send(x: Tensor, to: Tensor | torch.device) -> Tensor:
    """Copy a tensor to a device, without waiting for what a GPU still has to do before.

    On CUDA the copy goes by pinned memory, from which the GPU takes it when it comes to it.

    Args:
        to: a device, or a tensor that has the device and the dtype of the result.
    """
    device = to.device if isinstance(to, Tensor) else to
    x = x.to(to.dtype) if isinstance(to, Tensor) else x
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
