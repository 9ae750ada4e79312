"""Bytes both ways between a program and a host, after a look at whom a TLS client greets."""

from __future__ import annotations

import anyio
from anyio.abc import SocketStream

from dsv4agent.sandboxes.addresses import parse_address
from dsv4agent.sandboxes.client_hello import HANDSHAKE, BadHello, server_name
from dsv4agent.sandboxes.hosts import normalised_host

CHUNK = 1 << 16


class WrongServer(Exception):
    """Raised when a TLS client asks for another server than the one the tunnel leads to."""


async def tunnel(client: SocketStream, server: SocketStream, host: str, early: bytes, idle: float) -> None:
    """Pass bytes on until both ends have closed their direction, or nothing moved for a while.

    Args:
        client: The program inside.
        server: The connection to the host.
        host: Normalised host that the tunnel was opened for.
        early: What the client sent already.
        idle: Seconds without a byte in either direction after which the tunnel is closed.

    Raises:
        WrongServer: The client's first bytes are TLS and do not name the host. Nothing of it was passed on.
    """
    wrong: list[WrongServer] = []
    async with anyio.create_task_group() as group:
        scope = group.cancel_scope

        def moved() -> None:
            scope.deadline = anyio.current_time() + idle

        async def upwards() -> None:
            try:
                first = await _checked_start(client, host, early)
            except WrongServer as error:
                wrong.append(error)
                scope.cancel()
                return
            await relay(client, server, first)

        async def relay(source: SocketStream, target: SocketStream, data: bytes) -> None:
            try:
                while data:
                    moved()
                    await target.send(data)
                    moved()
                    data = await _receive(source)
                await target.send_eof()
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                scope.cancel()  # One direction broke, and the other is of no use alone.

        async def downwards() -> None:
            await relay(server, client, await _receive(server))

        moved()
        group.start_soon(upwards)
        group.start_soon(downwards)
    if wrong:
        raise wrong[0]


async def _checked_start(client: SocketStream, host: str, early: bytes) -> bytes:
    """Return the client's first bytes; if they are TLS, the whole of its first message."""
    data = early or await _receive(client)
    if not data or data[0] != HANDSHAKE:
        return data
    try:
        while (name := server_name(data)) is None:
            more = await _receive(client)
            if not more:
                raise WrongServer("the connection ended within the TLS greeting")
            data += more
    except BadHello as error:
        raise WrongServer(f"the TLS greeting cannot be read: {error}") from None
    # An address has no name to ask for.
    if name == "" and parse_address(host) is not None:
        return data
    try:
        matches = normalised_host(name) == host
    except ValueError:
        matches = False
    if not matches:
        raise WrongServer(f"the TLS greeting asks for {name or 'no server'!r} in a tunnel to {host}")
    return data


async def _receive(stream: SocketStream) -> bytes:
    """Return what arrives, empty at the end of the stream or if it broke."""
    try:
        return await stream.receive(CHUNK)
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        return b""
