import pytest
import torch
from eg3d.ops import conv2d_resample, modulated_conv2d, setup_filter, upfirdn2d
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

BINOMIAL = setup_filter([1, 3, 3, 1])
WEIGHT = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
SQUARE = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("demodulate", [True, False])
def test_upsampling_modulated_convolution_by_hand(fused: bool, demodulate: bool) -> None:
    expected = torch.tensor(
        [
            [17.0625, 29.6875, 37.25, 33.9375],
            [36, 60.625, 73.4375, 64.6875],
            [56.25, 90.625, 105.3125, 89.4375],
            [63.9375, 99.4375, 111.875, 92.0625],
        ]
    )
    options = {"up": 2, "padding": 1, "resample_filter": BINOMIAL, "flip_weight": False, "fused": fused, "impl": "ref"}
    y = modulated_conv2d(SQUARE, WEIGHT, torch.ones(1, 1), demodulate=demodulate, **options)
    torch.testing.assert_close(y[0, 0], expected / (285 + 1e-8) ** 0.5 if demodulate else expected)


@pytest.mark.parametrize("fused", [True, False])
def test_modulated_convolution_by_hand(fused: bool) -> None:
    y = modulated_conv2d(SQUARE, WEIGHT, torch.full((1, 1), 2.0), padding=1, fused=fused, impl="ref")
    torch.testing.assert_close(y[0, 0], torch.tensor([[4.5610862, 3.9687374], [2.7840397, 2.1916909]]))


def test_downsampling_convolution_by_hand() -> None:
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4)
    y = conv2d_resample(ramp, WEIGHT, BINOMIAL, down=2, padding=1, impl="ref")
    torch.testing.assert_close(y[0, 0], torch.tensor([[183.921875, 206.46875], [264.359375, 268.53125]]))


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("flip_weight", [True, False])
@pytest.mark.parametrize("f", [BINOMIAL, torch.rand(3, 5), torch.rand(6)])
@pytest.mark.parametrize(
    ("up", "down", "padding"), [(2, 1, 1), (1, 2, (0, 2, 1, 3)), (2, 3, 1), (3, 1, (-4, 3, 2, -3))]
)
def test_equals_padding_filtering_convolving_filtering(
    kernel: tuple[int, int],
    groups: int,
    flip_weight: bool,
    f: Tensor,
    up: int,
    down: int,
    padding: int | tuple[int, ...],
) -> None:
    """Every short cut gives what the definition gives: pad and filter, convolve, filter and decimate."""
    x, w = randn(1, 4, 9, 8), randn(6, 4 // groups, *kernel, seed=1)
    px0, px1, py0, py1 = (padding,) * 4 if isinstance(padding, int) else padding
    tx, ty = f.shape[-1], f.shape[0]
    if up > 1:
        px0, px1, py0, py1 = (
            px0 + (tx + up - 1) // 2,
            px1 + (tx - up) // 2,
            py0 + (ty + up - 1) // 2,
            py1 + (ty - up) // 2,
        )
    if down > 1:
        px0, px1 = px0 + (tx - down + 1) // 2, px1 + (tx - down) // 2
        py0, py1 = py0 + (ty - down + 1) // 2, py1 + (ty - down) // 2
    pads = (px0, px1, py0, py1)
    expected = upfirdn2d(x, f if up > 1 else None, up=up, padding=pads, gain=up**2, impl="ref")
    expected = F.conv2d(expected, w if flip_weight else w.flip([2, 3]), groups=groups)
    expected = upfirdn2d(expected, f if down > 1 else None, down=down, impl="ref")
    options = {"up": up, "down": down, "padding": padding, "groups": groups, "flip_weight": flip_weight, "impl": "ref"}
    torch.testing.assert_close(conv2d_resample(x, w, f, **options), expected)


@pytest.mark.parametrize("padding", [1, (1, 2, 0, 1), (-1, 2, 1, -2), 0])
def test_padding_without_resampling(padding: int | tuple[int, ...]) -> None:
    x, w = randn(1, 2, 6, 7), randn(3, 2, 3, 3, seed=1)
    pads = (padding,) * 4 if isinstance(padding, int) else padding
    torch.testing.assert_close(conv2d_resample(x, w, padding=padding, impl="ref"), F.conv2d(F.pad(x, pads), w))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_two_derivatives_of_the_modulated_convolution(fused: bool, up: int) -> None:
    inputs = tuple(t.requires_grad_() for t in (randn(2, 2, 3, 2), randn(2, 2, 3, 3, seed=1), randn(2, 2, seed=2)))

    def op(x: Tensor, w: Tensor, s: Tensor) -> Tensor:
        return modulated_conv2d(x, w, s, up=up, padding=1, resample_filter=BINOMIAL, fused=fused, impl="ref")

    assert gradcheck(op, inputs)
    assert gradgradcheck(op, inputs)


def test_every_sample_has_its_own_styles() -> None:
    x, w, s, noise = randn(3, 4, 5, 5), randn(6, 4, 3, 3, seed=1), randn(3, 4, seed=2), randn(3, 1, 5, 5, seed=3)
    whole = modulated_conv2d(x, w, s, noise, padding=1, impl="ref")
    for n in range(3):
        row = modulated_conv2d(x[n : n + 1], w, s[n : n + 1], noise[n : n + 1], padding=1, impl="ref")
        torch.testing.assert_close(row, whole[n : n + 1])


@pytest.mark.parametrize("fused", [True, False])
def test_half_precision_survives_large_weights(fused: bool) -> None:
    x, w, s = randn(2, 8, 6, 6).float(), 3e4 * randn(4, 8, 3, 3, seed=1).float(), 500 * randn(2, 8, seed=2).float()
    expected = modulated_conv2d(x, w, s, padding=1, impl="ref")
    y = modulated_conv2d(x.half(), w, s, padding=1, fused=fused, impl="ref")
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), expected, atol=5e-3, rtol=5e-3)


def test_refuses_styles_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"styles \(2, 3\) disagree"):
        modulated_conv2d(torch.zeros(2, 4, 5, 5), torch.zeros(6, 4, 3, 3), torch.zeros(2, 3))
