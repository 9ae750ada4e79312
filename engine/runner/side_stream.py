"""A second stream for work that a decode step need not wait for at once.

The kernels of one token are too small for the card, so what does not depend on each other runs side by side.
Which kernels run at the same time decides nothing about their results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class SideStream:
    """Runs work beside the current stream.

    What work reads must be kept by its caller until `join`: memory that is freed earlier is given to the
    current stream, which does not wait.
    """

    def __init__(self, device: torch.device) -> None:
        """Make a stream; on a device without streams work runs at once, in order."""
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, work: Callable[[], T]) -> T:
        """Launch `work` to start after all that the current stream has been given so far."""
        if self._stream is None:
            return work()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            return work()

    def join(self) -> None:
        """Let the current stream wait for all that was launched here."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)


class InOrder(SideStream):
    """Runs everything in order on the current stream."""

    def __init__(self) -> None:
        """Make no stream."""
        super().__init__(torch.device("cpu"))
