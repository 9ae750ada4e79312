"""Number formats of the official checkpoints: E4M3, E8M0 and E2M1, and their block scales.

Every scale is a power of two, so dequantisation is exact in float32. Source: DeepSeek-V4 report, section on
quantisation; OCP microscaling formats.
"""

from __future__ import annotations

import torch
from torch import Tensor

FP8_MAX = 448.0
FP4_MAX = 6.0
FP8_BLOCK = 128
FP4_BLOCK = 32
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def decode_e4m3(codes: Tensor) -> Tensor:
    """Decode uint8 (or int8) E4M3 codes to float32 of the same shape."""
    return codes.view(torch.float8_e4m3fn).to(torch.float32)


def encode_e4m3(values: Tensor) -> Tensor:
    """Round float32 to E4M3, nearest even, saturating at 448; uint8 codes of the same shape."""
    return values.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).view(torch.uint8)


def decode_e8m0(codes: Tensor) -> Tensor:
    """Decode uint8 E8M0 codes b to float32 2**(b - 127); 255 is NaN."""
    exponents = torch.arange(256, dtype=torch.float64) - 127.0
    table = torch.exp2(exponents).to(torch.float32)
    table[255] = float("nan")
    return table.to(codes.device)[codes.view(torch.uint8).to(torch.int64)]


def encode_e8m0(scales: Tensor) -> Tensor | None:
    """Return the codes uint8 of float32 scales, or None if one is no power of two from 2**-126 to 2**127."""
    bits = scales.to(torch.float32).contiguous().view(torch.int32)
    codes = bits >> 23
    exact = ((bits & 0x7FFFFF) == 0) & (codes > 0) & (codes < 255)
    return codes.to(torch.uint8) if bool(exact.all()) else None


def decode_e2m1(codes: Tensor) -> Tensor:
    """Decode codes 0..15 (bit 3 is the sign) to float32."""
    table = torch.tensor(_E2M1 + tuple(-value for value in _E2M1), dtype=torch.float32, device=codes.device)
    return table[codes.to(torch.int64)]


def round_e2m1(values: Tensor) -> Tensor:
    """Round float32 to the nearest E2M1 value (ties to the even code), saturating at 6."""
    magnitude = values.abs().clamp(max=FP4_MAX)
    step = torch.where(magnitude < 2.0, 0.5, torch.where(magnitude < 4.0, 1.0, 2.0))
    return torch.copysign(torch.round(magnitude / step) * step, values)


def encode_e2m1(values: Tensor) -> Tensor:
    """Round float32 to E2M1 and return uint8 codes 0..15."""
    rounded = round_e2m1(values)
    table = torch.tensor(_E2M1, dtype=torch.float32, device=values.device)
    code = torch.bucketize(rounded.abs(), table).to(torch.uint8)
    return code | (torch.signbit(rounded).to(torch.uint8) << 3)


def power_of_two_ceiling(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2**ceil(log2(v)) of positive normal float32 `v`, and its E8M0 code, from the bits of `v`."""
    bits = values.contiguous().view(torch.int32)
    code = ((bits >> 23) & 0xFF) + (bits & 0x7FFFFF).ne(0).to(torch.int32)
    return (code << 23).view(torch.float32), code.to(torch.uint8)


def fp8_scale(amax: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and E8M0 code of a block whose largest magnitude is `amax` (at least 1e-4 is assumed)."""
    return power_of_two_ceiling(amax.clamp(min=1e-4) * torch.tensor(1.0 / FP8_MAX, dtype=torch.float32))


def fp4_scale(amax: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and E8M0 code of a 32-block whose largest magnitude is `amax`."""
    floor = FP4_MAX * 2.0**-126
    return power_of_two_ceiling(amax.clamp(min=floor) * torch.tensor(1.0 / FP4_MAX, dtype=torch.float32))


def quantize_fp8_block(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a float32 weight [o, i] in blocks of 128 x 128.

    Returns:
        E4M3 codes uint8 [o, i] and E8M0 codes uint8 [ceil(o/128), ceil(i/128)].
    """
    rows, columns = weight.shape
    blocks = _blocks(weight.to(torch.float32))
    scale, code = fp8_scale(blocks.abs().amax((1, 3)))
    quantized = encode_e4m3(blocks / scale[:, None, :, None])
    padded = quantized.reshape(blocks.shape[0] * FP8_BLOCK, blocks.shape[2] * FP8_BLOCK)
    return padded[:rows, :columns].contiguous(), code


def dequantize_fp8_block(codes: Tensor, scale: Tensor) -> Tensor:
    """Return float32 [o, i] of E4M3 `codes` [o, i] and float32 `scale` [ceil(o/128), ceil(i/128)]."""
    rows, columns = codes.shape
    spread = scale.repeat_interleave(FP8_BLOCK, 0)[:rows].repeat_interleave(FP8_BLOCK, 1)[:, :columns]
    return decode_e4m3(codes) * spread


def quantize_fp4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a float32 weight [o, i], i a multiple of 32, to packed E2M1, scaled per row and 32 columns.

    Returns:
        Packed int8 [o, i/2] (low nibble: the even column) and E8M0 codes uint8 [o, i/32].
    """
    rows, columns = weight.shape
    if columns % FP4_BLOCK:
        raise ValueError(f"FP4 needs a multiple of {FP4_BLOCK} input columns, found {columns}.")
    groups = weight.to(torch.float32).reshape(rows, columns // FP4_BLOCK, FP4_BLOCK)
    scale, code = fp4_scale(groups.abs().amax(-1))
    codes = encode_e2m1(groups / scale[..., None]).reshape(rows, columns)
    return (codes[:, 0::2] | (codes[:, 1::2] << 4)).view(torch.int8), code


def dequantize_fp4(packed: Tensor, scale: Tensor) -> Tensor:
    """Return float32 [o, i] of `packed` [o, i/2] with decoded float32 `scale` [o, i/32]."""
    rows, half = packed.shape
    raw = packed.view(torch.uint8)
    codes = torch.stack((raw & 0xF, raw >> 4), dim=-1).reshape(rows, half * 2)
    return decode_e2m1(codes) * scale.repeat_interleave(FP4_BLOCK, 1)


def fake_fp8_block(weight: Tensor) -> Tensor:
    """Return `weight` [o, i] as it reads back from FP8 storage, float32, for quantisation-aware training."""
    codes, scale = quantize_fp8_block(weight)
    return dequantize_fp8_block(codes, decode_e8m0(scale))


def fake_fp4(weight: Tensor) -> Tensor:
    """Return `weight` [o, i] as it reads back from FP4 storage, float32, for quantisation-aware training."""
    packed, scale = quantize_fp4(weight)
    return dequantize_fp4(packed, decode_e8m0(scale))


def _blocks(weight: Tensor) -> Tensor:
    """View [o, i] as [ceil(o/128), 128, ceil(i/128), 128], padded with zeros."""
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % FP8_BLOCK, 0, -rows % FP8_BLOCK))
    return padded.reshape(padded.shape[0] // FP8_BLOCK, FP8_BLOCK, padded.shape[1] // FP8_BLOCK, FP8_BLOCK)
