from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.engine.ops.lists import floats
from dsv4agent.engine.weights import formats


def test_e2m1_codes_round_trip() -> None:
    codes = torch.arange(16, dtype=torch.uint8)
    assert torch.equal(formats.encode_e2m1(formats.decode_e2m1(codes)), codes)


def test_e4m3_codes_round_trip() -> None:
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    values = formats.decode_e4m3(codes)
    finite = ~values.isnan()
    assert int(finite.sum()) == 254
    assert torch.equal(formats.encode_e4m3(values[finite]), codes[finite])


def test_e2m1_ties_go_to_even() -> None:
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0])
    assert floats(formats.round_e2m1(ties)) == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0]
    assert floats(formats.round_e2m1(-ties)) == [-0.0, -1.0, -1.0, -2.0, -2.0, -4.0, -4.0, -6.0]


@given(st.floats(min_value=2.0**-120, max_value=2.0**120, width=32))
def test_power_of_two_ceiling(value: float) -> None:
    scale, code = formats.power_of_two_ceiling(torch.tensor([value]))
    mantissa, exponent = math.frexp(value)
    expected = exponent - 1 if mantissa == 0.5 else exponent
    assert float(scale) == 2.0**expected
    assert int(code) == expected + 127
    assert float(formats.decode_e8m0(code)) == float(scale)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    exponent=st.integers(-8, 8),
    seed=st.integers(0, 2**20),
)
def test_fp8_blocks(rows: int, columns: int, exponent: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 2.0**exponent
    codes, scale = formats.quantize_fp8_block(weight)
    assert codes.shape == weight.shape
    assert scale.shape == (math.ceil(rows / 128), math.ceil(columns / 128))
    read = formats.dequantize_fp8_block(codes, formats.decode_e8m0(scale))
    assert torch.equal(read, formats.fake_fp8_block(weight))
    assert torch.equal(read, formats.fake_fp8_block(read)), "values that fit are kept"
    spread = (
        formats.decode_e8m0(scale).repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
    )
    # Half a step of a three-bit mantissa, or of the smallest subnormal.
    limit = torch.maximum(weight.abs() * 2.0**-4, spread * 2.0**-10)
    assert bool(((read - weight).abs() <= limit).all())
    assert torch.equal(read.to(torch.bfloat16).float(), read), "exact in bfloat16"


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 40), groups=st.integers(1, 6), seed=st.integers(0, 2**20))
def test_fp4_groups(rows: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, groups * 32, generator=generator)
    packed, scale = formats.quantize_fp4(weight)
    assert packed.dtype is torch.int8 and packed.shape == (rows, groups * 16)
    read = formats.dequantize_fp4(packed, formats.decode_e8m0(scale))
    assert torch.equal(read, formats.fake_fp4(read)), "values that fit are kept"
    steps = formats.decode_e8m0(scale).repeat_interleave(32, 1)
    assert bool(((read - weight).abs() <= steps).all()), "half the largest step of the grid"


def test_fp4_packs_the_even_column_low() -> None:
    weight = torch.zeros(1, 32)
    weight[0, 0], weight[0, 1] = 6.0, -1.0
    packed, scale = formats.quantize_fp4(weight)
    assert int(scale[0, 0]) == 127
    assert int(packed[0, 0]) & 0xFF == 0x7 | 0xA << 4


def test_fp4_needs_whole_groups() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        formats.quantize_fp4(torch.zeros(2, 40))
