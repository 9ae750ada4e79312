"""How much memory a device has, and whether a model fits."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.errors import DeviceUnavailable, ModelTooLarge
from dsv4agent.engine.ops.compiled import COMPILED
from dsv4agent.engine.weights.loader import resident_bytes

_GIB = 2**30
_PINNED_SHARE = 0.8


def choose_device(name: str) -> torch.device:
    """Return the device for `name`; `auto` is CUDA where there is one. Raises `DeviceUnavailable`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{name!r} is no device; use 'auto', 'cpu' or 'cuda'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "no CUDA device is usable here; use device='cpu' or install the CUDA build of torch."
        )
    if device.type not in ("cpu", "cuda"):
        raise DeviceUnavailable(f"device {name!r} is not supported; use 'auto', 'cpu' or 'cuda'.")
    if device.type == "cpu" and not COMPILED:
        raise DeviceUnavailable("the CPU path needs numba; run: pip install numba")
    return device


def available_bytes(device: torch.device) -> int:
    """Return the free memory of `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pinnable_bytes() -> int:
    """Return how much host memory may be pinned: most of what is free, the rest is the machine's."""
    return int(_PINNED_SHARE * available_bytes(torch.device("cpu")))


def check_fit(config: ModelConfig, device: torch.device, available: int | None = None) -> None:
    """Raise `ModelTooLarge` if the weights of `config` do not fit `device`."""
    needed = resident_bytes(config)
    free = available_bytes(device) if available is None else available
    if needed > free:
        raise ModelTooLarge(
            f"the weights take {needed / _GIB:.1f} GiB in float32, {device.type} has {free / _GIB:.1f} GiB "
            f"free; use a machine with at least {needed / _GIB * 1.05:.0f} GiB, or a server over HTTP.",
            needed_bytes=needed,
            available_bytes=free,
        )
