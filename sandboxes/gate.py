"""The one place that decides about connections made for a sandbox, and makes them."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio.abc import SocketAttribute, SocketStream

from dsv4agent.sandboxes.addresses import LOOPBACK, IPAddress, parse_address, why_not_public
from dsv4agent.sandboxes.hosts import normalised_host, parse_rules, rule_for, written
from dsv4agent.sandboxes.protocol import Network, NetworkMode
from dsv4agent.sandboxes.watched_stream import WatchedStream

CONNECT_SECONDS = 15.0
"""Bound on looking up a name and connecting to one of its addresses."""
ADDRESS_SECONDS = 5.0
"""Bound on one address, so that a dead one leaves time for the next."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name, best first; the port is only a hint. Raises `OSError`."""


class NetworkDenied(PermissionError):
    """Raised when the network policy refuses a connection.

    Attributes:
        reason: What was refused and why, one line.
        rule: The entry of `Network.hosts` that would allow it, None if none would.
    """

    def __init__(self, reason: str, rule: str | None = None) -> None:
        super().__init__(errno.EACCES, reason)
        self.reason = reason
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.reason}; to allow it, add {self.rule} to Network.hosts" if self.rule else self.reason


@dataclass(frozen=True)
class Connection:
    """What became of one attempt to connect; reported when it is refused or closed.

    Attributes:
        host: As asked for, normalised where possible.
        port: As asked for.
        allowed: Whether the policy let it through.
        reason: Why not, or what failed; empty for a connection that was made.
        sent: Bytes sent to the host.
        received: Bytes that came from it.
    """

    host: str
    port: int
    allowed: bool
    reason: str = ""
    sent: int = 0
    received: int = 0


class Gate:
    """Connects to hosts that a network policy allows, at addresses that are public.

    A name is looked up once and the connection goes to an address of that answer, so that a second answer
    (DNS rebinding) has no effect. If any address of an answer is not public, all are refused. An address
    literal, or `localhost`, that stands in `Network.hosts` may be private: it is the user's own word, for
    that address and port alone.

    Args:
        network: The policy.
        resolve: Looks names up; the system's resolver by default.
        judge: Says why an address is not public, None if it is.
        on_connection: Called with every attempt, in the thread that made it; must neither block nor raise.

    Attributes:
        network: The policy.
        on_connection: As above; may be set later.

    Raises:
        SandboxError: The policy's hosts cannot be meant.
    """

    def __init__(
        self,
        network: Network,
        *,
        resolve: Resolver | None = None,
        judge: Callable[[IPAddress], str | None] = why_not_public,
        on_connection: Callable[[Connection], None] | None = None,
    ) -> None:
        self.network = network
        self.on_connection = on_connection
        self._rules = parse_rules(network)
        self._resolve = resolve or _system_resolver
        self._judge = judge

    def check(self, host: str, port: int) -> str:
        """Return the normalised host if the policy lets it and the port through, before any lookup.

        Raises:
            NetworkDenied: It does not.
        """
        try:
            name = normalised_host(host)
        except ValueError as error:
            raise NetworkDenied(str(error)) from None
        if not 0 < port < 65536:
            raise NetworkDenied(f"{port} is not a port")
        if self.network.mode is NetworkMode.OFF:
            reason = f"the network is off, so {written(name)}:{port} cannot be reached"
            raise NetworkDenied(reason, rule_for(name, port))
        if self.network.mode is NetworkMode.ALLOW_LIST and not self._is_named(name, port):
            raise NetworkDenied(f"{written(name)}:{port} is not in the allow list", rule_for(name, port))
        address = parse_address(name)
        if address is not None:
            self._check_address(name, address, port)
        return name

    async def connect(self, host: str, port: int) -> SocketStream:
        """Connect to a host.

        Raises:
            NetworkDenied: The policy refuses the host, the port, or an address that the name resolves to.
            TimeoutError: It took longer than `CONNECT_SECONDS`.
            OSError: The name is unknown, or no address answers.
        """
        try:
            shown = normalised_host(host)
        except ValueError:
            shown = host  # To be refused by the check.
        try:
            name = self.check(host, port)
            with anyio.fail_after(CONNECT_SECONDS):
                stream = await self._connect(name, port)
        except NetworkDenied as denied:
            self.report(Connection(shown, port, False, denied.reason))
            raise
        except TimeoutError:
            self.report(Connection(shown, port, True, "timeout"))
            raise TimeoutError(f"{written(shown)}:{port} did not answer in {CONNECT_SECONDS:g} s") from None
        except OSError as error:
            self.report(Connection(shown, port, True, str(error)))
            raise

        def closed(sent: int, received: int) -> None:
            self.report(Connection(shown, port, True, "", sent, received))

        return WatchedStream(stream, closed)

    def report(self, connection: Connection) -> None:
        """Tell the observer, if there is one."""
        if self.on_connection is not None:
            self.on_connection(connection)

    def _is_named(self, name: str, port: int) -> bool:
        return any(rule.allows(name, port) for rule in self._rules)

    def _check_address(self, name: str, address: IPAddress, port: int) -> None:
        """Refuse an address that is not public, unless the user named that very address and port."""
        kind = self._judge(address)
        if kind is None or self._is_named(str(address), port):
            return
        if name == str(address):
            raise NetworkDenied(f"{written(name)}:{port} is {kind}", rule_for(name, port))
        raise NetworkDenied(f"{name} resolves to {address}, which is {kind}")

    async def _connect(self, name: str, port: int) -> SocketStream:
        failure = OSError(errno.EHOSTUNREACH, f"{name} has no address")
        for address in await self._addresses(name, port):
            try:
                with anyio.fail_after(ADDRESS_SECONDS):
                    stream = await anyio.connect_tcp(str(address), port)
            except OSError as error:
                reason = str(error.__cause__ or error) or "no answer"
                failure = OSError(errno.EHOSTUNREACH, f"{written(name)}:{port} at {address}: {reason}")
                continue
            try:
                if _is_this_machine(stream) and not self._is_named(str(address), port):
                    self._check_loopback(name, port)
            except NetworkDenied:
                await stream.aclose()
                raise
            return stream
        raise failure

    async def _addresses(self, name: str, port: int) -> list[IPAddress]:
        """Look a name up once and check every answer."""
        literal = parse_address(name)
        if literal is not None:
            return [literal]
        if name == "localhost":
            self._check_loopback(name, port)
            return list(LOOPBACK)
        try:
            answers = await self._resolve(name, port)
        except socket.gaierror as error:
            raise OSError(errno.EHOSTUNREACH, f"{name} cannot be looked up: {error.strerror}") from error
        addresses: list[IPAddress] = []
        for answer in answers:
            address = _plain(answer)
            if address is None:
                raise NetworkDenied(f"{name} resolves to {answer}, which is no address of the internet")
            self._check_address(name, address, port)
            addresses.append(address)
        return addresses

    def _check_loopback(self, name: str, port: int) -> None:
        """Refuse what turned out to be this machine, unless it was named as `localhost`."""
        kind = self._judge(LOOPBACK[0])
        if kind is not None and not (name == "localhost" and self._is_named(name, port)):
            rule = rule_for(name, port) if name == "localhost" else None
            raise NetworkDenied(f"{written(name)}:{port} is this machine, {kind}", rule)


async def _system_resolver(name: str, port: int) -> list[str]:
    try:
        # The dot at the end keeps the search list of resolv.conf out: what was checked is what is looked up.
        found = await anyio.getaddrinfo(f"{name}.", port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        # In /etc/hosts names stand without it.
        found = await anyio.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


def _is_this_machine(stream: SocketStream) -> bool:
    """Tell whether the other end is here; public addresses of this machine lead to it as well."""
    local, remote = SocketAttribute.local_address, SocketAttribute.remote_address
    return stream.extra(local)[0] == stream.extra(remote)[0]


def _plain(answer: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(answer)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
