"""Edit directions of the extended latent space: files to `delta_ws` (paper, Sec. 4.4 and App. A)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def load_direction(path: str | Path, *, num_ws: int, w_dim: int) -> Tensor:
    """A direction (num_ws, w_dim), its step size baked into its norm as in the released files.

    Reads NumPy arrays and torch files whatever their suffix says (some released .npy files are torch archives), of
    shape (1, num_ws, w_dim), (num_ws, w_dim) or (w_dim,), the last for all rows alike. No code of the file is run.

    Raises: FileNotFoundError; ValueError if it is no such array.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no edit direction at {path}; give a .npy or torch file with one array")
    direction = _read(path)
    if direction.numel() == w_dim:
        direction = direction.reshape(1, w_dim).expand(num_ws, w_dim)
    if direction.numel() != num_ws * w_dim or direction.shape[-2:] != (num_ws, w_dim):
        raise ValueError(
            f"the edit direction {path} has shape {tuple(direction.shape)}; expected ({num_ws}, {w_dim}) for this "
            f"generator"
        )
    return direction.reshape(num_ws, w_dim).float().clone()


def edit_delta(direction: Tensor, alpha: float, *, glasses: Tensor | None = None, glass_comp: float = 0.0) -> Tensor:
    """alpha n - glass_comp n_glass: what is added to ws; both directions (num_ws, w_dim).

    The released code takes 0.8 of the glasses direction off every edit of another attribute, whatever alpha is
    (`goae.edit_glass_comp` of the official preset); the paper does not.

    Raises: ValueError if there is a share to take off but no glasses direction.
    """
    if not glass_comp:
        return alpha * direction
    if glasses is None:
        raise ValueError(f"glass_comp is {glass_comp}, but there is no glasses direction; give it, or set 0")
    return alpha * direction - glass_comp * glasses


def _read(path: Path) -> Tensor:
    try:
        content: Any = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return torch.from_numpy(content)
    except (ValueError, OSError, EOFError):
        pass  # no NumPy array; a torch file perhaps
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what it cannot read
        raise ValueError(f"{path} is neither a NumPy array nor a torch file with a tensor: {error}") from error
    if not isinstance(content, Tensor):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected one tensor")
    return content
