import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from anyio.abc import SocketAttribute
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.sandboxes import Connection, Gate, Network, NetworkDenied, NetworkMode, SandboxError
from dsv4agent.sandboxes.addresses import parse_address, why_not_public
from dsv4agent.sandboxes.hosts import normalised_host
from tests.web_servers import Names, loopback_is_public

pytestmark = pytest.mark.anyio

ON = Network(NetworkMode.ON)
LOOPBACKS = (
    "127.1 0x7f.1 0177.0.0.01 2130706433 0x7f000001 127.0.0.1. １２７。0.0.1 "
    "::ffff:127.0.0.1 [::ffff:7f00:1] ::FFFF:127.0.0.1"
).split()


@pytest.fixture
def greeter() -> Iterator[int]:
    """A port of 127.0.0.1, and of it alone, that accepts connections into its backlog."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def greeted(gate: Gate, host: str, port: int) -> tuple[str, int]:
    """Connect and return the address at the other end."""
    async with await gate.connect(host, port) as stream:
        address = stream.extra(SocketAttribute.remote_address)
        return str(address[0]), int(address[1])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("EXAMPLE.org", "example.org"),
        ("example.org.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
        ("under_score.example.org", "under_score.example.org"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("8.8.2056", "8.8.8.8"),
        *((host, "127.0.0.1") for host in LOOPBACKS),
    ],
)
def test_a_host_has_one_spelling(written: str, meant: str) -> None:
    assert normalised_host(written) == meant


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "-a.org",
        "a b",
        "a/b",
        "a\0b",
        "a:b",
        "1.2.3.4.5",
        "256.1.1.1",
        "09.1.1.1",
        "[a]",
        "fe80::1%eth0",
        "a@b",
        "x" * 64 + ".org",
        "a." * 127 + "aa",
        "example.1",
        "exa\nmple.org",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        normalised_host(host)
    with pytest.raises(NetworkDenied):
        Gate(ON).check(host, 80)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_normal_spellings_are_stable_or_refused(text: str) -> None:
    try:
        once = normalised_host(text)
    except ValueError:
        return
    assert once.isascii() and normalised_host(once) == once


@pytest.mark.parametrize(
    "address",
    (
        "0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.255.1.2 169.254.169.254 "
        "169.254.1.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.168.1.1 "
        "192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 "
        "255.255.255.255 168.63.129.16 :: ::1 ::7f00:1 ::ffff:10.0.0.1 64:ff9b::7f00:1 "
        "64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1::1 "
        "2002:a9fe:a9fe:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1"
    ).split(),
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert why_not_public(ip_address(address))
    with pytest.raises(NetworkDenied):
        Gate(ON).check(address, 80)


@pytest.mark.parametrize(
    "address",
    (
        "1.1.1.1 8.8.8.8 100.63.255.255 172.32.0.1 223.255.255.255 2606:4700:4700::1111 "
        "64:ff9b::808:808 2002:808:808::1"
    ).split(),
)
def test_addresses_that_are_public(address: str) -> None:
    assert why_not_public(ip_address(address)) is None
    assert Gate(ON).check(address, 80) == address


@pytest.mark.parametrize(
    ("rule", "host", "port", "allowed"),
    [
        ("example.org", "example.org", 443, True),
        ("example.org", "EXAMPLE.ORG.", 80, True),
        ("example.org", "example.org", 8443, False),
        ("example.org", "www.example.org", 443, False),
        ("example.org", "badexample.org", 443, False),
        ("example.org", "example.org.evil.com", 443, False),
        ("Example.Org:8443", "example.org", 8443, True),
        ("example.org:8443", "example.org", 443, False),
        ("*.example.org", "a.example.org", 443, True),
        ("*.example.org", "a.b.example.org", 80, True),
        ("*.example.org", "example.org", 443, False),
        ("*.example.org", "aexample.org", 443, False),
        ("*.example.org:22", "a.example.org", 22, True),
        ("bücher.example", "xn--bcher-kva.example", 443, True),
        ("1.1.1.1", "0x1.1.1.1", 443, True),
        ("127.0.0.1:8000", "2130706433", 8000, True),
        ("127.0.0.1:8000", "127.0.0.1", 8001, False),
        ("127.0.0.1:8000", "127.0.0.2", 8000, False),
        ("[::1]:8000", "::1", 8000, True),
        ("localhost:8000", "localhost", 8000, True),
        ("localhost:8000", "127.0.0.1", 8000, False),
    ],
)
def test_rules(rule: str, host: str, port: int, allowed: bool) -> None:
    gate = Gate(Network.only(rule))
    if allowed:
        gate.check(host, port)
    else:
        with pytest.raises(NetworkDenied):
            gate.check(host, port)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "a.*.org",
        "https://example.org",
        "example.org/path",
        "10.0.0.0/8",
        "example.org:0",
        "example.org:http",
        "example.org:99999",
        "user@example.org",
        "::1",
        "*.127.0.0.1",
        "a b",
        "x.org:",
    ],
)
def test_entries_that_cannot_be_meant(entry: str) -> None:
    with pytest.raises(SandboxError, match=r"Network\.hosts"):
        Gate(Network.only(entry))


def test_hosts_without_a_network_cannot_be_meant() -> None:
    with pytest.raises(SandboxError, match="off"):
        Gate(Network(NetworkMode.OFF, ("example.org",)))


def test_a_refusal_says_what_would_allow_it() -> None:
    with pytest.raises(NetworkDenied) as denied:
        Gate(Network.only("example.org")).check("pypi.org", 8443)
    assert denied.value.rule == "pypi.org:8443"
    assert str(denied.value).endswith("to allow it, add pypi.org:8443 to Network.hosts")
    assert isinstance(denied.value, PermissionError)
    with pytest.raises(NetworkDenied, match="off"):
        Gate(Network()).check("example.org", 443)


@pytest.mark.parametrize("host", [*LOOPBACKS, "localhost"])
@pytest.mark.parametrize("network", [ON, Network.only("example.org", "127.0.0.1:1", "localhost:1")])
async def test_this_machine_is_out_of_reach(host: str, network: Network, greeter: int) -> None:
    with pytest.raises(NetworkDenied):
        await Gate(network).connect(host, greeter)


@pytest.mark.parametrize("mode", [NetworkMode.ALLOW_LIST, NetworkMode.ON])
async def test_what_the_user_names_is_reached(mode: NetworkMode, greeter: int) -> None:
    gate = Gate(Network(mode, (f"127.0.0.1:{greeter}",)))
    assert await greeted(gate, "127.1", greeter) == ("127.0.0.1", greeter)
    with pytest.raises(NetworkDenied):
        await gate.connect("localhost", greeter)
    by_name = Gate(Network(mode, (f"localhost:{greeter}",)))
    assert await greeted(by_name, "localhost", greeter) == ("127.0.0.1", greeter)


async def test_a_name_is_looked_up_once_and_the_answer_is_used(greeter: int) -> None:
    names = Names(rebinding_test=[["127.0.0.1"], ["10.0.0.1"]])
    gate = Gate(Network.only(f"rebinding.test:{greeter}"), resolve=names, judge=loopback_is_public)
    assert await greeted(gate, "rebinding.test", greeter) == ("127.0.0.1", greeter)
    assert names.lookups == ["rebinding.test"]
    with pytest.raises(NetworkDenied, match=r"resolves to 10\.0\.0\.1"):
        await gate.connect("rebinding.test", greeter)


@pytest.mark.parametrize("answer", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1%lo"])
async def test_names_that_lead_inwards_are_refused(answer: str, greeter: int) -> None:
    names = Names(a_test=[["1.1.1.1", answer]])
    with pytest.raises(NetworkDenied, match="resolves to"):
        await Gate(ON, resolve=names).connect("a.test", greeter)


async def test_the_system_looks_names_up(greeter: int) -> None:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine does not know its own name")
    if why_not_public(ip_address(address)) is None:
        pytest.skip("this machine's name leads to a public address")
    with pytest.raises(NetworkDenied, match="resolves to"):
        await Gate(ON).connect(name, greeter)
    with pytest.raises(OSError, match="cannot be looked up"):
        await Gate(ON).connect("no-such-host.invalid", greeter)


async def test_a_public_address_of_this_machine_is_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]

    def all_but_loopback(address: object) -> str | None:
        return "a loopback address" if str(address).startswith("127.") else None

    with socket.create_server((own, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(NetworkDenied, match="this machine"):
            await Gate(ON, judge=all_but_loopback).connect(own, port)
        assert await greeted(Gate(Network.only(f"{own}:{port}")), own, port) == (own, port)


async def test_a_dead_address_leaves_the_next_one(greeter: int) -> None:
    names = Names(a_test=[["127.0.0.9", "127.0.0.1"]])
    gate = Gate(ON, resolve=names, judge=loopback_is_public)
    assert await greeted(gate, "a.test", greeter) == ("127.0.0.1", greeter)


async def test_failures_that_are_no_refusals() -> None:
    gate = Gate(ON, resolve=Names(a_test=[["127.0.0.9"]], empty_test=[[]]), judge=loopback_is_public)
    for host in ("a.test", "unknown.test", "empty.test"):
        with pytest.raises(OSError) as failure:
            await gate.connect(host, 9)
        assert not isinstance(failure.value, NetworkDenied)


async def test_connections_are_reported_when_they_end(greeter: int) -> None:
    seen: list[Connection] = []
    gate = Gate(Network.only(f"127.0.0.1:{greeter}"), on_connection=seen.append)
    with pytest.raises(NetworkDenied):
        await gate.connect("Example.ORG", 443)
    async with await gate.connect("127.0.0.1", greeter) as stream:
        await stream.send(b"12345")
        assert len(seen) == 1
    assert seen == [
        Connection("example.org", 443, False, "example.org:443 is not in the allow list"),
        Connection("127.0.0.1", greeter, True, "", 5, 0),
    ]


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_address_is_read(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    for spelling in (str(number), hex(number), f"{number >> 24}.{number & 0xFFFFFF}", f"0{number:o}"):
        assert parse_address(spelling) == address
