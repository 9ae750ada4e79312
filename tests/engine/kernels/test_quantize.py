from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels import quantize
from dsv4agent.engine.kernels.quantize import QuantizedRows


def same(a: QuantizedRows, b: QuantizedRows) -> bool:
    codes = a.codes.view(torch.uint8), b.codes.view(torch.uint8)
    return torch.equal(a.scales, b.scales) and torch.equal(*codes)


def part(rows: QuantizedRows, chosen: slice) -> QuantizedRows:
    return QuantizedRows(rows.codes[chosen], rows.scales[chosen])


def spread(generator: torch.Generator, m: int, channels: int) -> Tensor:
    """Rows of all sizes, from below the smallest scale to large."""
    x = torch.randn(m, channels, generator=generator, device=generator.device)
    return x * 2.0 ** torch.randint(-20, 12, (m, 1), generator=generator, device=generator.device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("m", "channels"), [(1, 128), (3, 256), (5, 1536), (2, 200), (4, 32)])
def test_codes_and_scales_are_those_of_the_format(
    generator: torch.Generator, dtype: torch.dtype, m: int, channels: int
) -> None:
    x = spread(generator, m, channels).to(dtype)
    assert same(quantize.quantize_rows(x), quantize.quantize_rows_reference(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("m", "channels"), [(1, 128), (3, 1536), (2, 200), (4, 32)])
def test_rounded_rows_are_what_codes_and_scales_keep(
    generator: torch.Generator, dtype: torch.dtype, m: int, channels: int
) -> None:
    x = spread(generator, m, channels).to(dtype)
    rounded, kept = quantize.round_rows(x), quantize.quantize_rows(x).dequantize()
    assert rounded.dtype is torch.bfloat16 and torch.equal(rounded.float(), kept)


def test_every_code_and_every_tie(device: torch.device) -> None:
    codes = torch.arange(127, dtype=torch.uint8, device=device)
    values = codes.view(torch.float8_e4m3fn).float()
    between = (values[1:] + values[:-1]) / 2
    positive = torch.cat((values, between, torch.nextafter(between, between + 1), values.new_tensor([448.0])))
    both = torch.cat((positive, -positive))
    # The largest value fixes the scale of its block at 1.
    x = torch.nn.functional.pad(both, (0, -both.numel() % 127)).view(-1, 127)
    x = torch.cat((x, x.new_full((x.shape[0], 1), 448.0)), dim=1)
    out = quantize.quantize_rows(x)
    assert bool((out.scales == 127).all())
    assert same(out, quantize.quantize_rows_reference(x))


def test_zeros_and_powers_of_two(device: torch.device) -> None:
    x = torch.zeros(3, 256, device=device)
    x[1, 5], x[2, 200] = 448.0 * 2**-3, -1e30
    out = quantize.quantize_rows(x)
    assert same(out, quantize.quantize_rows_reference(x))
    assert int(out.scales[1, 0]) == 124
    assert not bool(out.dequantize().isnan().any())


def test_rows_may_stand_apart(generator: torch.Generator) -> None:
    x = spread(generator, 4, 384)[:, 128:]
    assert same(quantize.quantize_rows(x), quantize.quantize_rows_reference(x.contiguous()))


@pytest.mark.parametrize(("m", "channels"), [(1, 128), (4, 256), (3, 1536), (2, 200)])
def test_norm_then_quantise(generator: torch.Generator, m: int, channels: int) -> None:
    x = spread(generator, m, channels).to(torch.bfloat16)
    weight = torch.rand(channels, generator=generator, device=generator.device).to(torch.bfloat16) + 0.5
    rows, quantized = quantize.rms_norm_quantize(x, weight, 1e-6)
    expected, _ = quantize.rms_norm_quantize_reference(x, weight, 1e-6)
    # The mean is summed in another order: a value on the edge may round to the neighbour.
    assert torch.allclose(rows.float(), expected.float(), rtol=2**-7, atol=0)
    assert float((rows != expected).float().mean()) < 0.01
    assert same(quantized, quantize.quantize_rows_reference(rows))
    for row in range(m):
        alone, alone_quantized = quantize.rms_norm_quantize(x[row : row + 1], weight, 1e-6)
        assert torch.equal(alone, rows[row : row + 1])
        assert same(alone_quantized, part(quantized, slice(row, row + 1)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 128), (5, 256), (3, 96)])
def test_swiglu_then_quantise(generator: torch.Generator, weighted: bool, rows: int, width: int) -> None:
    hidden = 6.0 * torch.randn(rows, 2 * width, generator=generator, device=generator.device)
    hidden[0, :4] = torch.tensor([100.0, -200.0, 0.0, 10.0])
    hidden[0, width : width + 4] = torch.tensor([-50.0, 50.0, 3.0, 0.0])
    weights = torch.rand(rows, generator=generator, device=generator.device) if weighted else None
    out = quantize.swiglu_quantize(hidden.to(torch.bfloat16), weights, 10.0)
    expected = quantize.quantize_rows_reference(quantize.swiglu_reference(hidden, weights, 10.0))
    read, wanted = out.dequantize(), expected.dequantize()
    assert bool(read.isfinite().all())
    # exp differs in its last bits between devices, which may move a value to the next code.
    assert torch.allclose(read, wanted, rtol=2**-3, atol=1e-4)
    assert float((read != wanted).float().mean()) < 0.01


def test_no_rows(device: torch.device) -> None:
    assert quantize.quantize_rows(torch.zeros(0, 256, device=device)).codes.shape == (0, 256)
    assert quantize.swiglu_quantize(torch.zeros(0, 256, device=device), None, 10.0).scales.shape == (0, 1)
