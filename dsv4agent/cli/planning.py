"""Where the parts of a model would go, printed before anything is loaded."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsv4agent.backends.checkpoint import BUNDLED, Checkpoint
from dsv4agent.cli.listings import write_json
from dsv4agent.errors import BackendError, ModelNotFound, UsageError

if TYPE_CHECKING:
    from dsv4agent.engine import ModelConfig

_GIB = 2**30
_CONTEXT = 131072


@dataclass(frozen=True)
class PlanOrder:
    """What to plan for; memory in GiB, bandwidth in GB per second."""

    model: str
    gpu: float
    host: float
    gpus: int
    context: int | None
    sequences: int
    drafter: bool
    packed_scales: bool
    memory_bandwidth: float
    pcie_bandwidth: float


def show_plan(order: PlanOrder, *, as_json: bool) -> None:
    """Print the memory plan of a model.

    Raises:
        ModelNotFound: The model is neither a known name nor a folder with a config.json.
        BackendError: It does not fit, or its config.json cannot be used.
        UsageError: Numbers contradict the model.
    """
    from dsv4agent.engine.errors import EngineError
    from dsv4agent.engine.weights.plan import plan_memory

    try:
        config = _config(order.model)
        plan = plan_memory(
            config,
            gpu_bytes=int(order.gpu * _GIB),
            host_bytes=int(order.host * _GIB),
            gpus=order.gpus,
            context=order.context or min(_CONTEXT, config.max_position_embeddings),
            sequences=order.sequences,
            drafter=order.drafter,
            packed_scales=order.packed_scales,
        )
    except EngineError as error:
        raise BackendError(str(error)) from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    token = plan.bytes_per_token()
    memory, pcie = order.memory_bandwidth * 1e9, order.pcie_bandwidth * 1e9
    overlapped, serial = (token.floor_ms(memory, pcie, overlapped=choice) for choice in (True, False))
    if as_json:
        totals = {"gpu_bytes": plan.gpu_bytes, "host_bytes": plan.host_bytes}
        floor = {"overlapped": overlapped, "serial": serial}
        write_json({**totals, **asdict(plan), "token": asdict(token), "floor_ms": floor})
        return
    lines = [
        *plan.describe(),
        f"at {order.memory_bandwidth:g} and {order.pcie_bandwidth:g} GB/s no token takes less than "
        f"{overlapped:.2f} ms, or {serial:.2f} ms if transfers wait for each other",
    ]
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))


def _config(model: str) -> ModelConfig:
    from dsv4agent.engine import ModelConfig
    from dsv4agent.engine.weights.known_shapes import KNOWN, known_config

    if model in KNOWN:
        return known_config(model)
    # Weights need not be there yet: that is what a plan is for.
    path = Checkpoint.find(model).path if model in BUNDLED else Path(model).expanduser()
    if not (path / "config.json").is_file():
        names = ", ".join((*KNOWN, *BUNDLED))
        raise ModelNotFound(f"No model at {path}. Give one of {names}, or a folder with config.json.")
    return ModelConfig.from_file(path)
