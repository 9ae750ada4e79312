"""One side of an HTTP/1.1 conversation: h11's state machine over a stream."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import h11
from anyio.abc import SocketStream

from dsv4agent.sandboxes.hosts import normalised_host, split_authority

HEAD_BYTES = 1 << 15
"""The longest head of a request or response; a head that ends in the next chunk may have twice as many."""
CHUNK = HEAD_BYTES

Headers = list[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1, and what older programs send. They concern one connection, and are not passed on.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class BadRequest(Exception):
    """Raised when a request cannot be meant, or is written so that two readers would read it differently."""


class HttpPeer:
    """Reads and writes HTTP events.

    Attributes:
        state: The state machine.
    """

    def __init__(self, stream: SocketStream, role: type[h11.CLIENT] | type[h11.SERVER]) -> None:
        self.stream = stream
        self.state = h11.Connection(role, max_incomplete_event_size=HEAD_BYTES)

    async def receive(self) -> h11.Event | type[h11.PAUSED]:
        """Return the next event.

        Raises:
            h11.RemoteProtocolError: The other side does not speak HTTP/1.1, or its head is too long.
            OSError: The connection broke.
        """
        while True:
            event = self.state.next_event()
            if event is h11.PAUSED:
                return h11.PAUSED
            if not isinstance(event, type):
                return event
            try:
                data = await self.stream.receive(CHUNK)
            except anyio.EndOfStream:
                data = b""
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise ConnectionResetError(str(error)) from error
            self.state.receive_data(data)

    async def send(self, event: h11.Event) -> None:
        """Send an event.

        Raises:
            OSError: The connection broke.
        """
        data = self.state.send(event)
        if data:
            try:
                await self.stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise ConnectionResetError(str(error)) from error


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that are meant for the far end.

    Headers that say how long the body is are not taken away by naming them in `Connection`.
    """
    headers = list(headers)
    named = {
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    }
    dropped = _HOP_BY_HOP | (named - {b"content-length", b"host"})
    return [(key, value) for key, value in headers if key not in dropped]


def target_of(request: h11.Request) -> tuple[str, int, bytes]:
    """Return normalised host, port and path of a request in absolute form, or of CONNECT.

    Raises:
        BadRequest: It is in another form, its `Host` disagrees, or its body has two lengths.
    """
    headers = list(request.headers)
    if request.http_version not in {b"1.0", b"1.1"}:
        raise BadRequest("another version of HTTP than 1.0 and 1.1")
    lengths = {key for key, _ in headers if key in {b"content-length", b"transfer-encoding"}}
    if len(lengths) > 1:
        raise BadRequest("both Content-Length and Transfer-Encoding")
    if b"transfer-encoding" in lengths and request.http_version != b"1.1":
        raise BadRequest("Transfer-Encoding before HTTP/1.1")
    try:
        target = request.target.decode("ascii")
        if request.method == b"CONNECT":
            host, port = split_authority(target)
            if port is None:
                raise BadRequest("CONNECT without a port")
            if any((key, value) != (b"content-length", b"0") for key, value in headers if key in lengths):
                raise BadRequest("CONNECT with a body")
            return _host(host), port, b""
        if target[:7].lower() != "http://":
            raise BadRequest("not a request to a proxy; use http://HOST/PATH, or CONNECT for anything else")
        if "#" in target:
            raise BadRequest("a fragment in the URL")
        authority, path = _split_url(target[7:])
        host, port = split_authority(authority)
        for key, value in headers:
            if key == b"host":
                other, other_port = split_authority(value.decode("ascii"))
                if (_host(other), other_port or 80) != (_host(host), port or 80):
                    raise BadRequest("Host and URL name different servers")
        return _host(host), port or 80, path.encode()
    except ValueError as error:  # includes what is not ASCII
        raise BadRequest(str(error)) from None


def _host(text: str) -> str:
    if not text:
        raise BadRequest("no host")
    return normalised_host(text)


def _split_url(rest: str) -> tuple[str, str]:
    end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    path = rest[end:]
    return rest[:end], path if path.startswith("/") else "/" + path
