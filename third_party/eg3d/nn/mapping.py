"""Mapping network: latent and camera label to intermediate latents (EG3D, Sec. 4.4; StyleGAN2)."""

import torch
from eg3d.nn.layers import FullyConnected, normalize_second_moment
from torch import Tensor, nn


class MappingNetwork(nn.Module):
    """w = MLP([n(z), n(embed(c))]), n being second-moment normalisation; then broadcast and truncation.

    Args:
        z_dim: size of z; 0 maps the label alone.
        c_dim: size of the label; 0 maps z alone.
        w_dim: size of w.
        num_ws: rows of the result; None returns one w without the axis of rows.
        num_layers: number of leaky-ReLU layers.
        lr_multiplier: of these layers.
        w_avg_beta: decay of the running mean of w; None keeps no mean.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        if z_dim + c_dim <= 0 or num_layers < 1:
            raise ValueError(f"z_dim={z_dim}, c_dim={c_dim}, num_layers={num_layers}: expected an input and a layer")
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        if c_dim > 0:
            self.embed = FullyConnected(c_dim, w_dim, impl=impl)
        size = z_dim + (w_dim if c_dim > 0 else 0)
        for i in range(num_layers):
            layer = FullyConnected(size, w_dim, activation="lrelu", lr_multiplier=lr_multiplier, impl=impl)
            self.add_module(f"fc{i}", layer)
            size = w_dim
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_avg: bool = False,
    ) -> Tensor:
        """Map latents and labels to ws.

        Args:
            z: (B, z_dim); None only if z_dim is 0.
            c: (B, c_dim); None only if c_dim is 0.
            truncation_psi: w becomes w_avg + psi (w - w_avg).
            truncation_cutoff: number of rows that are truncated, from the first; None truncates all.
            update_w_avg: move the running mean by this batch, before truncation.
        Returns: (B, num_ws, w_dim) float32, or (B, w_dim) if num_ws is None.
        Raises: ValueError for inputs of another shape, or truncation or update without a running mean.
        """
        has_mean = self.num_ws is not None and self.w_avg_beta is not None
        if (truncation_psi != 1 or update_w_avg) and not has_mean:
            raise ValueError("truncation and update_w_avg need a running mean; give num_ws and w_avg_beta")
        w = self._inputs(z, c)
        for i in range(self.num_layers):
            w = self.get_submodule(f"fc{i}")(w)
        if update_w_avg:
            self._update_w_avg(w)
        if self.num_ws is None:
            return w
        ws = w.unsqueeze(1).repeat(1, self.num_ws, 1)
        return ws if truncation_psi == 1 else self._truncate(ws, truncation_psi, truncation_cutoff)

    def _inputs(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        """(B, z_dim + w_dim): the latent first, then the embedded label, each with unit second moment."""
        parts = []
        if self.z_dim > 0:
            parts.append(normalize_second_moment(_checked("z", z, self.z_dim)))
        if self.c_dim > 0:
            parts.append(normalize_second_moment(self.embed(_checked("c", c, self.c_dim))))
        if len({part.shape[0] for part in parts}) > 1:
            raise ValueError(f"z and c have batches of {parts[0].shape[0]} and {parts[1].shape[0]}, expected the same")
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def _update_w_avg(self, w: Tensor) -> None:
        assert self.w_avg_beta is not None
        self.w_avg.copy_(w.mean(dim=0).lerp(self.w_avg, self.w_avg_beta))

    def _truncate(self, ws: Tensor, psi: float, cutoff: int | None) -> Tensor:
        cutoff = ws.shape[1] if cutoff is None else cutoff
        if not 0 <= cutoff <= ws.shape[1]:
            raise ValueError(f"truncation_cutoff is {cutoff}, expected 0 to {ws.shape[1]} rows")
        near = self.w_avg + psi * (ws[:, :cutoff] - self.w_avg)
        return torch.cat([near, ws[:, cutoff:]], dim=1)


def _checked(name: str, x: Tensor | None, size: int) -> Tensor:
    if x is None or x.ndim != 2 or x.shape[1] != size:
        given = "None" if x is None else f"of shape {tuple(x.shape)}"
        raise ValueError(f"{name} is {given}, expected (B, {size})")
    return x.float()
