"""Device functions, each called from a small kernel."""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine import kernels
from dsv4agent.engine.kernels import numerics, sums


@triton.jit
def _apply(x, out, FUNCTION: tl.constexpr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out + place, FUNCTION(tl.load(x + place)))


@triton.jit
def _sum(x, out, SIZE: tl.constexpr):
    tl.store(out, sums.sum_all(tl.load(x + tl.arange(0, SIZE)), SIZE))


@triton.jit
def _sum_rows(x, out, ROWS: tl.constexpr, SIZE: tl.constexpr):
    row = tl.arange(0, ROWS)
    values = tl.load(x + row[:, None] * SIZE + tl.arange(0, SIZE)[None, :])
    tl.store(out + row, sums.sum_columns(values, SIZE))


def apply(function: object, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    _apply[(1,)](x, out, FUNCTION=function, SIZE=x.numel())
    return out


def test_log1p_keeps_small_numbers(device: torch.device) -> None:
    x = torch.cat((torch.logspace(-30, 0, 2047, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    found = apply(numerics.log1p, x.float().to(device)).double().cpu()
    expected = torch.log1p(x.float().double())
    assert bool(((found - expected).abs() <= 3e-7 * expected).all())


def test_every_e4m3_number_and_every_tie_between_two(device: torch.device) -> None:
    values = torch.arange(127, dtype=torch.uint8, device=device).view(torch.float8_e4m3fn).float()
    between = (values[1:] + values[:-1]) / 2
    x = torch.cat((values, between, torch.nextafter(between, between + 1), values.new_full((5,), 1e9)))
    x = torch.cat((x, -x))[:512]
    x = torch.nn.functional.pad(x, (0, 1024 - x.numel()))
    expected = x.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    assert torch.equal(apply(numerics.round_e4m3, x), expected)


def test_rows_are_added_in_the_order_of_one(generator: torch.Generator, device: torch.device) -> None:
    x = torch.randn(8, 128, generator=generator, device=device)
    out, one = torch.empty(8, device=device), torch.empty(1, device=device)
    _sum_rows[(1,)](x, out, ROWS=8, SIZE=128)
    for row in range(8):
        _sum[(1,)](x[row], one, SIZE=128)
        assert torch.equal(out[row], one[0])


def test_round_bf16(generator: torch.Generator, device: torch.device) -> None:
    bits = torch.randint(0, 0x7F000000, (4096,), generator=generator, device=device, dtype=torch.int32)
    bits[:1024] = bits[:1024] & ~0xFFFF | 0x8000  # Ties.
    x = bits.view(torch.float32) * torch.where(bits % 3 == 0, -1.0, 1.0)
    assert torch.equal(apply(numerics.round_bf16, x), x.to(torch.bfloat16).float())


def test_sums_add_halves(generator: torch.Generator, device: torch.device) -> None:
    x = torch.randn(64, generator=generator, device=device)
    out = torch.empty(1, device=device)
    _sum[(1,)](x, out, SIZE=64)
    expected = x
    while expected.numel() > 1:
        expected = expected[: expected.numel() // 2] + expected[expected.numel() // 2 :]
    assert torch.equal(out, expected)


@pytest.mark.parametrize("name", ["triton", "dsv4agent.engine.kernels", "dsv4agent.engine.runner"])
def test_the_engine_loads_no_kernels_on_import(name: str) -> None:
    """Only functions may import them: a machine without a card, or without Triton, loads the engine."""
    folder = Path(str(kernels.__file__)).parent
    rooms = {folder, folder.parent / "runner"}
    files = [path for path in folder.parent.rglob("*.py") if rooms.isdisjoint(path.parents)]
    assert files
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith(name) for alias in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(name), path
