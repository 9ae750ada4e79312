"""How hosts are written, and the rules of an allow list."""

from __future__ import annotations

import re
from dataclasses import dataclass

import idna

from dsv4agent.sandboxes.addresses import IPAddress, parse_address
from dsv4agent.sandboxes.errors import SandboxError
from dsv4agent.sandboxes.protocol import Network, NetworkMode

WEB_PORTS = frozenset({80, 443})

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NAME_LENGTH = 253


@dataclass(frozen=True)
class HostRule:
    """One entry of an allow list.

    Attributes:
        host: A normalised name or address.
        below: Whether the hosts below the name are meant instead of itself.
        ports: The ports that may be reached.
        text: The entry as written.
    """

    host: str
    below: bool
    ports: frozenset[int]
    text: str

    @classmethod
    def parse(cls, text: str) -> HostRule:
        """Read an entry.

        Raises:
            ValueError: It is not of the form `example.org`, `*.example.org`, `127.0.0.1:8000` or `[::1]:80`.
        """
        if "://" in text or "/" in text:
            raise ValueError("write a host name, not a URL or a range")
        host, port = split_authority(text)
        below = host.startswith("*.")
        if "*" in host.removeprefix("*."):
            raise ValueError(
                "`*` may stand only at the start, before a dot; to reach everything, use mode `on`"
            )
        name = normalised_host(host.removeprefix("*."))
        if below and parse_address(name) is not None:
            raise ValueError("nothing is below an address")
        return cls(name, below, WEB_PORTS if port is None else frozenset({port}), text)

    def allows(self, host: str, port: int) -> bool:
        """Tell whether a normalised host and a port match."""
        if port not in self.ports:
            return False
        return host.endswith(f".{self.host}") if self.below else host == self.host


def parse_rules(network: Network) -> tuple[HostRule, ...]:
    """Return the rules of a network policy.

    With mode `on`, hosts serve to name addresses that are not public.

    Raises:
        SandboxError: An entry cannot be meant.
    """
    if network.mode is NetworkMode.OFF and network.hosts:
        raise SandboxError("hosts are named but the network is off; use Network.only(*hosts)")
    rules: list[HostRule] = []
    for text in network.hosts:
        try:
            rules.append(HostRule.parse(text))
        except ValueError as error:
            raise SandboxError(f"{text!r} in Network.hosts: {error}") from None
    return tuple(rules)


def rule_for(host: str, port: int) -> str:
    """Return the entry that would let a normalised host and a port through."""
    return written(host) if port in WEB_PORTS else f"{written(host)}:{port}"


def written(host: str) -> str:
    """Return a normalised host as it stands in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def normalised_host(host: str) -> str:
    """Return the one spelling of a host: lower case, A-labels, no final dot, addresses in their usual form.

    Raises:
        ValueError: It is not the name of a host.
    """
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"[{host}] is not an IPv6 address")
    name = host.lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode().lower()
        except idna.IDNAError as error:
            raise ValueError(f"{host!r} is not the name of a host: {error}") from None
    name = name.removesuffix(".")
    address: IPAddress | None = parse_address(name)
    if address is not None:
        return str(address)
    if len(name) > _NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{host!r} is not the name of a host")
    return name


def split_authority(text: str) -> tuple[str, int | None]:
    """Split `host`, `host:port` or `[address]:port`.

    Raises:
        ValueError: The port is not one, a colon is without a port, or there is a user name.
    """
    if "@" in text:
        raise ValueError("user names and passwords are not taken")
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
        if rest and not rest.startswith(":"):
            raise ValueError(f"{text!r} is not a host and a port")
        port, has_port = rest[1:], bool(rest)
    else:
        host, colon, port = text.partition(":")
        has_port = bool(colon)
    if not has_port:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is not a port; an IPv6 address stands in brackets")
    return host, int(port)
