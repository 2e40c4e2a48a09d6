"""Feature alignment against Eq. 7 in float64 NumPy, written from the equation."""

import numpy as np
import torch
from tiny import seeded_weights, tiny_values

from goae.models.afa import AFA, AFAConfig
from goae.models.storage import restore

Array = np.ndarray


def tokens(x: Array) -> Array:
    """(C, h, w) -> (h·w, C), each position normalised over its channels."""
    flat = x.reshape(len(x), -1).T
    return (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)


def attention(queries: Array, memory: Array, weights: dict[str, Array], heads: int) -> Array:
    """Softmax(Q Kᵀ / √d) V for each head, with Q = W_Q F, K = W_K F_ΔI, V = W_V F_ΔI, then the output projection."""
    channels = queries.shape[1]
    q, k, v = (
        x @ weights["in_proj_weight"][i * channels : (i + 1) * channels].T
        + weights["in_proj_bias"][i * channels : (i + 1) * channels]
        for i, x in enumerate((queries, memory, memory))
    )
    width, aligned = channels // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[:, part] @ k[:, part].T / np.sqrt(width)
        weight = np.exp(logits - logits.max(1, keepdims=True))
        aligned.append(weight / weight.sum(1, keepdims=True) @ v[:, part])
    return np.concatenate(aligned, 1) @ weights["out_proj.weight"].T + weights["out_proj.bias"]


def convolve(x: Array, weight: Array, bias: Array) -> Array:
    """3 x 3 convolution of (C, h, w), zeros around it."""
    padded, (_, height, width) = np.pad(x, ((0, 0), (1, 1), (1, 1))), x.shape
    total = np.zeros((len(weight), height, width)) + bias[:, None, None]
    for row in range(3):
        for column in range(3):
            window = padded[:, row : row + height, column : column + width]
            total += np.einsum("oc,chw->ohw", weight[:, :, row, column], window)
    return total


def test_eq7_matches_float64_numpy() -> None:
    afa = AFA(restore(AFAConfig, tiny_values("afa") | {"variant": "paper"}))
    seeded_weights(afa, equalized=False)
    afa.double().eval()
    generator = torch.Generator().manual_seed(0)
    image, image_w = (torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    features = torch.randn(2, 16, 8, 8, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        out = afa(image, image_w, features)
        residual_features = afa.output_layer(afa.body(afa.input_layer(image - image_w))).numpy()  # CNN(ΔI)
    state = {name.removeprefix("modulation."): tensor.numpy() for name, tensor in afa.state_dict().items()}
    weights = {name.removeprefix("attention."): value for name, value in state.items() if name.startswith("attention.")}
    for i in range(2):
        f = features[i].numpy()
        aligned = attention(tokens(f), tokens(residual_features[i]), weights, afa.config.attention_heads)
        aligned = aligned.T.reshape(f.shape)
        gamma, beta = (
            convolve(aligned, state[f"conv_{name}.weight"], state[f"conv_{name}.bias"]) for name in ("gamma", "beta")
        )
        np.testing.assert_allclose(out.gamma[i].numpy(), gamma, atol=1e-9)
        np.testing.assert_allclose(out.beta[i].numpy(), beta, atol=1e-9)
        np.testing.assert_allclose(out.features[i].numpy(), gamma * f + beta, atol=1e-9)
    assert out.gamma.std() > 0.01 and out.beta.std() > 0.01
