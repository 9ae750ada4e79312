"""Routed experts, FP4 weights and FP8 activations, in two forms with the same bits.

Official numerics: products as in `fp4`; w1 and w3 rounded to bfloat16; SwiGLU and routing weight in float32,
rounded to bfloat16, quantised per 128 channels; outputs of w2 rounded to bfloat16 and added in float32 in
ascending order of expert id, the shared expert last.

Few tokens: every pair of token and expert has a program per tile of rows; the first pair of an expert works
for as many as fit into a tile, the others leave; the last program of a tile of rows adds the experts up.
Many: pairs are sorted by expert and cut into tiles. A column of the product is computed alike in both.

One token has few programs to hide anything behind: 384 of 4 warps in each product. A multiprocessor may spend
420 cycles, 1 680 instructions of a warp, on 128 rows and columns, 8 448 bytes with packed scales, if it is to
read as fast as memory goes. With tiles of 64 rows and 16 columns it takes just as many: no cycle may be idle.

Needs the weights of the chosen experts once. Flash, 13.0 MB each, scales packed: one token 78 MB, 18.1 us at
4.3 TB/s (12.1 and 6.0 us for the two products); the 44 experts of 8 tokens 570 MB, 133 us; 136 of 32 tokens
1.8 GB, 410 us. Pro, 34.1 MB each: one token 204 MB, 48 us. Operations 36 D W per token: Flash 302 MFLOP, 4096
tokens 1.7 ms at 720 TFLOP/s of bfloat16.

measured, H200, 2026-12-01, byte scales: 1 token 44 us (39 %), 8 244 (53 %), 32 807 (49 %), 4096 3604 (48 %).
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import experts as layout
from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.experts import ExpertTable, unpack_expert
from dsv4agent.engine.kernels.fp4 import expert_product
from dsv4agent.engine.kernels.launch import ceil_div, counters, next_power_of_two, on_device
from dsv4agent.engine.kernels.numerics import round_bf16, swiglu
from dsv4agent.engine.kernels.overlap import overlapping, prefetch, wait_for_previous
from dsv4agent.engine.kernels.quantize import round_rows, round_rows_reference, swiglu_reference
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
        grouped: Which form.
        tile: Rows of weights, warps, stages and registers.
    """

    experts: Tensor
    first: Tensor
    last: Tensor
    order: Tensor
    programs: int
    grouped: bool
    tile: Tile


def routed_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    experts: ExpertTable,
    shared: Tensor,
    *,
    limit: float,
    addresses: Tensor | None = None,
    before_sum: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return the sum of the chosen experts and of the shared one, bfloat16 [m, D].

    Args:
        x: Input as `round_rows` leaves it, bfloat16 [m, c], c a multiple of 128.
        ids: int32 [m, k], ascending in each row, distinct.
        weights: Routing weights float32 [m, k].
        experts: The layer's experts.
        shared: Output of the shared expert, bfloat16 [m, D].
        limit: Of the SwiGLU clamps.
        addresses: Where the experts are now, if not where their table says.
        before_sum: Called before `shared` is read, when the first product has been launched.
    """
    m, chosen = ids.shape
    out = torch.empty(m, experts.shape.hidden, dtype=torch.bfloat16, device=shared.device)
    outputs = torch.empty(m, chosen, experts.shape.hidden, dtype=torch.bfloat16, device=shared.device)
    if m == 0:
        before_sum()
        return out
    assert shared.is_contiguous()
    schedule = _schedule(ids, experts)
    _compute(x, weights, experts, schedule, outputs, (shared, out), limit, addresses, before_sum)
    if schedule.grouped:
        channels, plan = experts.shape.hidden, tuning.ROWS
        with on_device(shared):
            _combine_kernel[(m, ceil_div(channels, plan.columns))](
                outputs,
                shared,
                out,
                channels,
                CHOSEN=chosen,
                BLOCK=plan.columns,
                num_warps=plan.warps,
                **overlapping(),
            )
    return out


def expert_outputs(x: Tensor, ids: Tensor, weights: Tensor, experts: ExpertTable, *, limit: float) -> Tensor:
    """Return the output of every chosen expert, bfloat16 [m, k, D]. Arguments as for `routed_experts`."""
    m, chosen = ids.shape
    outputs = torch.empty(m, chosen, experts.shape.hidden, dtype=torch.bfloat16, device=x.device)
    if m:
        _compute(x, weights, experts, _schedule(ids, experts), outputs, None, limit)
    return outputs


def _compute(
    x: Tensor,
    weights: Tensor,
    experts: ExpertTable,
    schedule: _Schedule,
    outputs: Tensor,
    combine: tuple[Tensor, Tensor] | None,
    limit: float,
    addresses: Tensor | None = None,
    before_sum: Callable[[], None] = lambda: None,
) -> None:
    """Fill `outputs`; for few tokens also the second of `combine`, the sum with the first, if given."""
    m, chosen, _ = outputs.shape
    shape = experts.shape
    active = torch.empty(m * chosen, shape.width, dtype=torch.bfloat16, device=outputs.device)
    addresses = experts.addresses if addresses is None else addresses
    common = (schedule.experts, schedule.first, schedule.last, schedule.order, addresses)
    form = {
        "PACKED": shape.packed_scales,
        "CHOSEN": chosen,
        "WIDTH": shape.width,
        "PAIRS": 1 if schedule.grouped else next_power_of_two(m * chosen),
        "ROWS": schedule.tile.rows,
        "TOKENS": schedule.tile.tokens,
        "GROUPED": schedule.grouped,
        "ALONE": m == 1,
        "UNROLL": schedule.tile.unroll,
        "num_warps": schedule.tile.warps,
        "num_stages": schedule.tile.stages,
        "maxnreg": schedule.tile.registers,
    }
    fused = combine is not None and not schedule.grouped
    shared, out = combine or (outputs, outputs)
    pieces = layout.ROWS // schedule.tile.rows
    with on_device(outputs):
        _in_kernel[(shape.in_tiles * pieces, schedule.programs)](
            *common, x, weights.contiguous(), active, m * chosen, limit,
            BASES=shape.in_bases, TILE=shape.tile_bytes(shape.in_steps), STEPS=shape.in_steps, **form,
            **overlapping(),
        )  # fmt: skip
        rounded = round_rows(active)
        before_sum()
        _out_kernel[(shape.out_tiles * pieces, schedule.programs)](
            *common,
            rounded,
            outputs,
            shared,
            out,
            counters(outputs.device, shape.out_tiles * pieces),
            m * chosen,
            OFFSET=shape.out_offset,
            BASES=shape.out_bases,
            TILE=shape.tile_bytes(shape.out_steps),
            STEPS=shape.out_steps,
            HIDDEN=shape.hidden,
            FUSED=fused,
            **form,
            **overlapping(),
        )


def _schedule(ids: Tensor, experts: ExpertTable) -> _Schedule:
    shape = experts.shape
    plan = tuning.expert_plan(shape.hidden, shape.width, shape.packed_scales)
    m, chosen = ids.shape
    flat = ids.reshape(-1).to(torch.int32)
    if m <= plan.decode_tokens:
        return _Schedule(
            experts=flat,
            first=flat,
            last=flat,
            order=flat,
            programs=m * chosen,
            grouped=False,
            tile=plan.decode,
        )
    tile = tuning.grouped_tile(plan, m * chosen, len(experts))
    tokens = tile.tokens
    ordered, order = torch.sort(flat, stable=True)
    # No number comes back to the host: there are as many tiles as there can be, and some stay empty.
    programs = m * chosen // tokens + min(len(experts), m * chosen)
    numbers = torch.arange(len(experts) + 1, dtype=torch.int32, device=ids.device)
    bounds = torch.searchsorted(ordered, numbers)
    tiles = ((bounds.diff() + tokens - 1) // tokens).cumsum(0)
    number = torch.arange(programs, device=ids.device)
    expert = torch.searchsorted(tiles, number, right=True)
    owner = expert.clamp(max=len(experts) - 1)
    before = torch.nn.functional.pad(tiles, (1, 0))[owner]
    first = bounds[owner] + (number - before) * tokens
    return _Schedule(
        experts=torch.where(expert < len(experts), expert, -1).to(torch.int32),
        first=first.to(torch.int32),
        last=bounds[owner + 1].to(torch.int32),
        order=order.to(torch.int32),
        programs=programs,
        grouped=True,
        tile=tile,
    )


@triton.jit(do_not_specialize=["pairs"])
def _in_kernel(
    experts,
    first,
    last,
    order,
    addresses,
    x,
    weights,
    active,
    pairs,
    limit,
    BASES: tl.constexpr,
    TILE: tl.constexpr,
    STEPS: tl.constexpr,
    PACKED: tl.constexpr,
    CHOSEN: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPED: tl.constexpr,
    ALONE: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """First product of one expert for some tokens: rows of w1 and the same of w3, SwiGLU, routing weight."""
    wait_for_previous()
    half: tl.constexpr = ROWS // 2
    start = tl.program_id(0) * half
    expert, address = _expert(experts, addresses)
    pair, valid = _members(experts, first, last, order, expert, pairs, PAIRS, TOKENS, GROUPED, ALONE)
    if expert < 0 or _idle(valid):
        return
    # Eight rows of w1, then the same of w3: the matrix units leave both in one thread.
    local = tl.arange(0, ROWS)
    line = start % 64 + local // 16 * 8 + local % 8 + local // 8 % 2 * 64
    tile = start // 64
    record = address + tile.to(tl.int64) * TILE
    token = (pair // CHOSEN).to(tl.int64)
    both = expert_product(
        record, address + BASES + tile, line, x, token, valid, STEPS, PACKED, UNROLL, ROWS, TOKENS
    )
    both = tl.permute(tl.reshape(both, [half // 8, 2, 8, TOKENS]), [0, 2, 3, 1])
    gate, up = tl.split(both)
    weight = tl.load(weights + pair, mask=valid, other=0.0)
    value = tl.reshape(swiglu(gate, up, weight[None, None, :], limit), [half, TOKENS])
    row = start + tl.arange(0, half)
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
    outputs,
    shared,
    out,
    count,
    pairs,
    OFFSET: tl.constexpr,
    BASES: tl.constexpr,
    TILE: tl.constexpr,
    STEPS: tl.constexpr,
    HIDDEN: tl.constexpr,
    FUSED: tl.constexpr,
    PACKED: tl.constexpr,
    CHOSEN: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPED: tl.constexpr,
    ALONE: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Second product of one expert for some tokens: rows of w2; the last program adds the experts up."""
    tile = tl.program_id(0)
    start = tile * ROWS
    if not GROUPED:
        # The choice of experts was written long before: by no kernel that may still run.
        _, early = _expert(experts, addresses)
        prefetch(early + OFFSET + (start // 128).to(tl.int64) * TILE, TILE, 65536)
    wait_for_previous()
    expert, address = _expert(experts, addresses)
    pair, valid = _members(experts, first, last, order, expert, pairs, PAIRS, TOKENS, GROUPED, ALONE)
    row = start + tl.arange(0, ROWS)
    if expert >= 0 and not _idle(valid):
        record = address + OFFSET + (start // 128).to(tl.int64) * TILE
        value = expert_product(
            record, address + BASES + start // 128, row % 128, active, pair.to(tl.int64), valid,
            STEPS, PACKED, UNROLL, ROWS, TOKENS,
        )  # fmt: skip
        target = outputs + pair.to(tl.int64)[None, :] * HIDDEN + row[:, None]
        tl.store(target, round_bf16(value).to(tl.bfloat16), mask=(row < HIDDEN)[:, None] & valid[None, :])
    if FUSED:
        # All threads' results are stored before one of them announces it.
        tl.debug_barrier()
        if tl.atomic_add(count + tile, 1) == pairs - 1:
            tl.debug_barrier()
            some: tl.constexpr = 1 if ALONE else 16
            for token in range(0, pairs // CHOSEN, some):
                one = token + tl.arange(0, some)
                inside = (one < pairs // CHOSEN)[:, None] & (row < HIDDEN)[None, :]
                total = tl.zeros([some, ROWS], tl.float32)
                for slot in tl.static_range(CHOSEN):
                    source = outputs + (one[:, None] * CHOSEN + slot) * HIDDEN + row[None, :]
                    total += tl.load(source, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
                place = one[:, None] * HIDDEN + row[None, :]
                total += tl.load(shared + place, mask=inside, other=0.0).to(tl.float32)
                tl.store(out + place, round_bf16(total).to(tl.bfloat16), mask=inside)
            tl.store(count + tile, 0)


@triton.jit
def _combine_kernel(outputs, shared, out, channels, CHOSEN: tl.constexpr, BLOCK: tl.constexpr):
    wait_for_previous()
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
def _expert(experts, addresses):
    """Return this program's expert, or -1, and where its weights are, read before anything else waits."""
    expert = tl.load(experts + tl.program_id(1))
    address = tl.load(addresses + tl.maximum(expert, 0)).to(tl.pointer_type(tl.uint8))
    return expert, tl.multiple_of(address, 16)


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
    ALONE: tl.constexpr,
):
    """Return the pairs of this program, int32 [TOKENS], and which of the slots are in use."""
    slot = tl.arange(0, TOKENS)
    program = tl.program_id(1)
    if GROUPED:
        place = tl.load(first + program) + slot
        valid = place < tl.load(last + program)
        return tl.load(order + place, mask=valid, other=0), valid
    elif ALONE:
        return tl.where(slot == 0, program, 0), slot == 0
    else:
        pair = tl.arange(0, PAIRS)
        same = tl.load(experts + pair, mask=pair < pairs, other=-1) == expert
        # As many pairs of an expert as fit into a tile are worked on by the first of them.
        before = tl.sum((same & (pair < program)).to(tl.int32), axis=0)
        count = tl.where(before % TOKENS == 0, tl.sum(same.to(tl.int32), axis=0) - before, 0)
        # A few pairs at a time: all of them by all slots would take more registers than the product.
        members = tl.zeros([TOKENS], tl.int32)
        passed = -before
        for start in range(0, tl.where(count > 0, pairs, 0), 32):
            some = start + tl.arange(0, 32)
            here = (tl.load(experts + some, mask=some < pairs, other=-1) == expert).to(tl.int32)
            rank = passed + tl.cumsum(here, 0) - 1
            mine = (here > 0)[:, None] & (rank[:, None] == slot[None, :])
            members += tl.sum(tl.where(mine, some[:, None], 0), axis=0)
            passed += tl.sum(here, axis=0)
        return members, slot < count


def routed_experts_reference(
    x: Tensor, ids: Tensor, weights: Tensor, experts: list[Tensor], table: ExpertTable, shared: Tensor,
    *, limit: float,
) -> Tensor:  # fmt: skip
    """Do as `routed_experts` in torch, one pair at a time; `experts` are the packed tensors of `table`."""
    rows = x.float()[:, : table.shape.hidden]
    out = torch.zeros(rows.shape[0], table.shape.hidden, device=rows.device)
    for expert in sorted(set(ids.flatten().tolist())):
        w1, w2, w3 = unpack_expert(experts[expert].to(rows.device), table.shape)
        token, slot = (ids == expert).nonzero(as_tuple=True)
        hidden = rows[token] @ torch.cat((w1, w3)).t()
        active = swiglu_reference(hidden, weights[token, slot], limit)
        rounded = round_rows_reference(active).float()[:, : table.shape.width]
        out.index_add_(0, token, (rounded @ w2.t()).to(torch.bfloat16).float())
    return (out + shared.float()).to(torch.bfloat16)
