"""The GPU engine measured, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dsv4agent.cli.listings import write_json
from dsv4agent.errors import BackendError, UsageError

if TYPE_CHECKING:
    from dsv4agent.engine.runner.bench import BenchOrder


def bench_engine(
    model: str,
    layers: int | None,
    experts: int | None,
    contexts: str,
    widths: str,
    prefill: str,
    *,
    routing: str,
    transformers: bool,
    as_json: bool,
) -> None:
    """Measure and print.

    Raises:
        BackendError: There is no CUDA device, no Triton, or no transformers if it is asked for.
        UsageError: An option cannot be read, or there is no such model.
    """
    _check_device()
    if transformers and find_spec("transformers") is None:
        raise BackendError("transformers is not installed; run: pip install 'dsv4agent[bench]'")
    from dsv4agent.engine.runner.bench import BenchOrder, numbers

    try:
        before, together, lengths = numbers(contexts), numbers(widths), numbers(prefill)
    except ValueError as error:
        raise UsageError(f"Give numbers separated by commas: {error}.") from error
    order = BenchOrder(
        model, layers, experts, before, together, lengths, routing=routing, transformers=transformers
    )
    _run(order, as_json=as_json)


def profile_step(model: str, layers: int | None, experts: int | None, context: int, *, as_json: bool) -> None:
    """Print the kernels of a decode step. Raises as `bench_engine`."""
    _check_device()
    from dsv4agent.engine.runner.bench import BenchOrder

    order = BenchOrder(model, layers, experts, (context,), (1,), (), profile=True)
    _run(order, as_json=as_json)


def _check_device() -> None:
    import torch

    if not torch.cuda.is_available():
        raise BackendError("No CUDA device is usable here; run this on a machine with one.")
    if find_spec("triton") is None:
        raise BackendError("Triton is not installed; run: pip install 'dsv4agent[gpu]'")


def _run(order: BenchOrder, *, as_json: bool) -> None:
    from dsv4agent.engine.lines import say as say_line
    from dsv4agent.engine.runner.bench import Benchmark
    from dsv4agent.engine.weights.known_shapes import KNOWN

    if order.model not in KNOWN:
        raise UsageError(f"There are no shapes of {order.model!r}; choose one of {', '.join(sorted(KNOWN))}.")
    say: Callable[[str], object] = (lambda _line: None) if as_json else say_line
    rows = Benchmark(order, say).run()
    if as_json:
        for row in rows:
            write_json(row)
