"""Where values are rounded: nowhere (fp32), or as the official inference code rounds them.

Both paths keep float32 storage; the official path's values are representable in the type named there. A
product of dequantised operands with float32 accumulation equals the scaled low-precision product, so one set
of float32 weights serves both. Source: DeepSeek-V4 report, quantisation-aware training; official inference
code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsv4agent.engine.ops.quantizers import CACHE_BLOCK, fake_fp4_rows, fake_fp8_rows, round_bf16


class Precision:
    """Full float32: every hook returns its argument."""

    name = "fp32"
    official = False

    def round(self, x: Tensor) -> Tensor:
        """Round to the type of activations."""
        return x

    def activation(self, x: Tensor) -> Tensor:
        """Quantise the input of a quantised matrix product, per row and 128 channels."""
        return x

    def cache_row(self, row: Tensor, rope_dim: int) -> Tensor:
        """Round a key-value row [..., d] to what the cache stores.

        The last `rope_dim` channels keep their type.
        """
        del rope_dim
        return row

    def index_row(self, row: Tensor) -> Tensor:
        """Round an indexer query or key [..., d] to what the cache stores."""
        return row


class OfficialPrecision(Precision):
    """The rounding the weights were trained for.

    Bfloat16 activations, FP8 products and cache, FP4 indexer.
    """

    name = "official"
    official = True

    def round(self, x: Tensor) -> Tensor:
        """Round to bfloat16."""
        return round_bf16(x)

    def activation(self, x: Tensor) -> Tensor:
        """Quantise to FP8 per 128 channels."""
        return fake_fp8_rows(x)

    def cache_row(self, row: Tensor, rope_dim: int) -> Tensor:
        """Quantise the channels without rotation to FP8 per 64; the rotated ones stay bfloat16."""
        split = row.shape[-1] - rope_dim
        if split == 0:
            return row
        plain = round_bf16(fake_fp8_rows(row[..., :split], CACHE_BLOCK))
        return torch.cat((plain, row[..., split:]), dim=-1)

    def index_row(self, row: Tensor) -> Tensor:
        """Quantise to FP4 per 32 channels."""
        return round_bf16(fake_fp4_rows(row))
