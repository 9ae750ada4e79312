from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels import hyper_connections as kernels
from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.mixes import pack_mix
from dsv4agent.engine.kernels.quantize import quantize_rows_reference
from dsv4agent.engine.kernels.tuning import Tile
from dsv4agent.engine.ops.hyper_connections import Mix

EPS = 1e-6


@pytest.fixture(autouse=True)
def forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """All forms at small sizes: up to 2 tokens finished together, up to 4 in parts, then tile by tile."""
    wide = Tile(rows=128, tokens=16, warps=8, stages=1)
    monkeypatch.setattr(
        tuning, "STREAMS", replace(tuning.STREAMS, together_tokens=2, skinny_tokens=4, wide=wide)
    )


def mix_of(generator: torch.Generator, dim: int, columns: int = 24) -> Mix:
    fn = torch.randn(columns, 4 * dim, generator=generator, device=generator.device) / (4 * dim) ** 0.5
    scale, base = np.linspace(0.5, 1.5, columns), np.linspace(-1.0, 1.0, columns)
    return Mix(fn, scale, base, iterations=20, eps=EPS, norm_eps=EPS)


def inputs(generator: torch.Generator, m: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    device = generator.device
    streams = torch.randn(m, 4, dim, generator=generator, device=device).to(torch.bfloat16)
    y = torch.randn(m, dim, generator=generator, device=device).to(torch.bfloat16)
    write = torch.rand(m, 4, 5, generator=generator, device=device)
    norm = (torch.rand(dim, generator=generator, device=device) + 0.5).to(torch.bfloat16)
    return streams, y, write, norm


def close(x: Tensor, expected: Tensor) -> bool:
    """Equal but for a few values that round to the neighbour."""
    differ = (x.float() != expected.float()).float().mean()
    return bool(torch.allclose(x.float(), expected.float(), rtol=2**-7, atol=2**-9)) and float(differ) < 0.02


def test_the_pieces_are_the_mixes(generator: torch.Generator) -> None:
    mix = mix_of(generator, 200)
    pieces = pack_mix(mix).pieces.double()
    whole = pieces.view(2, 4, 3, 24, 128).sum(2).permute(2, 1, 0, 3).flatten(2)[:, :, :200]
    assert torch.equal(whole.flatten(1).float(), mix.fn)


@pytest.mark.parametrize("dim", [256, 200])
@pytest.mark.parametrize("m", [1, 3, 5])
def test_write_then_read(generator: torch.Generator, m: int, dim: int) -> None:
    streams, y, write, norm = inputs(generator, m, dim)
    mix = mix_of(generator, dim)
    state = streams.clone()
    result = kernels.write_then_read(
        state, pack_mix(mix), norm, EPS, y=y, write=write, quantize=True, rounded=True
    )
    expected = kernels.write_then_read_reference(streams, mix, norm, EPS, y=y, write=write)
    assert close(result.x, expected.x)
    assert result.write is not None and expected.write is not None
    assert torch.allclose(result.write, expected.write, rtol=1e-5, atol=1e-6)
    assert torch.equal(state, kernels.write_streams_(streams.clone(), y, write))
    quantized = quantize_rows_reference(result.x)
    assert result.quantized is not None
    assert torch.equal(result.quantized.dequantize(), quantized.dequantize())
    assert result.rounded is not None
    assert torch.equal(result.rounded.float(), quantized.dequantize())


@pytest.mark.parametrize("m", [1, 6])
def test_read_alone_leaves_the_streams(generator: torch.Generator, m: int) -> None:
    streams, _, _, norm = inputs(generator, m, 256)
    mix = mix_of(generator, 256)
    state = streams.clone()
    result = kernels.write_then_read(state, pack_mix(mix), norm, EPS)
    assert torch.equal(state, streams) and result.quantized is None
    assert close(result.x, kernels.write_then_read_reference(streams, mix, norm, EPS).x)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("m", [1, 5])
def test_head_collapse(generator: torch.Generator, m: int, normed: bool) -> None:
    streams, y, write, final = inputs(generator, m, 256)
    norm = final if normed else None
    mix = mix_of(generator, 256, columns=4)
    result = kernels.write_then_read(streams.clone(), pack_mix(mix), norm, EPS, y=y, write=write)
    expected = kernels.write_then_read_reference(streams, mix, norm, EPS, y=y, write=write)
    assert result.write is None
    assert close(result.x, expected.x)


def test_write(generator: torch.Generator) -> None:
    streams, y, write, _ = inputs(generator, 3, 200)
    written = kernels.write_streams_(streams.clone(), y, write)
    expected = write[:, :, :4] @ streams.float() + write[:, :, 4:] * y.float().unsqueeze(1)
    assert close(written, expected.to(torch.bfloat16))


def test_the_matrix_ends_with_the_column_step(generator: torch.Generator) -> None:
    """Sharp matrices, for which rows and columns cannot both sum to one after so few steps."""
    streams, _, _, norm = inputs(generator, 2, 128)
    mix = mix_of(generator, 128)
    sharp = replace(mix, scale=mix.scale * 12.0, base=mix.base * 6.0)
    result = kernels.write_then_read(streams, pack_mix(sharp), norm, EPS)
    expected = kernels.write_then_read_reference(streams, sharp, norm, EPS)
    assert result.write is not None and expected.write is not None
    assert torch.allclose(result.write[:, :, :4].sum(2), torch.ones(2, 4, device=norm.device), atol=1e-4)
    assert torch.allclose(result.write, expected.write, rtol=1e-3, atol=1e-5)


def test_bits_do_not_depend_on_the_batch(generator: torch.Generator) -> None:
    """Finished together, in parts, and tile by tile: the same row."""
    streams, y, write, norm = inputs(generator, 7, 256)
    # Exact in any order over 128 channels, see test_linear: small integers, and weights that keep them.
    streams = torch.randint(-4, 5, streams.shape, generator=generator, device=y.device).to(torch.bfloat16)
    y = torch.randint(-4, 5, y.shape, generator=generator, device=y.device).to(torch.bfloat16)
    write = torch.randint(0, 3, write.shape, generator=generator, device=y.device).float()
    mix = mix_of(generator, 256)
    coarse = replace(mix, fn=(mix.fn * 2**10).round() / 2**10 + (mix.fn * 2**10).round() / 2**21)
    packed = pack_mix(coarse)

    def run(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = slice(start, stop)
        state = streams[rows].clone()
        result = kernels.write_then_read(state, packed, norm, EPS, y=y[rows], write=write[rows])
        assert result.write is not None
        return state, result.x, result.write

    whole = run(0, 7)
    for start, stop in [(0, 1), (6, 7), (2, 4), (1, 5), (1, 7)]:
        for found, expected in zip(run(start, stop), whole, strict=True):
            assert torch.equal(found, expected[start:stop])


def test_zero_streams(device: torch.device) -> None:
    mix = mix_of(torch.Generator(device).manual_seed(1), 128)
    norm = torch.ones(128, device=device)
    streams = torch.zeros(2, 4, 128, dtype=torch.bfloat16, device=device)
    result = kernels.write_then_read(streams, pack_mix(mix), norm, EPS)
    assert not bool(result.x.any())
    assert result.write is not None and bool(result.write.isfinite().all())
    empty = kernels.write_then_read(streams[:0], pack_mix(mix), norm, EPS)
    assert empty.x.shape == (0, 128)
