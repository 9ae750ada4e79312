"""Frames from a server in a sandbox: two big-endian 32-bit lengths, then JSON and bytes of these lengths."""

from __future__ import annotations

import json
import struct
from typing import Any

from dsv4agent.sandboxes.protocol import Process


async def read_frame(process: Process) -> tuple[Any, bytes]:
    """Read the next frame that `process` prints: its decoded JSON and its bytes.

    Raises:
        EOFError: The output ended before the frame did.
        ValueError: The text is not JSON.
    """
    size, data_size = struct.unpack(">II", await _read_exactly(process, 8))
    return json.loads(await _read_exactly(process, size)), await _read_exactly(process, data_size)


async def _read_exactly(process: Process, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = await process.read(min(size - len(received), 1 << 20))
        if not data:
            raise EOFError("the stream ended")
        received += data
    return bytes(received)
