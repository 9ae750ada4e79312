"""Activation rounding of the official precision path, on values kept in float32.

Source: DeepSeek-V4 report, quantisation-aware training; official inference code (activation quantisation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsv4agent.engine.weights.formats import (
    FP4_BLOCK,
    FP8_BLOCK,
    decode_e4m3,
    encode_e4m3,
    fp4_scale,
    fp8_scale,
    round_e2m1,
)

CACHE_BLOCK = 64
"""Channels per scale in the stored key-value rows."""


def round_bf16(x: Tensor) -> Tensor:
    """Round float32 to bfloat16 and back."""
    return x.to(torch.bfloat16).to(torch.float32)


def quantize_fp8_rows(x: Tensor, block: int = FP8_BLOCK) -> tuple[Tensor, Tensor]:
    """Quantise float32 [..., c] dynamically, per `block` channels.

    Returns:
        E4M3 codes uint8 [..., c] and E8M0 codes uint8 [..., ceil(c / block)].
    """
    groups = _groups(x, block)
    scale, code = fp8_scale(groups.abs().amax(-1))
    quantized = encode_e4m3(groups / scale[..., None])
    return _ungroup(quantized, x.shape[-1]), code


def fake_fp8_rows(x: Tensor, block: int = FP8_BLOCK) -> Tensor:
    """Return float32 `x` [..., c] as it reads back after `quantize_fp8_rows`."""
    groups = _groups(x, block)
    scale = fp8_scale(groups.abs().amax(-1))[0][..., None]
    return _ungroup(decode_e4m3(encode_e4m3(groups / scale)) * scale, x.shape[-1])


def fake_fp4_rows(x: Tensor) -> Tensor:
    """Return float32 `x` [..., c] as it reads back from E2M1 with a scale per 32 channels."""
    groups = _groups(x, FP4_BLOCK)
    scale = fp4_scale(groups.abs().amax(-1))[0][..., None]
    return _ungroup(round_e2m1(groups / scale) * scale, x.shape[-1])


def _groups(x: Tensor, block: int) -> Tensor:
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % block))
    return padded.reshape(*padded.shape[:-1], padded.shape[-1] // block, block)


def _ungroup(groups: Tensor, channels: int) -> Tensor:
    return groups.flatten(-2)[..., :channels].contiguous()
