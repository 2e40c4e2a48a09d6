"""Edit directions of the extended latent space: files to `delta_ws` (paper, Sec. 4.4 and App. A)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from eg3d.foreign import read_tensors
from eg3d.integrity import append_checksum, replacing
from torch import Tensor

from goae.models.goae import GOAE
from goae.paths import path


@dataclass
class EditConfig:
    """An edit with a name: a step of `alpha` along a direction."""

    label: str = ""
    direction: str = path()  # a file that `load_direction` reads
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not self.label or not self.direction or any(sign in self.label for sign in "/\\"):
            raise ValueError(f"an edit needs a label without slashes and the file of a direction, got {self}")


def load_direction(path: str | Path, *, num_ws: int, w_dim: int) -> Tensor:
    """A direction (num_ws, w_dim), its step size baked into its norm as in the released files.

    Reads NumPy arrays and torch files whatever their suffix says (some released .npy files are torch archives), of
    shape (1, num_ws, w_dim), (num_ws, w_dim) or (w_dim,), the last for all rows alike. No code of the file is run.

    Raises: FileNotFoundError; ValueError if it is damaged, or no such array.
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


def load_edit(edit: EditConfig, goae: GOAE, glasses: str = "") -> Tensor:
    """What an edit adds to ws, (num_ws, w_dim).

    Args:
        glasses: file of the direction of glasses, of which `goae.config.edit_glass_comp` is taken off every other edit.
    Raises: as `load_direction` and `edit_delta`.
    """
    num_ws, w_dim, share = goae.generator.num_ws, goae.generator.config.w_dim, goae.config.edit_glass_comp
    direction = load_direction(edit.direction, num_ws=num_ws, w_dim=w_dim)
    if not share or (glasses and Path(edit.direction).resolve() == Path(glasses).resolve()):
        return edit_delta(direction, edit.alpha)
    off = load_direction(glasses, num_ws=num_ws, w_dim=w_dim) if glasses else None
    return edit_delta(direction, edit.alpha, glasses=off, glass_comp=share)


def save_direction(normal: Tensor, step: float, path: Path, *, num_ws: int) -> None:
    """Write a direction (w_dim,) as the released files are: a NumPy array (1, num_ws, w_dim), the step its norm."""
    direction = (step * normal).float().cpu().expand(1, num_ws, -1)
    with replacing(path) as partial:
        with partial.open("wb") as file:
            np.save(file, direction.contiguous().numpy(), allow_pickle=False)
        append_checksum(partial)


def _read(path: Path) -> Tensor:
    content = read_tensors(path, remedy="Download it again, or make it with scripts/train_directions.py.")
    if not isinstance(content, Tensor) or content.is_complex():
        raise ValueError(f"{path} holds a {type(content).__name__}; expected one tensor of real numbers")
    return content.detach()
