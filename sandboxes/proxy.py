"""The way out of a sandbox with an allow list: an HTTP/1.1 proxy that connects through a gate."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

import anyio
import h11
from anyio.abc import SocketStream

from dsv4agent.sandboxes.forward import forward
from dsv4agent.sandboxes.gate import Connection, Gate, NetworkDenied
from dsv4agent.sandboxes.hosts import written
from dsv4agent.sandboxes.http_peer import BadRequest, HttpPeer, target_of
from dsv4agent.sandboxes.tunnel import WrongServer, tunnel

_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1 << 20
_PASSING = frozenset({errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Failures to accept that end by themselves, when others give descriptors or memory back."""


@dataclass(frozen=True)
class ProxyLimits:
    """Bounds on what programs can make the proxy hold.

    Attributes:
        connections: Programs' connections served at once; further ones wait.
        head_seconds: Time for a whole head of a request to arrive, the wait for it included.
        idle_seconds: Time without a byte in either direction.
    """

    connections: int = 128
    head_seconds: float = 60.0
    idle_seconds: float = 300.0


class Proxy:
    """Serves `CONNECT` and requests in absolute form (`GET http://...`).

    Requests are read and written anew, never passed on as they are, so that what the host reads is what was
    checked. A refusal is answered with 403 and one line that says why and what would allow it.

    Args:
        gate: Decides and connects.
        limits: Bounds.
    """

    def __init__(self, gate: Gate, limits: ProxyLimits | None = None) -> None:
        self._gate = gate
        self._limits = limits or ProxyLimits()

    async def serve(self, listener: socket.socket) -> None:
        """Serve connections that arrive at a listening socket, until cancelled."""
        listener.setblocking(False)
        slots = anyio.Semaphore(self._limits.connections)

        async def handle(connection: socket.socket) -> None:
            try:
                async with await SocketStream.from_socket(connection) as stream:
                    await self._serve_program(stream)
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # The program went away.
            except Exception as error:
                # No program may end the service of the others.
                self._gate.report(Connection("", 0, False, f"a fault of the proxy: {error!r}"))
            finally:
                slots.release()

        async with anyio.create_task_group() as group:
            while True:
                await slots.acquire()
                group.start_soon(handle, await _accept(listener))

    async def _serve_program(self, stream: SocketStream) -> None:
        program = HttpPeer(stream, h11.SERVER)
        while await self._serve_request(program):
            program.state.start_next_cycle()
        if program.state.our_state in {h11.DONE, h11.MUST_CLOSE}:
            await _linger(stream)

    async def _serve_request(self, program: HttpPeer) -> bool:
        """Serve one request; tell whether another may follow."""
        request = None
        try:
            with anyio.move_on_after(self._limits.head_seconds):
                request = await program.receive()
            if not isinstance(request, h11.Request):
                return False
            host, port, path = target_of(request)
        except h11.RemoteProtocolError as error:
            return await _answer(program, error.error_status_hint, f"bad_request: {error}")
        except BadRequest as error:
            return await _answer(program, 400, f"bad_request: {error}")
        try:
            stream = await self._gate.connect(host, port)
        except NetworkDenied as denied:
            return await _answer(program, 403, f"network_denied: {denied}", request)
        except TimeoutError as error:
            return await _answer(program, 504, f"timeout: {error}", request)
        except OSError as error:
            return await _answer(program, 502, f"unreachable: {error.strerror or error}", request)
        async with stream:
            if request.method == b"CONNECT":
                return await self._tunnel(program, stream, host, port)
            name = written(host) if port == 80 else f"{written(host)}:{port}"
            server = HttpPeer(stream, h11.CLIENT)
            idle = self._limits.idle_seconds
            try:
                failure = await forward(program, server, request, name.encode(), path, idle)
            except BadRequest as error:
                return await _answer(program, 400, f"bad_request: {error}", request)
        if failure:
            return await _answer(program, 502, f"unreachable: {failure}", request)
        return program.state.our_state is h11.DONE and program.state.their_state is h11.DONE

    async def _tunnel(self, program: HttpPeer, stream: SocketStream, host: str, port: int) -> bool:
        await program.receive()  # The end of the request; CONNECT has no body.
        await program.send(h11.Response(status_code=200, headers=[], reason=b"Connected"))
        early, _ = program.state.trailing_data
        try:
            await tunnel(program.stream, stream, host, early, self._limits.idle_seconds)
        except WrongServer as error:
            self._gate.report(Connection(host, port, False, str(error)))
        return False


async def _answer(program: HttpPeer, status: int, line: str, request: h11.Request | None = None) -> bool:
    """Answer in the proxy's own name, if nothing was answered yet, for the last time on this connection."""
    if program.state.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return False
    text = line.encode("ascii", "replace")
    headers = [
        ("content-type", "text/plain"),
        ("content-length", str(len(text) + 1)),
        ("connection", "close"),
    ]
    # Many programs show of a refused CONNECT the status line alone, so the reason stands there too.
    await program.send(h11.Response(status_code=status, headers=headers, reason=text))
    if request is None or request.method != b"HEAD":
        await program.send(h11.Data(data=text + b"\n"))
    await program.send(h11.EndOfMessage())
    return False


async def _linger(stream: SocketStream) -> None:
    """Let the program read its last answer, which kernels drop if it still talks when we hang up."""
    await stream.send_eof()
    read = 0
    with anyio.move_on_after(_LINGER_SECONDS):
        while read < _LINGER_BYTES:
            try:
                read += len(await stream.receive())
            except anyio.EndOfStream:
                return


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        await anyio.wait_readable(listener)
        try:
            return listener.accept()[0]
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            await anyio.sleep(0.1)
