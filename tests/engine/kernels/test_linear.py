from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels import linear as kernels
from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.linear import PackedLinear, linear, linear_reference, pack_linear, unpack_linear
from dsv4agent.engine.kernels.quantize import QuantizedRows, quantize_rows_reference
from dsv4agent.engine.kernels.tuning import LinearPlan, Tile
from dsv4agent.engine.weights.formats import decode_e8m0, dequantize_fp8_block, quantize_fp8_block
from tests.engine.kernels.measures import relative_error

KINDS = ("fp8", "grouped", "bf16")


@pytest.fixture(autouse=True)
def small_wide_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wide form from 40 rows on, so that the interpreter sees both at small sizes."""
    rule = tuning.linear_plan

    def plan(n: int, k: int, size: int) -> LinearPlan:
        wide = Tile(rows=128, tokens=32, warps=4, stages=2)
        return replace(rule(n, k, size), wide=wide, skinny_tokens=39)

    monkeypatch.setattr(tuning, "linear_plan", plan)


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, device=generator.device)


def operands(
    generator: torch.Generator, kind: str, m: int, n: int, k: int
) -> tuple[QuantizedRows | Tensor, PackedLinear]:
    groups = 2 if kind == "grouped" else 1
    x = random(generator, m, groups * k) * 2.0 ** random(generator, m, 1).round()
    weight = random(generator, n, k)
    if kind == "bf16":
        return x.to(torch.bfloat16), pack_linear(weight.to(torch.bfloat16))
    packed = pack_linear(*quantize_fp8_block(weight), groups=groups, paired=kind == "grouped")
    return (x.to(torch.bfloat16) if kind == "grouped" else quantize_rows_reference(x)), packed


def rows_of(x: QuantizedRows | Tensor, start: int, stop: int) -> QuantizedRows | Tensor:
    if isinstance(x, QuantizedRows):
        return QuantizedRows(x.codes[start:stop], x.scales[start:stop])
    return x[start:stop]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 256, 128), (3, 256, 1024), (5, 256, 640), (41, 256, 1024)])
def test_products(generator: torch.Generator, kind: str, m: int, n: int, k: int) -> None:
    x, w = operands(generator, kind, m, n, k)
    expected = linear_reference(x, w, dtype=torch.float32)
    assert relative_error(linear(x, w, dtype=torch.float32), expected) < 1e-3
    assert linear(x, w).dtype is torch.bfloat16


@pytest.mark.parametrize(("kind", "n", "k"), [("bf16", 72, 200), ("bf16", 4, 96), ("fp8", 200, 130)])
def test_sizes_that_fill_no_tile(generator: torch.Generator, kind: str, n: int, k: int) -> None:
    x, w = operands(generator, kind, 2, n, k)
    out = linear(x, w, dtype=torch.float32)
    assert out.shape == (2, n)
    assert relative_error(out, linear_reference(x, w, dtype=torch.float32)) < 1e-3


def order_sensitive(
    generator: torch.Generator, kind: str, m: int, n: int, k: int
) -> tuple[QuantizedRows | Tensor, PackedLinear]:
    """Operands whose sums over 128 are exact in any order, but not the sum of those sums.

    The interpreter leaves a product to a library that orders its additions by the shape of the tile, so what
    can be seen there is the order of the steps and parts; `trial` looks at all of it, on the card.
    """
    groups = 2 if kind == "grouped" else 1

    def integers(*shape: int) -> Tensor:
        return torch.randint(-7, 8, shape, generator=generator, device=generator.device).float()

    exponents = torch.randint(-9, 10, (1, k // 128), generator=generator, device=generator.device)
    x = integers(m, groups * k)
    weight = integers(n, k) * (2.0**exponents).repeat_interleave(128, 1)
    if kind == "bf16":
        return x.to(torch.bfloat16), pack_linear(weight.to(torch.bfloat16))
    packed = pack_linear(*quantize_fp8_block(weight), groups=groups, paired=kind == "grouped")
    return (x.to(torch.bfloat16) if kind == "grouped" else quantize_rows_reference(x)), packed


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_batch(generator: torch.Generator, kind: str) -> None:
    """One row, a skinny batch, a wide one, and chunks of it."""
    m, n, k = 43, 256, 1024
    x, w = order_sensitive(generator, kind, m, n, k)
    assert tuning.linear_plan(n, k, 1).splits > 1
    whole = linear(x, w, dtype=torch.float32)
    for start, stop in [(0, 1), (42, 43), (5, 9), (7, 24), (3, 42), (2, 43)]:
        assert torch.equal(linear(rows_of(x, start, stop), w, dtype=torch.float32), whole[start:stop])
    assert torch.equal(linear(x, w), whole.to(torch.bfloat16))


@pytest.mark.parametrize("paired", [False, True])
def test_packing_keeps_every_value(generator: torch.Generator, paired: bool) -> None:
    codes, scale = quantize_fp8_block(random(generator, 256, 320))
    packed = pack_linear(codes, scale, paired=paired)
    assert torch.equal(unpack_linear(packed), dequantize_fp8_block(codes, decode_e8m0(scale)))


def test_every_code_with_every_scale(device: torch.device) -> None:
    """Row i of the input reaches column i alone, so what comes out are the weights."""
    codes = torch.arange(256, dtype=torch.uint8, device=device)
    codes = torch.where((codes & 0x7F) == 0x7F, 0, codes).expand(128, 256).contiguous()
    for exponent in (-53, -20, 0, 20, 71):
        scale = torch.full((1, 2), 127 + exponent, dtype=torch.uint8, device=device)
        packed = pack_linear(codes.view(torch.float8_e4m3fn), scale, paired=True)
        rows = torch.eye(256, dtype=torch.bfloat16, device=device)
        assert torch.equal(linear(rows, packed, dtype=torch.float32), unpack_linear(packed).t())


def test_counters_are_left_at_zero(generator: torch.Generator) -> None:
    x, w = operands(generator, "fp8", 2, 256, 1024)
    linear(x, w)
    assert not bool(kernels.counters(w.tiles.device, 1).any())


def test_the_number_of_splits_is_a_function_of_the_weights() -> None:
    assert tuning.linear_splits(32768, 1024) == 1
    assert tuning.linear_splits(4096, 8192) == 8
    assert tuning.linear_splits(256, 4096) == 8
    assert tuning.linear_splits(64, 128) == 1


def test_zeros_and_no_rows(device: torch.device) -> None:
    codes, scale = quantize_fp8_block(torch.zeros(128, 256))
    w = pack_linear(codes.to(device), scale.to(device))
    x = quantize_rows_reference(torch.zeros(2, 256, device=device))
    assert torch.equal(linear(x, w), torch.zeros(2, 128, dtype=torch.bfloat16, device=device))
    assert linear(rows_of(x, 0, 0), w).shape == (0, 128)


def test_saturated_operands_stay_finite(device: torch.device) -> None:
    weight = torch.full((64, 512), 448.0, device=device)
    x = torch.full((1, 512), -448.0, device=device)
    out = linear(quantize_rows_reference(x), pack_linear(*quantize_fp8_block(weight)), dtype=torch.float32)
    assert torch.equal(out, torch.full((1, 64), -(448.0**2) * 512, device=device))
