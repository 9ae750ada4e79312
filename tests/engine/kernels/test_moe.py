from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels import experts as layout
from dsv4agent.engine.kernels import moe, tuning
from dsv4agent.engine.kernels.experts import ExpertShape, ExpertTable, Fp4Weight
from dsv4agent.engine.kernels.quantize import round_rows_reference
from dsv4agent.engine.kernels.tuning import ExpertPlan, Tile
from dsv4agent.engine.weights.formats import decode_e8m0, dequantize_fp4, quantize_fp4
from tests.engine.kernels.measures import relative_error

LIMIT = 10.0


def use(monkeypatch: pytest.MonkeyPatch, plan: ExpertPlan) -> None:
    """Let every shape have this plan."""

    def planned(hidden: int, width: int, packed_scales: bool) -> ExpertPlan:
        del hidden, width, packed_scales
        return plan

    monkeypatch.setattr(tuning, "expert_plan", planned)


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grouped form from 5 tokens on, with small tiles."""
    use(monkeypatch, ExpertPlan(decode_tokens=4, grouped=Tile(rows=128, tokens=16, warps=4, stages=2)))


def fp4(generator: torch.Generator, rows: int, columns: int) -> Fp4Weight:
    weight = torch.randn(rows, columns, generator=generator, device=generator.device) / columns**0.5
    exponents = torch.randint(-3, 4, (rows, 1), generator=generator, device=generator.device)
    return quantize_fp4(weight * 2.0**exponents)


def expert(generator: torch.Generator, hidden: int, width: int) -> tuple[Fp4Weight, Fp4Weight, Fp4Weight]:
    return fp4(generator, width, hidden), fp4(generator, hidden, width), fp4(generator, width, hidden)


def layer(
    generator: torch.Generator, count: int, hidden: int, width: int, *, packed_scales: bool = False
) -> tuple[ExpertTable, list[Tensor]]:
    packed = [
        layout.pack_expert(*expert(generator, hidden, width), packed_scales=packed_scales)
        for _ in range(count)
    ]
    return ExpertTable(ExpertShape(hidden, width, packed_scales), packed, generator.device), packed


def inputs(
    generator: torch.Generator, m: int, count: int, chosen: int, hidden: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    device = generator.device
    x = round_rows_reference(3.0 * torch.randn(m, hidden, generator=generator, device=device))
    scores = torch.rand(m, count, generator=generator, device=device)
    ids = scores.topk(chosen).indices.sort(dim=-1).values.to(torch.int32)
    weights = torch.rand(m, chosen, generator=generator, device=device) + 0.1
    return x, ids, weights, torch.randn(m, hidden, generator=generator, device=device).to(torch.bfloat16)


@pytest.mark.parametrize(
    ("hidden", "width", "packed_scales"),
    [(128, 128, False), (256, 192, False), (160, 96, False), (256, 256, True), (480, 224, True)],
)
def test_packing_keeps_every_value(
    generator: torch.Generator, hidden: int, width: int, packed_scales: bool
) -> None:
    weights = expert(generator, hidden, width)
    packed = layout.pack_expert(*weights, packed_scales=packed_scales)
    shape = ExpertShape(hidden, width, packed_scales)
    assert packed.shape == (shape.size,)
    for found, (codes, scales) in zip(layout.unpack_expert(packed, shape), weights, strict=True):
        assert torch.equal(found, dequantize_fp4(codes, decode_e8m0(scales)))


def test_real_experts_have_the_size_of_the_checkpoint() -> None:
    assert ExpertShape(4096, 2048).size == 13_369_344
    assert ExpertShape(7168, 3072).size == 35_094_528
    assert ExpertShape(4096, 2048, packed_scales=True).size == 12_976_192


def test_scales_far_apart_are_not_packed(generator: torch.Generator) -> None:
    w1, (codes, scales), w3 = expert(generator, 256, 256)
    near, far = scales.view(torch.uint8).clone(), scales.view(torch.uint8).clone()
    middle = int(near[:128].min())
    near[3, 5], far[3, 5] = middle + 15, middle + 16
    assert layout.scales_fit(w1, (codes, near), w3)
    assert not layout.scales_fit(w1, (codes, far), w3)
    with pytest.raises(ValueError, match="cannot be packed"):
        layout.pack_expert(w1, (codes, far), w3, packed_scales=True)
    codes = codes.clone()
    codes.view(torch.uint8)[3, 5 * 16 : 6 * 16] = 0x80
    assert layout.scales_fit(w1, (codes, far), w3), "zeros have no scale"
    packed = layout.pack_expert(w1, (codes, far), w3, packed_scales=True)
    _, found, _ = layout.unpack_expert(packed, ExpertShape(256, 256, packed_scales=True))
    assert torch.equal(found, dequantize_fp4(codes, decode_e8m0(far)))


@pytest.mark.usefixtures("forms")
@pytest.mark.parametrize(
    ("hidden", "width", "packed_scales"), [(256, 128, False), (160, 96, False), (256, 256, True)]
)
@pytest.mark.parametrize("m", [1, 4, 7])
def test_both_forms_agree_with_the_reference(
    generator: torch.Generator, m: int, hidden: int, width: int, packed_scales: bool
) -> None:
    table, packed = layer(generator, 4, hidden, width, packed_scales=packed_scales)
    x, ids, weights, shared = inputs(generator, m, 4, 3, hidden)
    out = moe.routed_experts(x, ids, weights, table, shared, limit=LIMIT)
    expected = moe.routed_experts_reference(x, ids, weights, packed, table, shared, limit=LIMIT)
    assert out.dtype is torch.bfloat16 and bool(out.isfinite().all())
    assert relative_error(out, expected) < 5e-3, "bfloat16 roundings"


@pytest.mark.usefixtures("forms")
def test_every_code_with_every_scale_in_every_column(generator: torch.Generator) -> None:
    """Token t reaches column t of w2 alone, so its output is that column: no sum, one rounding."""
    device = generator.device
    identity = quantize_fp4(torch.eye(128, device=device) * 4.0)
    codes = torch.randint(0, 256, (128, 64), dtype=torch.uint8, generator=generator, device=device)
    scales = torch.randint(97, 157, (128, 4), dtype=torch.uint8, generator=generator, device=device)
    table = ExpertTable(
        ExpertShape(128, 128), [layout.pack_expert(identity, (codes, scales), identity)], device
    )
    x = round_rows_reference(torch.eye(128, device=device) * 2.0)
    ids = torch.zeros(128, 1, dtype=torch.int32, device=device)
    out = moe.expert_outputs(x, ids, torch.ones(128, 1, device=device), table, limit=LIMIT)
    active = 8.0 / (1.0 + torch.exp(torch.tensor(-8.0))) * 8.0
    factor = round_rows_reference(active.view(1, 1).to(torch.bfloat16)).float()[0, 0]
    expected = dequantize_fp4(codes, decode_e8m0(scales)).t() * factor.to(device)
    assert torch.equal(out[:, 0], expected.to(torch.bfloat16))


@pytest.mark.usefixtures("forms")
@pytest.mark.parametrize("packed", [False, True])
def test_bits_do_not_depend_on_the_batch(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    table, _ = layer(generator, 4, 256, 256, packed_scales=packed)
    x, ids, weights, shared = inputs(generator, 12, 4, 3, 256)
    x = round_rows_reference((x.float() / 4).round().clamp(-4, 4))

    def run(start: int, stop: int) -> Tensor:
        rows = slice(start, stop)
        return moe.routed_experts(x[rows], ids[rows], weights[rows], table, shared[rows], limit=LIMIT)

    whole = run(0, 12)
    for start, stop in [(0, 1), (11, 12), (2, 9)]:
        assert torch.equal(run(start, stop), whole[start:stop])
    plan = tuning.expert_plan(256, 256, packed)
    for decode in (Tile(64, 16, warps=4, stages=2), Tile(128, 32, warps=8, stages=3, unroll=4)):
        use(monkeypatch, replace(plan, decode_tokens=32, decode=decode))
        assert torch.equal(run(0, 12), whole), decode


@pytest.mark.parametrize("m", [1, 40])
def test_scales_of_four_bits_give_the_same_bits(generator: torch.Generator, m: int) -> None:
    weights = [expert(generator, 256, 256) for _ in range(3)]
    x, ids, routing, shared = inputs(generator, m, 3, 2, 256)

    def run(*, packed_scales: bool) -> Tensor:
        packed = [layout.pack_expert(*one, packed_scales=packed_scales) for one in weights]
        table = ExpertTable(ExpertShape(256, 256, packed_scales), packed, generator.device)
        return moe.routed_experts(x, ids, routing, table, shared, limit=LIMIT)

    assert torch.equal(run(packed_scales=True), run(packed_scales=False))


def test_more_tokens_of_an_expert_than_a_tile_holds(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, packed = layer(generator, 3, 128, 128)
    x, ids, weights, shared = inputs(generator, 20, 3, 2, 128)
    ids = torch.tensor([[0, 2]] * 18 + [[1, 2]] * 2, dtype=torch.int32, device=ids.device)
    expected = moe.routed_experts_reference(x, ids, weights, packed, table, shared, limit=LIMIT)
    assert tuning.expert_plan(128, 128, False).decode.tokens < 18
    out = moe.routed_experts(x, ids, weights, table, shared, limit=LIMIT)
    assert relative_error(out, expected) < 1e-2
    use(monkeypatch, replace(tuning.expert_plan(128, 128, False), decode_tokens=0))
    grouped = moe.routed_experts(x, ids, weights, table, shared, limit=LIMIT)
    assert relative_error(grouped, expected) < 1e-2


@pytest.mark.usefixtures("forms")
@pytest.mark.parametrize("m", [3, 20])
def test_all_tokens_may_choose_the_same_experts(generator: torch.Generator, m: int) -> None:
    table, packed = layer(generator, 5, 128, 128)
    x, ids, weights, shared = inputs(generator, m, 5, 2, 128)
    ids = torch.tensor([1, 4], dtype=torch.int32, device=ids.device).expand(m, 2).contiguous()
    out = moe.routed_experts(x, ids, weights, table, shared, limit=LIMIT)
    expected = moe.routed_experts_reference(x, ids, weights, packed, table, shared, limit=LIMIT)
    assert relative_error(out, expected) < 1e-2


def test_clamps_hold_and_zeros_stay(generator: torch.Generator) -> None:
    table, packed = layer(generator, 2, 128, 128)
    x, ids, weights, shared = inputs(generator, 2, 2, 2, 128)
    large = round_rows_reference(x.float() * 1e4)
    out = moe.routed_experts(large, ids, weights, table, shared, limit=LIMIT)
    expected = moe.routed_experts_reference(large, ids, weights, packed, table, shared, limit=LIMIT)
    assert relative_error(out, expected) < 5e-3
    nothing = round_rows_reference(torch.zeros(2, 128, device=shared.device))
    assert torch.equal(moe.routed_experts(nothing, ids, weights, table, shared, limit=LIMIT), shared)


def test_no_tokens(generator: torch.Generator) -> None:
    table, _ = layer(generator, 2, 128, 128)
    x, ids, weights, shared = inputs(generator, 1, 2, 1, 128)
    out = moe.routed_experts(x[:0], ids[:0], weights[:0], table, shared[:0], limit=LIMIT)
    assert out.shape == (0, 128)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("m", [2, 40])
def test_experts_may_live_in_pinned_memory_of_the_host(generator: torch.Generator, m: int) -> None:
    table, packed = layer(generator, 4, 256, 128)
    mixed = [expert.cpu().pin_memory() if number % 2 else expert for number, expert in enumerate(packed)]
    x, ids, weights, shared = inputs(generator, m, 4, 3, 256)
    found = moe.routed_experts(
        x, ids, weights, ExpertTable(table.shape, mixed, generator.device), shared, limit=LIMIT
    )
    assert torch.equal(found, moe.routed_experts(x, ids, weights, table, shared, limit=LIMIT))
