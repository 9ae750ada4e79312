"""Which server a TLS client asks for: the name in its first message, read without any key."""

from __future__ import annotations

HANDSHAKE = 22
"""First byte of every TLS connection."""
MOST_BYTES = 1 << 16
"""The longest first message that is waited for; real ones have 200 to 2,000 bytes."""

_CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 1, 0, 0


class BadHello(ValueError):
    """Raised when bytes that begin like TLS are no client hello."""


def server_name(data: bytes) -> str | None:
    """Return the server name in a client hello, an empty string if it has none.

    Args:
        data: What the client sent so far, from its first byte on.

    Returns:
        None if more bytes are needed.

    Raises:
        BadHello: It is none, is too long, or names several servers.
    """
    message = _Reader(b"")
    rest = data
    # A message may be spread over several records.
    while len(rest) >= 5:
        if rest[0] != HANDSHAKE or rest[1] != 3:
            raise BadHello("not a TLS handshake")
        size = int.from_bytes(rest[3:5])
        if not 0 < size <= 1 << 14:
            raise BadHello(f"a record of {size} bytes")
        message.data += rest[5 : 5 + size]
        if len(message.data) >= 4 and len(message.data) >= 4 + int.from_bytes(message.data[1:4]):
            return _name_in(message)
        rest = rest[5 + size :]
    if len(data) >= MOST_BYTES:
        raise BadHello(f"longer than {MOST_BYTES} bytes")
    return None


class _Reader:
    """Takes fields off the front of a message."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, size: int) -> int:
        return int.from_bytes(self.bytes(size))

    def bytes(self, size: int) -> bytes:
        if size > len(self.data):
            raise BadHello("a field is longer than the message")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def vector(self, length_size: int) -> _Reader:
        return _Reader(self.bytes(self.number(length_size)))


def _name_in(message: _Reader) -> str:
    """Read RFC 8446 section 4.1.2 up to the extension of RFC 6066 section 3."""
    if message.number(1) != _CLIENT_HELLO:
        raise BadHello("the first message is no client hello")
    hello = message.vector(3)
    hello.bytes(2 + 32)  # version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    names: list[str] = []
    extensions = hello.vector(2) if hello.data else hello
    while extensions.data:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind != _SERVER_NAME:
            continue
        entries = body.vector(2)
        while entries.data:
            if entries.number(1) != _HOST_NAME:
                raise BadHello("a server name of unknown kind")
            names.append(entries.vector(2).data.decode("ascii", "replace"))
    if len(names) > 1:
        raise BadHello("several server names")
    return names[0] if names else ""
