"""Routed experts, FP4 weights and FP8 activations, in two forms with the same bits.

Official numerics: products as in `fp4`; w1 and w3 rounded to bfloat16; SwiGLU and routing weight in float32,
rounded to bfloat16, quantised per 128 channels; outputs of w2 rounded to bfloat16 and added in float32 in
ascending order of expert id, the shared expert last.

Few tokens: every pair of token and expert has a program per tile of rows; the first pair of an expert works
for all tokens that chose it, the others leave; the last program of a tile of rows adds the experts up. Many:
pairs are sorted by expert and cut into tiles. A column of the product is computed alike in both.

Needs the weights of the chosen experts once. Flash, 13.4 MB each: one token 80 MB, 18.7 us at 4.3 TB/s (12.4
and 6.2 us for the two products); the 44 experts of 8 tokens 590 MB, 137 us; 136 of 32 tokens 1.8 GB, 423 us.
Pro, 35.1 MB each: one token 211 MB, 49 us. Operations 36 D W per token: Flash 302 MFLOP, 4096 tokens 783 us
at 1.58 PFLOP/s.

measured: not yet
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.experts import ExpertTable, unpack_expert
from dsv4agent.engine.kernels.fp4 import expert_product
from dsv4agent.engine.kernels.launch import ceil_div, counters, next_power_of_two, on_device
from dsv4agent.engine.kernels.numerics import round_bf16, swiglu
from dsv4agent.engine.kernels.quantize import (
    QuantizedRows,
    quantize_rows,
    quantize_rows_reference,
    swiglu_reference,
)
from dsv4agent.engine.kernels.tuning import Tile


@dataclass(frozen=True)
class _Schedule:
    """Which programs work on which pairs of token and expert.

    Attributes:
        experts: int32; grouped: expert of each tile, or -1. Otherwise the expert of each pair.
        first: int32, start of each tile in `order`; unused when not grouped.
        last: int32, end of each tile.
        order: int32, pairs sorted by expert.
        programs: Tiles or pairs.
        tokens: Columns of a tile.
        grouped: Which form.
        quantize_first: Whether a launch between the products quantises, or every program that reads.
        tile: Warps, stages and registers.
    """

    experts: Tensor
    first: Tensor
    last: Tensor
    order: Tensor
    programs: int
    tokens: int
    grouped: bool
    quantize_first: bool
    tile: Tile


def routed_experts(
    x: QuantizedRows, ids: Tensor, weights: Tensor, experts: ExpertTable, shared: Tensor, *, limit: float
) -> Tensor:
    """Return the sum of the chosen experts and of the shared one, bfloat16 [m, D].

    Args:
        x: Quantised input [m, D].
        ids: int32 [m, k], ascending in each row, distinct.
        weights: Routing weights float32 [m, k].
        experts: The layer's experts.
        shared: Output of the shared expert, bfloat16 [m, D].
        limit: Of the SwiGLU clamps.
    """
    m, chosen = ids.shape
    out = torch.empty(m, experts.shape.hidden, dtype=torch.bfloat16, device=shared.device)
    outputs = torch.empty(m, chosen, experts.shape.hidden, dtype=torch.bfloat16, device=shared.device)
    if m == 0:
        return out
    assert shared.is_contiguous()
    schedule = _schedule(ids, experts)
    _compute(x, weights, experts, schedule, outputs, (shared, out), limit)
    if schedule.grouped:
        channels, plan = experts.shape.hidden, tuning.ROWS
        with on_device(shared):
            _combine_kernel[(m, ceil_div(channels, plan.columns))](
                outputs, shared, out, channels, CHOSEN=chosen, BLOCK=plan.columns, num_warps=plan.warps
            )
    return out


def expert_outputs(
    x: QuantizedRows, ids: Tensor, weights: Tensor, experts: ExpertTable, *, limit: float
) -> Tensor:
    """Return the output of every chosen expert, bfloat16 [m, k, D]. Arguments as for `routed_experts`."""
    m, chosen = ids.shape
    outputs = torch.empty(m, chosen, experts.shape.hidden, dtype=torch.bfloat16, device=x.codes.device)
    if m:
        _compute(x, weights, experts, _schedule(ids, experts), outputs, None, limit)
    return outputs


def _compute(
    x: QuantizedRows,
    weights: Tensor,
    experts: ExpertTable,
    schedule: _Schedule,
    outputs: Tensor,
    combine: tuple[Tensor, Tensor] | None,
    limit: float,
) -> None:
    """Fill `outputs`; for few tokens also the second of `combine`, the sum with the first, if given."""
    m, chosen, _ = outputs.shape
    shape = experts.shape
    active = torch.empty(m * chosen, shape.width, dtype=torch.bfloat16, device=outputs.device)
    common = (schedule.experts, schedule.first, schedule.last, schedule.order, experts.addresses)
    form = {
        "CHOSEN": chosen,
        "WIDTH": shape.width,
        "PAIRS": 1 if schedule.grouped else next_power_of_two(m * chosen),
        "TOKENS": schedule.tokens,
        "GROUPED": schedule.grouped,
        "num_warps": schedule.tile.warps,
        "num_stages": schedule.tile.stages,
        "maxnreg": schedule.tile.registers,
    }
    fused = combine is not None and not schedule.grouped
    shared, out = combine or (outputs, outputs)
    with on_device(outputs):
        _in_kernel[(shape.in_tiles, schedule.programs)](
            *common, x.codes, x.scales, weights.contiguous(), active, m * chosen, limit,
            STEPS=shape.in_steps, **form,
        )  # fmt: skip
        quantized = quantize_rows(active) if schedule.quantize_first else None
        _out_kernel[(shape.out_tiles, schedule.programs)](
            *common,
            active if quantized is None else quantized.codes,
            active if quantized is None else quantized.scales,
            outputs,
            shared,
            out,
            counters(outputs.device, shape.out_tiles),
            m * chosen,
            OFFSET=shape.out_offset,
            STEPS=shape.out_steps,
            HIDDEN=shape.hidden,
            QUANTIZED=quantized is not None,
            FUSED=fused,
            **form,
        )


def _schedule(ids: Tensor, experts: ExpertTable) -> _Schedule:
    plan = tuning.expert_plan(experts.shape.hidden, experts.shape.width)
    m, chosen = ids.shape
    flat = ids.reshape(-1).to(torch.int32)
    if m <= plan.decode_tokens:
        tokens = max(plan.decode.tokens, next_power_of_two(m))
        return _Schedule(
            experts=flat,
            first=flat,
            last=flat,
            order=flat,
            programs=m * chosen,
            tokens=tokens,
            grouped=False,
            quantize_first=plan.quantize_first,
            tile=plan.decode,
        )
    tokens = plan.grouped.tokens
    ordered, order = torch.sort(flat, stable=True)
    # No number comes back to the host: there are as many tiles as there can be, and some stay empty.
    programs = m * chosen // tokens + min(len(experts), m * chosen)
    numbers = torch.arange(len(experts) + 1, dtype=torch.int32, device=ids.device)
    bounds = torch.searchsorted(ordered, numbers)
    tiles = ((bounds.diff() + tokens - 1) // tokens).cumsum(0)
    tile = torch.arange(programs, device=ids.device)
    expert = torch.searchsorted(tiles, tile, right=True)
    owner = expert.clamp(max=len(experts) - 1)
    before = torch.nn.functional.pad(tiles, (1, 0))[owner]
    first = bounds[owner] + (tile - before) * tokens
    return _Schedule(
        experts=torch.where(expert < len(experts), expert, -1).to(torch.int32),
        first=first.to(torch.int32),
        last=bounds[owner + 1].to(torch.int32),
        order=order.to(torch.int32),
        programs=programs,
        tokens=tokens,
        grouped=True,
        quantize_first=True,
        tile=plan.grouped,
    )


@triton.jit(do_not_specialize=["pairs"])
def _in_kernel(
    experts,
    first,
    last,
    order,
    addresses,
    x,
    x_scales,
    weights,
    active,
    pairs,
    limit,
    STEPS: tl.constexpr,
    CHOSEN: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPED: tl.constexpr,
):
    """First product of one expert for some tokens: 64 rows of w1 and w3, then SwiGLU and routing weight."""
    tile = tl.program_id(0)
    expert = tl.load(experts + tl.program_id(1))
    pair, valid = _members(experts, first, last, order, expert, pairs, PAIRS, TOKENS, GROUPED)
    if expert < 0 or _idle(valid):
        return
    token = (pair // CHOSEN).to(tl.int64)
    base = _address(addresses, expert)
    both = expert_product(base, tile, x, x_scales, token, valid, STEPS, STEPS * 128, TOKENS, True)
    gate, up = tl.split(tl.permute(tl.reshape(both, [2, 64, TOKENS]), [1, 2, 0]))
    weight = tl.load(weights + pair, mask=valid, other=0.0)
    value = swiglu(gate, up, weight[None, :], limit)
    row = tile * 64 + tl.arange(0, 64)
    target = active + pair.to(tl.int64)[None, :] * WIDTH + row[:, None]
    tl.store(target, value.to(tl.bfloat16), mask=(row < WIDTH)[:, None] & valid[None, :])


@triton.jit(do_not_specialize=["pairs"])
def _out_kernel(
    experts,
    first,
    last,
    order,
    addresses,
    active,
    active_scales,
    outputs,
    shared,
    out,
    count,
    pairs,
    OFFSET: tl.constexpr,
    STEPS: tl.constexpr,
    HIDDEN: tl.constexpr,
    QUANTIZED: tl.constexpr,
    FUSED: tl.constexpr,
    CHOSEN: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPED: tl.constexpr,
):
    """Second product of one expert for some tokens: 128 rows of w2; the last program adds the experts up."""
    tile = tl.program_id(0)
    expert = tl.load(experts + tl.program_id(1))
    pair, valid = _members(experts, first, last, order, expert, pairs, PAIRS, TOKENS, GROUPED)
    row = tile * 128 + tl.arange(0, 128)
    if expert >= 0 and not _idle(valid):
        base = _address(addresses, expert) + OFFSET
        columns: tl.constexpr = STEPS * 128 if QUANTIZED else WIDTH
        value = expert_product(
            base, tile, active, active_scales, pair.to(tl.int64), valid, STEPS, columns, TOKENS, QUANTIZED
        )
        target = outputs + pair.to(tl.int64)[None, :] * HIDDEN + row[:, None]
        tl.store(target, round_bf16(value).to(tl.bfloat16), mask=(row < HIDDEN)[:, None] & valid[None, :])
    if FUSED:
        # All threads' results are stored before one of them announces it.
        tl.debug_barrier()
        if tl.atomic_add(count + tile, 1) == pairs - 1:
            tl.debug_barrier()
            token = tl.arange(0, TOKENS)
            inside = (token < pairs // CHOSEN)[:, None] & (row < HIDDEN)[None, :]
            place = token[:, None] * HIDDEN + row[None, :]
            total = tl.zeros([TOKENS, 128], tl.float32)
            for slot in tl.static_range(CHOSEN):
                source = outputs + (token[:, None] * CHOSEN + slot) * HIDDEN + row[None, :]
                total += tl.load(source, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
            total += tl.load(shared + place, mask=inside, other=0.0).to(tl.float32)
            tl.store(out + place, round_bf16(total).to(tl.bfloat16), mask=inside)
            tl.store(count + tile, 0)


@triton.jit
def _combine_kernel(outputs, shared, out, channels, CHOSEN: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < channels
    total = tl.zeros([BLOCK], tl.float32)
    for slot in tl.static_range(CHOSEN):
        total += tl.load(outputs + (row * CHOSEN + slot) * channels + column, mask=inside, other=0.0).to(
            tl.float32
        )
    total += tl.load(shared + row * channels + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * channels + column, round_bf16(total).to(tl.bfloat16), mask=inside)


@triton.jit
def _idle(valid):
    """Return whether a program has no pair to work on."""
    return tl.sum(valid.to(tl.int32), axis=0) == 0


@triton.jit
def _address(addresses, expert):
    return tl.multiple_of(tl.load(addresses + expert).to(tl.pointer_type(tl.uint8)), 16)


@triton.jit
def _members(
    experts,
    first,
    last,
    order,
    expert,
    pairs,
    PAIRS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPED: tl.constexpr,
):
    """Return the pairs of this program, int32 [TOKENS], and which of the slots are in use."""
    slot = tl.arange(0, TOKENS)
    program = tl.program_id(1)
    if GROUPED:
        place = tl.load(first + program) + slot
        valid = place < tl.load(last + program)
        return tl.load(order + place, mask=valid, other=0), valid
    else:
        pair = tl.arange(0, PAIRS)
        chosen = tl.load(experts + pair, mask=pair < pairs, other=-1)
        same = chosen == expert
        # The first pair of an expert takes all of them; the others find none.
        leader = tl.min(tl.where(same, pair, PAIRS), axis=0)
        count = tl.where(leader == program, tl.sum(same.to(tl.int32), axis=0), 0)
        rank = tl.cumsum(same.to(tl.int32), 0) - 1
        here = same[:, None] & (rank[:, None] == slot[None, :])
        members = tl.sum(tl.where(here, pair[:, None], 0), axis=0)
        return members, slot < count


def routed_experts_reference(
    x: QuantizedRows, ids: Tensor, weights: Tensor, experts: list[Tensor], table: ExpertTable, shared: Tensor,
    *, limit: float,
) -> Tensor:  # fmt: skip
    """Do as `routed_experts` in torch, one pair at a time; `experts` are the packed tensors of `table`."""
    rows = x.dequantize()[:, : table.shape.hidden]
    out = torch.zeros(rows.shape[0], table.shape.hidden, device=rows.device)
    for expert in sorted(set(ids.flatten().tolist())):
        w1, w2, w3 = unpack_expert(experts[expert].to(rows.device), table.shape)
        token, slot = (ids == expert).nonzero(as_tuple=True)
        hidden = rows[token] @ torch.cat((w1, w3)).t()
        active = swiglu_reference(hidden, weights[token, slot], limit)
        quantized = quantize_rows_reference(active).dequantize()[:, : table.shape.width]
        out.index_add_(0, token, (quantized @ w2.t()).to(torch.bfloat16).float())
    return (out + shared.float()).to(torch.bfloat16)
