"""Numbers in 8 bits: what is exact, how far the rest is off, and where blocks end."""

import pytest
import torch
from lightsae_kernels import Quantized
from lightsae_kernels.quantized_moments import BLOCK, dequantize, dither, quantize_, quantized_zeros
from torch import Tensor

CODES = [torch.int8, torch.uint8]


def quantized(x: Tensor, dtype: torch.dtype, u: Tensor | float = 0.5) -> Quantized:
    target = quantized_zeros(x, dtype)
    quantize_(target, x, u)
    return target


def spread(dtype: torch.dtype, *shape: int) -> Tensor:
    """Numbers over six orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * 10 ** (
        -6 * torch.rand(shape, generator=generator)
    )
    return x.abs() if dtype == torch.uint8 else x


@pytest.mark.parametrize("dtype", CODES, ids=str)
@pytest.mark.parametrize("width", [1, 255, 256, 257, 600])
def test_every_number_becomes_the_nearest_code(width: int, dtype: torch.dtype) -> None:
    x = spread(dtype, 5, width)
    found = quantized(x, dtype)
    levels = torch.iinfo(dtype).max
    scales = found.scales.repeat_interleave(BLOCK, dim=1)[:, :width]
    values = scales[..., None] * (torch.arange(levels + 1) / levels) ** 4
    nearest = (values - x.abs()[..., None]).abs().argmin(dim=-1)
    if dtype == torch.uint8:
        nearest.clamp_min_(1)
    assert torch.equal(found.codes.int().abs(), nearest.int())
    expected = values.gather(2, nearest[..., None]).squeeze(2) * x.sign()
    torch.testing.assert_close(dequantize(found), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_the_mean_over_the_steps_is_the_number(dtype: torch.dtype) -> None:
    x, steps = spread(dtype, 3, 40), 1000
    total = torch.zeros_like(x)
    for step in range(1, steps + 1):
        u = dither(torch.tensor(float(step)), range(3), 40)
        total += dequantize(quantized(x, dtype, u))
    levels = torch.iinfo(dtype).max
    scales = x.abs().amax(dim=1, keepdim=True)
    place = ((x.abs() / scales) ** 0.25 * levels).floor()
    distance = scales * (((place + 1) / levels) ** 4 - (place / levels) ** 4)
    # Five standard errors of what is one of two numbers a distance apart.
    seen = (place >= 1) if dtype == torch.uint8 else torch.ones_like(place, dtype=torch.bool)
    assert ((total / steps - x).abs() / distance)[seen].amax() < 5 * 0.5 / steps**0.5


def test_the_dither_is_uniform_and_of_its_own_at_every_place_and_step() -> None:
    u = torch.stack([dither(torch.tensor(float(s)), range(64), 64) for s in range(1, 201)])
    assert 0 <= u.amin() < 1e-3
    assert 1 - 1e-3 < u.amax() < 1
    counts = torch.histc(u, 16)
    expected = u.numel() / 16
    assert ((counts - expected) ** 2 / expected).sum() / 15 < 3
    flat = u.reshape(200, -1) - 0.5
    between_steps = (flat[1:] * flat[:-1]).mean() * 12
    assert between_steps.abs() < 0.01
    assert (flat.mean(dim=0) * 12**0.5 * 200**0.5).abs().amax() < 6


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_zero_and_the_largest_of_a_block_are_exact(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3 * BLOCK)
    x[0, 5], x[0, 7], x[1, BLOCK] = 0.3, 0.1, 7e-20
    back = dequantize(quantized(x, dtype))
    assert torch.equal(back[x == 0], x[x == 0])
    assert back[0, 5] == x[0, 5]
    assert back[1, BLOCK] == x[1, BLOCK]


def test_a_second_moment_above_0_never_becomes_0() -> None:
    x = torch.full((1, 8), 1e-30)
    x[0, 0] = 1.0
    assert (dequantize(quantized(x, torch.uint8)) > 0).all()


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_nearest_codes_of_what_came_back_are_the_same(dtype: torch.dtype) -> None:
    once = quantized(spread(dtype, 4, 300), dtype)
    again = quantized(dequantize(once), dtype)
    assert torch.equal(again.codes, once.codes)
    assert torch.equal(again.scales, once.scales)


def test_a_block_never_crosses_a_row() -> None:
    x = torch.ones(2, 300)
    x[1] = 100
    assert quantized(x, torch.int8).scales.tolist() == [[1, 1], [100, 100]]
