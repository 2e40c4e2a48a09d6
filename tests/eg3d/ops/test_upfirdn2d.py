import pytest
import torch
from eg3d.ops import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

BINOMIAL = setup_filter([1, 3, 3, 1])


def image(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[None, None]


def test_upsampling_by_hand() -> None:
    expected = image(
        [0.5625, 0.9375, 1.3125, 1.125],
        [1.125, 1.75, 2.25, 1.875],
        [1.875, 2.75, 3.25, 2.625],
        [1.6875, 2.4375, 2.8125, 2.25],
    )
    torch.testing.assert_close(upsample2d(image([1.0, 2.0], [3.0, 4.0]), BINOMIAL, impl="ref"), expected)


def test_downsampling_by_hand() -> None:
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = image([2.734375, 3.9375], [7.546875, 8.75])
    torch.testing.assert_close(downsample2d(ramp, BINOMIAL, impl="ref"), expected)


def test_the_definition_sample_by_sample() -> None:
    """Against loops over the sum itself, with different numbers along x and y."""
    x = torch.randn(1, 1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    (ux, uy), (dx, dy), (x0, x1, y0, y1), gain = (2, 3), (3, 2), (1, 2, 2, -1), 1.7
    y = upfirdn2d(x, f, up=(ux, uy), down=(dx, dy), padding=(x0, x1, y0, y1), gain=gain, impl="ref")
    height, width = (5 * uy + y0 + y1 - 3) // dy + 1, (4 * ux + x0 + x1 - 2) // dx + 1
    assert y.shape == (1, 1, height, width)
    for i in range(height):
        for j in range(width):
            total = 0.0
            for a in range(3):
                for b in range(2):
                    row, column = i * dy + (2 - a) - y0, j * dx + (1 - b) - x0
                    if row % uy == 0 and column % ux == 0 and 0 <= row // uy < 5 and 0 <= column // ux < 4:
                        total += float(f[a, b] * x[0, 0, row // uy, column // ux])
            assert float(y[0, 0, i, j]) == pytest.approx(gain * total, abs=1e-6)


def test_separable_filter_equals_its_outer_product() -> None:
    x, taps = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 2, 8)
    options = {"up": 2, "down": (1, 3), "padding": (4, 3, 5, 2), "gain": 3.0, "flip_filter": True, "impl": "ref"}
    torch.testing.assert_close(upfirdn2d(x, taps, **options), upfirdn2d(x, taps.outer(taps), **options))


def test_no_filter_changes_nothing() -> None:
    x = torch.arange(18.0).reshape(1, 2, 3, 3)
    assert torch.equal(upfirdn2d(x, None, impl="ref"), x)
    assert torch.equal(filter2d(x, setup_filter(None), impl="ref"), x)


def test_resampling_keeps_a_constant_away_from_the_border() -> None:
    x = torch.full((1, 1, 8, 8), 2.0)
    torch.testing.assert_close(upsample2d(x, BINOMIAL, impl="ref")[..., 1:-1, 1:-1], torch.full((1, 1, 14, 14), 2.0))
    torch.testing.assert_close(downsample2d(x, BINOMIAL, impl="ref")[..., 1:-1, 1:-1], torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.parametrize("f", [BINOMIAL, torch.tensor([1.0, -2.0, 3.0]), None])
def test_two_derivatives(f: Tensor | None) -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def op(x: Tensor) -> Tensor:
        return upfirdn2d(x, f, up=(2, 1), down=(1, 2), padding=(2, 1, 3, -1), gain=2, impl="ref").square()

    assert gradcheck(op, (x,))
    assert gradgradcheck(op, (x,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(1, 4, 4)}, "expected \\(B, C, H, W\\)"),
        ({"f": torch.ones(1, 1, 1)}, "expected a constant filter"),
        ({"f": torch.ones(2, 2, requires_grad=True)}, "expected a constant filter"),
        ({"up": 0}, "up is 0"),
        ({"down": (1, -2)}, "down is \\(1, -2\\)"),
        ({"padding": (1, 2, 3)}, "expected 1, 2 or 4 whole numbers"),
        ({"padding": -1}, "the padded image is 2 x 2, smaller than the filter, 4 x 4"),
        ({"impl": "fast"}, "impl is 'fast'"),
    ],
)
def test_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upfirdn2d(**{"x": torch.zeros(1, 1, 4, 4), "f": BINOMIAL, **arguments})


def test_setup_filter_refuses_what_is_no_filter() -> None:
    with pytest.raises(ValueError, match="f has shape"):
        setup_filter([[[1.0]]])
    with pytest.raises(ValueError, match="f has shape"):
        setup_filter([])
