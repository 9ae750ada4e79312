"""The work that `trial` checks and times: every kernel at the shapes of a model, on fresh random data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dsv4agent.engine.kernels import hyper_connections, moe, quantize, router, sampling
from dsv4agent.engine.kernels.experts import ExpertShape, ExpertTable
from dsv4agent.engine.kernels.linear import linear, linear_reference
from dsv4agent.engine.kernels.mixes import PackedMix, pack_mix
from dsv4agent.engine.kernels.quantize import QuantizedRows
from dsv4agent.engine.kernels.random_data import normal, random_experts, random_linear
from dsv4agent.engine.kernels.trial_shapes import Case, ModelShape, Prepared
from dsv4agent.engine.ops.hyper_connections import MIXES, Mix
from dsv4agent.engine.ops.lists import doubles

LIMIT = 10.0
EPS = 1e-6
REFERENCE_ROWS = 24
"""Rows of a large batch that are compared with the reference."""


def cases(model: ModelShape) -> Iterator[Case]:
    """Yield every kernel at the shapes of `model`."""
    for m in model.tokens:
        yield from _row_cases(model, m)
        yield from _linear_cases(model, m)
        yield _expert_case(model, m)
        yield _expert_case(model, m, packed_scales=False)
        yield _router_case(model, m)
        yield from _stream_cases(model, m)
    yield _expert_case(replace(model, experts=2 * model.chosen), 1, host=True)
    for m in model.tokens[:3]:
        yield _sampling_case(model, m, nucleus=False)
    yield _sampling_case(model, 1, nucleus=True)


def _row_cases(model: ModelShape, m: int) -> Iterator[Case]:
    d, w = model.hidden, model.width

    def quantise(generator: torch.Generator) -> Prepared:
        x = normal(generator, m, d)

        def error() -> float:
            return _differ(quantize.quantize_rows(x), quantize.quantize_rows_reference(x))

        copies = _copies(model, x)
        return Prepared(tuple(partial(quantize.quantize_rows, one) for one in copies), error)

    def norm(generator: torch.Generator) -> Prepared:
        x, weight = normal(generator, m, d), normal(generator, d)

        def error() -> float:
            rows = quantize.rms_norm_quantize(x, weight, EPS)[0]
            return relative(rows, quantize.rms_norm_quantize_reference(x, weight, EPS)[0])

        def same() -> bool:
            alone = quantize.rms_norm_quantize(x[-1:], weight, EPS)[0]
            return torch.equal(alone, quantize.rms_norm_quantize(x, weight, EPS)[0][-1:])

        copies = _copies(model, x)
        runs = tuple(partial(quantize.rms_norm_quantize, one, weight, EPS) for one in copies)
        return Prepared(runs, error, same)

    def swiglu(generator: torch.Generator) -> Prepared:
        hidden = 4 * normal(generator, m * model.chosen, 2 * w)
        weights = torch.rand(m * model.chosen, generator=generator, device=generator.device)

        def error() -> float:
            out = quantize.swiglu_quantize(hidden, weights, LIMIT).dequantize()
            active = quantize.swiglu_reference(hidden, weights, LIMIT)
            return relative(out, quantize.quantize_rows_reference(active).dequantize())

        copies = _copies(model, hidden)
        runs = tuple(partial(quantize.swiglu_quantize, one, weights, LIMIT) for one in copies)
        return Prepared(runs, error)

    quantised = d + d // 128
    yield Case("quantize", f"{m} x {d}", m * (2 * d + quantised), 0, "bf16", 0.0, quantise)
    yield Case("norm+quantize", f"{m} x {d}", m * (4 * d + quantised) + 2 * d, 0, "bf16", 2e-3, norm)
    moved = m * model.chosen * (5 * w + w // 128)
    yield Case("swiglu+quantize", f"{m * model.chosen} x {w}", moved, 0, "bf16", 2e-2, swiglu)


def _linear_cases(model: ModelShape, m: int) -> Iterator[Case]:
    d, w = model.hidden, model.width
    group_width = model.query_width // model.groups
    out_width = model.groups * model.group_rank
    fp8 = {
        "wq_a+wkv": (model.query_rank + 512, d),
        "wq_b": (model.query_width, model.query_rank),
        "wo_b": (d, out_width),
        "shared w1+w3": (2 * w, d),
        "shared w2": (d, w),
    }
    for name, (n, k) in fp8.items():
        yield _linear_case(model, name, m, n, k, "fp8")
    yield _linear_case(model, "wo_a", m, out_width, group_width, "grouped")
    yield _linear_case(model, "compressor", m, 2048, d, "bf16")
    yield _linear_case(model, "weights_proj", m, 64, d, "bf16")
    yield _linear_case(model, "gate", m, model.experts, d, "bf16")
    if m <= 64:
        yield _linear_case(model, "lm_head", m, model.vocabulary, d, "bf16")


def _linear_case(model: ModelShape, name: str, m: int, n: int, k: int, kind: str) -> Case:
    groups = model.groups if kind == "grouped" else 1
    stored = n * k * (2 if kind == "bf16" else 1)

    def prepare(generator: torch.Generator) -> Prepared:
        copies = max(1, -(-model.cold_bytes // stored)) if m <= 64 else 1
        weights = [random_linear(generator, n, k, kind, groups) for _ in range(min(copies, 64))]
        rows = normal(generator, m, groups * k)
        x = quantize.quantize_rows(rows) if kind == "fp8" else rows
        out = torch.bfloat16 if kind == "fp8" else torch.float32

        def error() -> float:
            few = _part(x, 0, REFERENCE_ROWS)
            found = linear(x, weights[0], dtype=torch.float32)[:REFERENCE_ROWS]
            return relative(found, linear_reference(few, weights[0], dtype=torch.float32))

        def same() -> bool:
            whole = linear(x, weights[0], dtype=torch.float32)
            return all(
                torch.equal(linear(_part(x, *span), weights[0], dtype=torch.float32), whole[slice(*span)])
                for span in _spans(m)
            )

        return Prepared(tuple(partial(linear, x, one, dtype=out) for one in weights), error, same)

    moved = stored + m * groups * k * (1 if kind == "fp8" else 2) + 2 * m * n
    unit = "fp8" if kind == "fp8" else "bf16"
    # The matrix units keep fewer bits of sums of FP8 products than float32 does.
    tolerance = 2e-3 if kind == "fp8" else 2e-4
    return Case(f"linear {name}", f"{m} x {n} x {k}", moved, 2 * m * n * k, unit, tolerance, prepare)


def _expert_case(model: ModelShape, m: int, *, host: bool = False, packed_scales: bool = True) -> Case:
    even = ExpertShape(model.hidden, model.width).even
    shape = ExpertShape(model.hidden, model.width, packed_scales=packed_scales and even)

    def prepare(generator: torch.Generator) -> Prepared:
        packed = random_experts(generator, model.experts, shape)
        if host and generator.device.type == "cuda":
            packed = [expert.cpu().pin_memory() for expert in packed]
        table = ExpertTable(shape, packed, generator.device)
        x = quantize.round_rows(normal(generator, m, model.hidden))
        shared = normal(generator, m, model.hidden)
        weights = torch.rand(m, model.chosen, generator=generator, device=generator.device)
        choices = [_choices(generator, model, m) for _ in range(8 if m <= 64 else 1)]

        def run(ids: Tensor, start: int = 0, stop: int = m) -> Tensor:
            rows = slice(start, stop)
            return moe.routed_experts(x[rows], ids[rows], weights[rows], table, shared[rows], limit=LIMIT)

        def error() -> float:
            few = slice(0, REFERENCE_ROWS)
            expected = moe.routed_experts_reference(
                x[few], choices[0][few], weights[few], packed, table, shared[few],
                limit=LIMIT,
            )  # fmt: skip
            return relative(run(choices[0])[few], expected)

        def same() -> bool:
            whole = run(choices[0])
            return all(torch.equal(run(choices[0], *span), whole[slice(*span)]) for span in _spans(m))

        return Prepared(tuple(partial(run, ids) for ids in choices), error, same)

    # Experts that m tokens reach, if they choose uniformly.
    reached = model.experts * (1 - (1 - model.chosen / model.experts) ** m)
    operations = 6 * m * model.chosen * model.hidden * model.width
    moved = int(reached * shape.size) + m * model.hidden * 3
    kernel = "experts on the host" if host else "experts" if packed_scales else "experts, byte scales"
    name = f"{m} x {model.chosen} of {model.experts}"
    return Case(kernel, name, moved, operations, "bf16", 1e-2, prepare)


def _router_case(model: ModelShape, m: int) -> Case:
    def prepare(generator: torch.Generator) -> Prepared:
        logits = 2 * torch.randn(m, model.experts, generator=generator, device=generator.device)
        bias = torch.rand(model.experts, generator=generator, device=generator.device)

        def run() -> tuple[Tensor, Tensor]:
            return router.choose(logits, bias=bias, chosen=model.chosen, scale=1.5)

        def error() -> float:
            ids, weights = run()
            expected, wanted = router.choose_reference(logits, bias=bias, chosen=model.chosen, scale=1.5)
            agree = (ids == expected).all(1)
            return float((~agree).float().mean()) + relative(weights[agree], wanted[agree])

        return Prepared((run,), error)

    return Case("choose experts", f"{m} x {model.experts}", 4 * m * model.experts, 0, "bf16", 1e-3, prepare)


def _stream_cases(model: ModelShape, m: int) -> Iterator[Case]:
    d = model.hidden

    def prepare(generator: torch.Generator) -> Prepared:
        device = generator.device
        streams = normal(generator, m, 4, d)
        y, norm = normal(generator, m, d), normal(generator, d)
        # Near the identity, so that streams written many times keep their size.
        write = torch.eye(4, 5, device=device).expand(m, 4, 5).contiguous() * 0.9
        write[:, :, 4] = 0.3
        fn = torch.randn(MIXES, 4 * d, generator=generator, device=device) / (4 * d) ** 0.5
        ones = doubles(torch.ones(MIXES))
        mix = Mix(fn, ones, doubles(torch.linspace(-1, 1, MIXES)), 20, EPS, EPS)
        packed = pack_mix(mix)

        def run(state: Tensor, by: PackedMix, start: int = 0, stop: int = m) -> hyper_connections.StreamRead:
            rows = slice(start, stop)
            return hyper_connections.write_then_read(
                state, by, norm, EPS, y=y[rows], write=write[rows], quantize=True
            )

        def error() -> float:
            few = slice(0, REFERENCE_ROWS)
            found = run(streams.clone(), packed)
            expected = hyper_connections.write_then_read_reference(
                streams[few].clone(), mix, norm, EPS, y=y[few], write=write[few]
            )
            assert found.write is not None and expected.write is not None
            return max(relative(found.x[few], expected.x), relative(found.write[few], expected.write))

        def same() -> bool:
            state = streams.clone()
            whole = run(state, packed)
            assert whole.write is not None
            for span in _spans(m):
                part, rows = streams[slice(*span)].clone(), slice(*span)
                found = run(part, packed, *span)
                assert found.write is not None
                pairs = (part, state), (found.x, whole.x), (found.write, whole.write)
                if not all(torch.equal(a, b[rows]) for a, b in pairs):
                    return False
            return True

        def result() -> object:
            state = streams.clone()
            return state, run(state, packed)

        mixes = [replace(packed, pieces=pieces) for pieces in _copies(model, packed.pieces)]
        runs = tuple(partial(run, streams.clone(), by) for by in mixes[: 64 if m <= 64 else 4])
        return Prepared(runs, error, same, result)

    moved = 6 * MIXES * 4 * d + m * (16 * d + 2 * d + 3 * d)
    yield Case("write+read streams", f"{m} x 4 x {d}", moved, 576 * d * m, "bf16", 3e-3, prepare)


def _sampling_case(model: ModelShape, m: int, *, nucleus: bool) -> Case:
    def prepare(generator: torch.Generator) -> Prepared:
        device = generator.device
        logits = 3 * torch.randn(m, model.vocabulary, generator=generator, device=device)
        temperatures = torch.ones(m, dtype=torch.float64, device=device)
        temperatures[1::2] = 0.0
        seeds = torch.arange(m, device=device) * 7919
        top_p = torch.full_like(temperatures, 0.9) if nucleus else None
        arguments = (logits, temperatures, seeds, seeds + 12345)

        def error() -> float:
            found = sampling.sample(*arguments, top_p=top_p)
            return float((found != sampling.sample_reference(*arguments, top_p=top_p)).float().mean())

        return Prepared((lambda: sampling.sample(*arguments, top_p=top_p),), error)

    name = "sample top-p" if nucleus else "sample"
    return Case(name, f"{m} x {model.vocabulary}", 4 * m * model.vocabulary, 0, "bf16", 0.0, prepare)


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over that of the reference; NaN is infinite."""
    difference = (found.double() - expected.double()).square().sum()
    error = float((difference / expected.double().square().sum().clamp(min=1e-300)).sqrt())
    return error if error == error else float("inf")


def _copies(model: ModelShape, x: Tensor) -> list[Tensor]:
    """Return `x` and as many copies as keep it out of the caches, at most 63."""
    count = -(-model.cold_bytes // (x.numel() * x.element_size()))
    return [x, *(x.clone() for _ in range(min(count, 64) - 1))]


def _differ(found: QuantizedRows, expected: QuantizedRows) -> float:
    codes = (found.codes.view(torch.uint8) != expected.codes.view(torch.uint8)).float().mean()
    return float(codes) + float((found.scales != expected.scales).float().mean())


def _spans(m: int) -> list[tuple[int, int]]:
    """Rows alone, and batches of other sizes, of m rows."""
    found = [(0, 1), (m - 1, m), (m // 3, m // 3 + 7), (m // 2, m // 2 + 40), (m // 4, m)]
    return [(start, stop) for start, stop in found if stop <= m]


def _part(x: QuantizedRows | Tensor, start: int, stop: int) -> QuantizedRows | Tensor:
    return _rows(x, start, stop) if isinstance(x, QuantizedRows) else x[start:stop]


def _rows(x: QuantizedRows, start: int, stop: int) -> QuantizedRows:
    return QuantizedRows(x.codes[start:stop], x.scales[start:stop])


def _choices(generator: torch.Generator, model: ModelShape, m: int) -> Tensor:
    scores = torch.rand(m, model.experts, generator=generator, device=generator.device)
    return scores.topk(model.chosen).indices.sort(dim=-1).values.to(torch.int32)
