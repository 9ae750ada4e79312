"""Compares the primitives with recorded inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dsv4agent.engine.config import Yarn
from dsv4agent.engine.model.rope import RopeTable, frequencies
from dsv4agent.engine.ops.attention import SINK_COLUMNS, attend
from dsv4agent.engine.ops.hadamard import hadamard_matrix
from dsv4agent.engine.ops.hyper_connections import Mix, mix_weights
from dsv4agent.engine.ops.lists import doubles, integers
from dsv4agent.engine.ops.quantizers import fake_fp4_rows, fake_fp8_rows, quantize_fp8_rows
from dsv4agent.engine.ops.rotary import rotate_
from dsv4agent.engine.ops.routing import expert_scores, route_by_score
from dsv4agent.engine.ops.tiling import Tiling
from dsv4agent.engine.weights import formats
from tests.golden_model.report import Result, bf16_ulps, largest, load, mismatches

CLOSE = 2e-6


def check_units(file: Path) -> Iterator[Result]:
    """Compare every key of units.safetensors."""
    u = load(file)
    yield from _tables(u)
    yield from _quantizers(u)
    yield from _products(u)
    yield from _connections(u)
    yield from _rope(u)
    yield from _gate(u)
    yield _attention(u)


def _tables(u: dict[str, Tensor]) -> Iterator[Result]:
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    for key, actual in (
        ("table.e2m1", formats.decode_e2m1(torch.arange(16))),
        ("table.e4m3", formats.decode_e4m3(codes)),
        ("table.e8m0", formats.decode_e8m0(codes)),
    ):
        yield mismatches(f"{key} NaN", actual.isnan(), u[key].isnan())
        yield mismatches(key, actual.nan_to_num(7.0), u[key].nan_to_num(7.0))


def _quantizers(u: dict[str, Tensor]) -> Iterator[Result]:
    codes, scale = quantize_fp8_rows(u["act8.x"].float())
    yield mismatches("act8.q", codes, u["act8.q"])
    yield mismatches("act8.s", scale, u["act8.s"])
    yield mismatches("kvfake.y", fake_fp8_rows(u["kvfake.x"].float(), 64), u["kvfake.y"].float())
    x = u["act4.x"].float()
    yield mismatches("act4.y", fake_fp4_rows(x), u["act4.y"].float())
    groups = x.reshape(x.shape[0], -1, formats.FP4_BLOCK)
    yield mismatches("act4.s", formats.fp4_scale(groups.abs().amax(-1))[1], u["act4.s"])
    yield mismatches("e2m1.round", formats.round_e2m1(u["e2m1.round_in"]), u["e2m1.round_out"])


def _products(u: dict[str, Tensor]) -> Iterator[Result]:
    q, scale = u["act8.q"], formats.decode_e8m0(u["act8.s"])
    x = formats.decode_e4m3(q) * scale.repeat_interleave(128, 1)[:, : q.shape[1]]
    w8 = formats.dequantize_fp8_block(u["gemm8.w"], formats.decode_e8m0(u["gemm8.ws"]))
    yield bf16_ulps("gemm8.y", x @ w8.t(), u["gemm8.y"])
    w4 = formats.dequantize_fp4(u["gemm4.w"], formats.decode_e8m0(u["gemm4.ws"]))
    yield mismatches("gemm4.w_dequant", w4, u["gemm4.w_dequant"])
    yield bf16_ulps("gemm4.y", x @ w4.t(), u["gemm4.y"])
    hada = u["hada.x"].float() @ hadamard_matrix(u["hada.x"].shape[-1])
    yield bf16_ulps("hada.y", hada, u["hada.y"])


def _connections(u: dict[str, Tensor]) -> Iterator[Result]:
    mixes = u["hc.mixes"]
    mix = Mix.build(torch.eye(24), u["hc.scale"], u["hc.base"], iterations=20, eps=1e-6, norm_eps=0.0)
    pre, write = mix_weights(mixes, torch.ones(mixes.shape[0]), mix, 1)
    yield largest("hc.pre", pre, u["hc.pre"], CLOSE)
    yield largest("hc.post", write[:, :, 4], u["hc.post"], CLOSE)
    yield largest("hc.comb", write[:, :, :4].transpose(1, 2), u["hc.comb"], CLOSE)


def _rope(u: dict[str, Tensor]) -> Iterator[Result]:
    yarn = Yarn(factor=16, original_positions=65536, beta_fast=32, beta_slow=1)
    positions = integers(u["rope.pos"])
    for name, f in (("main", frequencies(64, 10000.0, None)), ("compress", frequencies(64, 160000.0, yarn))):
        yield mismatches(f"rope.inv_freq_{name}", f, u[f"rope.inv_freq_{name}"])
        table = RopeTable(f, torch.device("cpu"))
        rotations = torch.cat([table.rows(position, 1) for position in positions])
        yield largest(f"rope.cos_{name}", rotations.real, u[f"rope.cos_{name}"], CLOSE)
        yield largest(f"rope.sin_{name}", rotations.imag, u[f"rope.sin_{name}"], CLOSE)
        if name == "compress":
            y = rotate_(u["rope.x"].clone(), rotations[:, None])
            yield largest("rope.y_compress", y, u["rope.y_compress"], 1e-5)
            inverse = rotate_(u["rope.x"].clone(), rotations[:, None].conj())
            yield largest("rope.y_compress_inverse", inverse, u["rope.y_compress_inverse"], 1e-5)


def _gate(u: dict[str, Tensor]) -> Iterator[Result]:
    scores = expert_scores(u["gate.logits"])
    yield largest("gate.scores", torch.tensor(scores), u["gate.scores"], CLOSE)
    expected, order = u["gate.idx"].to(torch.int64).sort(-1)
    ids, chosen = route_by_score(scores, doubles(u["gate.bias"]), expected.shape[1], 2.5)
    yield mismatches("gate.idx", torch.tensor(ids), expected)
    weights = torch.tensor(chosen)
    yield largest("gate.weights_scale2p5", weights, u["gate.weights_scale2p5"].gather(1, order), CLOSE)


def _attention(u: dict[str, Tensor]) -> Result:
    q, rows, chosen = u["attn.q"], u["attn.kv"], u["attn.idx"]
    bias = torch.full((q.shape[0], rows.shape[0]), float("-inf"))
    for query in range(q.shape[0]):
        bias[query, [index for index in integers(chosen[query]) if index >= 0]] = 0.0
    sink = torch.full((q.shape[1], SINK_COLUMNS), float("-inf"))
    sink[:, 0] = u["attn.sink"]
    out = attend(q * 64**-0.5, sink, rows.t().contiguous(), rows, bias, None, Tiling())
    return largest("attn.o", out, u["attn.o"], 1e-5)
