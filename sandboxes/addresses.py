"""Which internet addresses are public. A name may resolve to any address, so every answer is judged."""

from __future__ import annotations

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
# Where clouds serve credentials to their machines at addresses that no other rule covers.
_METADATA = frozenset({IPv4Address("168.63.129.16")})
# What `ipaddress` takes for global, in one version of Python or another.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20")
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def parse_address(text: str) -> IPAddress | None:
    """Return the address that a host means, None if it is a name.

    IPv4 is read as the C library and browsers read it: `0x7f.1`, `017700000001` and `2130706433` are
    127.0.0.1. An IPv6 address that stands for an IPv4 address becomes that one.

    Raises:
        ValueError: It is neither: a broken address, or one with a zone (`fe80::1%eth0`).
    """
    if ":" in text:
        if "%" in text:
            raise ValueError(f"{text} names a zone of this machine")
        address = IPv6Address(text)
        return address.ipv4_mapped or address
    if not _NUMBER.fullmatch(text.rpartition(".")[2]):
        return None
    try:
        return IPv4Address(socket.inet_aton(text))
    except OSError:
        raise ValueError(f"{text} is not an IPv4 address") from None


def why_not_public(address: IPAddress) -> str | None:
    """Say what an address is (`a loopback address`) if it is not one of the public internet."""
    if isinstance(address, IPv6Address):
        if (embedded := _embedded(address)) is not None:
            return why_not_public(embedded)
        if address.is_loopback:
            return "a loopback address"
        if address.is_link_local:
            return "a link-local address"
        if address.is_multicast:
            return "a multicast address"
        if address not in _GLOBAL_UNICAST:
            return "a private or reserved address"
    elif address in _METADATA or address == IPv4Address("169.254.169.254"):
        return "a cloud's metadata service"
    elif address.is_loopback or address.is_unspecified:
        return "a loopback address"
    elif address.is_link_local:
        return "a link-local address"
    elif address.is_multicast:
        return "a multicast address"
    elif address in _SHARED:
        return "a carrier's shared address"
    if not address.is_global or any(address in network for network in _NOT_PUBLIC):
        return "a private or reserved address"
    return None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a gateway would pass packets on to."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return None
