"""The seam between httpcore's HTTP and a sandbox's gate."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import httpcore
from anyio.abc import ByteStream, SocketStream
from anyio.streams.tls import TLSAttribute, TLSStream


class GateBackend(httpcore.AsyncNetworkBackend):
    """Makes connections with a given function and with nothing else.

    Args:
        connect: Connects to a host and port, or raises what the caller of the HTTP client is to see.
    """

    def __init__(self, connect: Callable[[str, int], Awaitable[SocketStream]]) -> None:
        self._connect = connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect; the gate bounds the time itself."""
        return GateStream(await self._connect(host, port))

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: sockets of this machine are no business of a web client."""
        raise httpcore.UnsupportedProtocol("no local sockets")

    async def sleep(self, seconds: float) -> None:
        """Sleep between attempts."""
        await anyio.sleep(seconds)


class GateStream(httpcore.AsyncNetworkStream):
    """A connection as httpcore wants it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what arrives, empty at the end."""
        try:
            return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpcore.ReadError("the connection broke") from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        if buffer:
            try:
                await self._stream.send(buffer)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise httpcore.WriteError("the connection broke") from error

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Return the connection with TLS on it. Raises `ssl.SSLError`."""
        try:
            return GateStream(
                await TLSStream.wrap(
                    self._stream,
                    hostname=server_hostname,
                    ssl_context=ssl_context,
                    server_side=False,
                    standard_compatible=False,
                )
            )
        except anyio.BrokenResourceError as error:
            await self.aclose()
            if isinstance(error.__cause__, ssl.SSLError):
                raise error.__cause__ from None
            raise httpcore.ConnectError("the server broke the connection off") from error
        except BaseException:
            await anyio.aclose_forcefully(self._stream)
            raise

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore which protocol was agreed on."""
        return self._stream.extra(TLSAttribute.ssl_object, None) if info == "ssl_object" else None
