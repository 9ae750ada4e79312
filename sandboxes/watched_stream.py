"""A connection that counts its bytes and says so once, when it is closed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from anyio.abc import SocketAttribute, SocketStream


class WatchedStream(SocketStream):
    """Passes everything on to a stream.

    Args:
        stream: The connection.
        closed: Called once with the bytes sent and received.
    """

    def __init__(self, stream: SocketStream, closed: Callable[[int, int], None]) -> None:
        self._stream = stream
        self._closed: Callable[[int, int], None] | None = closed
        self._sent = 0
        self._received = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive as the stream does."""
        data = await self._stream.receive(max_bytes)
        self._received += len(data)
        return data

    async def send(self, item: bytes) -> None:
        """Send as the stream does."""
        await self._stream.send(item)
        self._sent += len(item)

    async def send_eof(self) -> None:
        """Send the end of the stream."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream and report."""
        closed, self._closed = self._closed, None
        try:
            await self._stream.aclose()
        finally:
            if closed is not None:
                closed(self._sent, self._received)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Return those of the stream."""
        return self._stream.extra_attributes

    @property
    def _raw_socket(self) -> socket.socket:
        return self._stream.extra(SocketAttribute.raw_socket)
