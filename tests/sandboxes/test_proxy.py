import socket
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.sandboxes import Connection, Gate, Network
from dsv4agent.sandboxes.client_hello import BadHello, server_name
from dsv4agent.sandboxes.proxy import Proxy, ProxyLimits
from tests.web_servers import Names, Page, WebServer, loopback_is_public, make_certificate, serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def web() -> Iterator[WebServer]:
    pages = {
        "/": Page(),
        "/?q=1": Page(b"query\n"),
        "/big": Page(b"x" * 300_000, headers={"Set-Cookie": "a=b", "Keep-Alive": "timeout=5"}),
        "/none": Page(b"", status=204),
    }
    with serve(pages) as server:
        yield server


class Door:
    """A running proxy; opens raw connections to it."""

    def __init__(self, port: int, seen: list[Connection]) -> None:
        self.port = port
        self.seen = seen

    async def open(self) -> SocketStream:
        return await anyio.connect_tcp("127.0.0.1", self.port)

    async def ask(self, *parts: str | bytes) -> str:
        """Send a request and return all that comes back until the proxy closes."""
        async with await self.open() as stream:
            for part in parts:
                await stream.send(part.encode("latin-1") if isinstance(part, str) else part)
            return await rest_of(stream)


async def rest_of(stream: SocketStream) -> str:
    received = b""
    with anyio.fail_after(10):
        try:
            while True:
                received += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return received.decode("latin-1")


@asynccontextmanager
async def proxy(gate: Gate, limits: ProxyLimits | None = None) -> AsyncGenerator[Door]:
    seen: list[Connection] = []
    gate.on_connection = seen.append
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(Proxy(gate, limits).serve, listener)
            yield Door(listener.getsockname()[1], seen)
            group.cancel_scope.cancel()


def gate_to(*hosts: str) -> Gate:
    """A gate whose every name leads to 127.0.0.1."""
    names = Names(good_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]], inward_test=[["10.0.0.1"]])
    return Gate(Network.only(*hosts), resolve=names, judge=loopback_is_public)


@pytest.fixture
async def door(web: WebServer) -> AsyncIterator[Door]:
    hosts = (f"good.test:{web.port}", f"other.test:{web.port}", "inward.test", "good.test:9")
    async with proxy(gate_to(*hosts)) as opened:
        yield opened


async def test_a_request_in_absolute_form_is_passed_on(door: Door, web: WebServer) -> None:
    reply = await door.ask(
        f"GET http://GOOD.test:{web.port}/?q=1 HTTP/1.1\r\nHost: good.test:{web.port}\r\n"
        "Proxy-Authorization: secret\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nX-Hop: 1\r\n"
        "Connection: X-Hop, close\r\nX-Mine: 2\r\n\r\n"
    )
    assert reply.startswith("HTTP/1.1 200 OK\r\n") and reply.endswith("\r\n\r\nquery\n")
    (request,) = web.seen
    assert request.line == "GET /?q=1 HTTP/1.1"
    assert {name.lower(): value for name, value in request.headers} == {
        "host": f"good.test:{web.port}",
        "x-mine": "2",
        "connection": "close",
    }
    sent, received = door.seen[0].sent, door.seen[0].received
    assert door.seen == [Connection("good.test", web.port, True, "", sent, received)]
    assert sent > 50 and received > 50


async def test_connections_are_kept_for_further_requests(door: Door, web: WebServer) -> None:
    one = f"GET http://good.test:{web.port}/ HTTP/1.1\r\nHost: good.test:{web.port}\r\n\r\n"
    last = f"GET http://other.test:{web.port}/none HTTP/1.0\r\n\r\n"
    # All three at once: the proxy answers one after another.
    reply = await door.ask(one + one + last)
    assert reply.count("HTTP/1.1 200 OK") == 2 and reply.count("hello\n") == 2
    assert reply.count("HTTP/1.1 204 ") == 1
    assert [request.header("host") for request in web.seen] == [
        f"good.test:{web.port}",
        f"good.test:{web.port}",
        f"other.test:{web.port}",
    ]


async def test_bodies_go_both_ways(door: Door, web: WebServer) -> None:
    web.pages["/echo"] = lambda request: Page(request.body[::-1])
    place = f"good.test:{web.port}"
    head = f"POST http://{place}/echo HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n"
    plain = await door.ask(head + "Content-Length: 6\r\n\r\nabc", "def")
    assert plain.endswith("\r\n\r\nfedcba")
    chunked = await door.ask(head + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "1\r\nc\r\n0\r\n\r\n")
    assert chunked.endswith("\r\n\r\ncba")
    patient = await door.ask(head + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", "ab")
    assert patient.startswith("HTTP/1.1 100 ") and patient.endswith("ba")
    big = await door.ask(f"GET http://good.test:{web.port}/big HTTP/1.0\r\n\r\n")
    assert (
        big.endswith("x" * 300_000) and "keep-alive:" not in big.lower() and "set-cookie: a=b" in big.lower()
    )
    head_only = await door.ask(f"HEAD http://good.test:{web.port}/big HTTP/1.0\r\n\r\n")
    assert "content-length: 300000" in head_only.lower() and head_only.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("evil.test", "network_denied: evil.test:80 is not in the allow list; to allow it, add evil.test to"),
        (
            "good.test:81",
            "network_denied: good.test:81 is not in the allow list; to allow it, add good.test:81",
        ),
        ("inward.test", "network_denied: inward.test resolves to 10.0.0.1, which is a private address"),
        ("169.254.169.254", "network_denied: 169.254.169.254:80 is not in the allow list"),
    ],
)
async def test_refusals_say_why(door: Door, target: str, reason: str) -> None:
    reply = await door.ask(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n")
    status, _, body = reply.partition("\r\n")[0], *reply.partition("\r\n\r\n")[1:]
    assert status.startswith(f"HTTP/1.1 403 {reason}") and body.startswith(reason)
    assert body.count("\n") == 1 and not door.seen[0].allowed
    port = "" if ":" in target else ":80"
    tunnel = await door.ask(f"CONNECT {target}{port} HTTP/1.1\r\nHost: {target}\r\n\r\n")
    assert tunnel.startswith(f"HTTP/1.1 403 {reason}")


async def test_a_host_that_does_not_answer_is_a_bad_gateway(door: Door) -> None:
    reply = await door.ask("GET http://good.test:9/ HTTP/1.1\r\nHost: good.test:9\r\n\r\n")
    assert reply.startswith("HTTP/1.1 502 unreachable: good.test:9 at 127.0.0.1:")


GOOD = "Host: good.test:PORT\r\n"


@pytest.mark.parametrize(
    "request_text",
    [
        f"GET / HTTP/1.1\r\n{GOOD}\r\n",
        f"GET https://good.test:PORT/ HTTP/1.1\r\n{GOOD}\r\n",
        f"GET ftp://good.test:PORT/ HTTP/1.1\r\n{GOOD}\r\n",
        "GET http://good.test:PORT/ HTTP/1.1\r\nHost: other.test:PORT\r\n\r\n",
        "GET http://good.test:PORT/ HTTP/1.1\r\nHost: good.test\r\n\r\n",
        "GET http://good.test:PORT/ HTTP/1.1\r\n\r\n",
        f"GET http://good.test:PORT/ HTTP/1.1\r\n{GOOD}{GOOD}\r\n",
        f"GET http://user:word@good.test:PORT/ HTTP/1.1\r\n{GOOD}\r\n",
        f"GET http://good.test:PORT/#part HTTP/1.1\r\n{GOOD}\r\n",
        "GET http:///path HTTP/1.1\r\nHost: \r\n\r\n",
        "CONNECT good.test HTTP/1.1\r\nHost: good.test\r\n\r\n",
        "CONNECT /path HTTP/1.1\r\nHost: good.test\r\n\r\n",
        f"CONNECT good.test:PORT HTTP/1.1\r\n{GOOD}Content-Length: 5\r\n\r\nabcde",
        f"CONNECT good.test:PORT HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT http://good.test:PORT/ HTTP/1.1\r\nHost: good.test:PORT\r\nContent-Length: 3\r\n"
        "Transfer-Encoding: chunked\r\n\r\n",
        f"POST http://good.test:PORT/ HTTP/1.1\r\n{GOOD}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        f"POST http://good.test:PORT/ HTTP/1.1\r\n{GOOD}Content-Length: +3\r\n\r\nabc",
        f"POST http://good.test:PORT/ HTTP/1.1\r\n{GOOD}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        f"POST http://good.test:PORT/ HTTP/1.1\r\n{GOOD}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST http://good.test:PORT/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"GET http://good.test:PORT/ HTTP/1.1\r\n{GOOD}X: a\0b\r\n\r\n",
        f"GET http://good.test:PORT/ HTTP/1.1\r\n{GOOD}X: {'a' * 100_000}\r\n\r\n",
        f"GET http://good.test:PORT/ HTTP/2.0\r\n{GOOD}\r\n",
        f"GET http://g\xfcd.test:PORT/ HTTP/1.1\r\n{GOOD}\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 100 + "\r\n\r\n",
        "\x05\x01\x00\r\n\r\n",
        "garbage\r\n\r\n",
    ],
)
async def test_what_cannot_be_meant_reaches_nobody(door: Door, web: WebServer, request_text: str) -> None:
    reply = await door.ask(request_text.replace("PORT", str(web.port)))
    assert reply[:12] in {"HTTP/1.1 400", "HTTP/1.1 431", "HTTP/1.1 501", "HTTP/1.1 505"}, reply
    assert web.seen == []


async def test_a_broken_body_ends_the_exchange(door: Door, web: WebServer) -> None:
    head = f"POST http://good.test:{web.port}/ HTTP/1.1\r\nHost: good.test:{web.port}\r\n"
    reply = await door.ask(head + "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")
    assert reply.startswith("HTTP/1.1 400 bad_request: the request's body is broken")
    # A second request hidden behind the first one's body is none.
    reply = await door.ask(
        head + "Connection: close, content-length\r\nContent-Length: 4\r\n\r\nbodyGET /x HTTP/1.1\r\n\r\n"
    )
    assert reply.count("HTTP/1.1") == 1
    assert [request.body for request in web.seen][-1] == b"body"


async def tunnelled(door: Door, target: str, name: str | None, context: ssl.SSLContext) -> bytes:
    """Open a tunnel, greet `name` in it, and return the answer to a request."""
    stream = await door.open()
    async with stream:
        await stream.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        reply = b""
        while not reply.endswith(b"\r\n\r\n"):
            reply += await stream.receive()
        assert reply.startswith(b"HTTP/1.1 200 ")
        context.check_hostname = name is not None
        tls = await TLSStream.wrap(
            stream, hostname=name, ssl_context=context, server_side=False, standard_compatible=False
        )
        await tls.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while True:
            try:
                answer += await tls.receive()
            except anyio.EndOfStream:
                return answer


async def test_tunnels_lead_only_to_the_server_that_they_name(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "good.test", "other.test")
    with serve({"/": Page()}, certificate.server()) as secure:
        async with proxy(gate_to(f"*.test:{secure.port}", f"127.0.0.1:{secure.port}")) as door:
            target = f"good.test:{secure.port}"
            answer = await tunnelled(door, target, "good.test", certificate.client())
            assert answer.endswith(b"\r\n\r\nhello\n")
            for name in ("other.test", None):
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError, ssl.SSLError)):
                    await tunnelled(door, target, name, certificate.client())
            bare = await tunnelled(door, f"127.0.0.1:{secure.port}", None, certificate.client())
            assert bare.endswith(b"hello\n")
            assert len(secure.seen) == 2
            refused = [seen.reason for seen in door.seen if not seen.allowed]
            assert refused == [
                "the TLS greeting asks for 'other.test' in a tunnel to good.test",
                "the TLS greeting asks for 'no server' in a tunnel to good.test",
            ]


async def test_tunnels_carry_anything_but_tls_as_it_is() -> None:
    async def upper(stream: SocketStream) -> None:
        async with stream:
            await stream.send(b"greetings\n")  # Servers of other protocols speak first.
            async for data in stream:
                await stream.send(data.upper())
            await stream.send(b"end")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group, proxy(gate_to(f"good.test:{port}")) as door:
        group.start_soon(listener.serve, upper)
        async with await door.open() as stream:
            await stream.send(f"CONNECT good.test:{port} HTTP/1.1\r\nHost: good.test\r\n\r\nearly ".encode())
            await stream.send(b"late " * 20_000)
            await stream.send_eof()
            reply = await rest_of(stream)
        head, _, body = reply.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 ")
        assert body == "greetings\n" + "EARLY " + "LATE " * 20_000 + "end"
        assert door.seen[0].sent == 6 + 100_000
        group.cancel_scope.cancel()


async def test_waiting_connections_get_their_turn(web: WebServer) -> None:
    limits = ProxyLimits(connections=2, head_seconds=0.3)
    async with proxy(gate_to(f"good.test:{web.port}"), limits) as door:
        idle = [await door.open() for _ in range(6)]
        await idle[0].send(b"GET http://good")
        # The idle ones are dropped, two at a time, and then this one is served.
        reply = await door.ask(f"GET http://good.test:{web.port}/ HTTP/1.0\r\n\r\n")
        assert reply.endswith("hello\n")
        for stream in idle:
            assert await rest_of(stream) == ""
            await stream.aclose()


async def test_silent_servers_are_given_up(web: WebServer) -> None:
    never = threading.Event()
    web.pages["/slow"] = Page(delay=never)
    async with proxy(gate_to(f"good.test:{web.port}"), ProxyLimits(idle_seconds=0.2)) as door:
        reply = await door.ask(f"GET http://good.test:{web.port}/slow HTTP/1.0\r\n\r\n")
        assert reply.startswith("HTTP/1.1 502 unreachable: the server did not answer in time")
        tunnel = await door.ask(f"CONNECT good.test:{web.port} HTTP/1.1\r\nHost: good.test\r\n\r\n")
        assert tunnel.startswith("HTTP/1.1 200") and tunnel.endswith("\r\n\r\n")
    never.set()


@cache
def hello(name: str | None) -> bytes:
    """The first bytes of a real TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """Spread the message of one TLS record over records of `size` bytes."""
    message = data[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(data[:3] + len(part).to_bytes(2) + part for part in parts)


@pytest.mark.parametrize("name", ["example.org", "a.b.example", None])
def test_server_names_are_read_from_real_greetings(name: str | None) -> None:
    data = hello(name)
    assert server_name(data) == (name or "")
    for end in range(len(data)):
        assert server_name(data[:end]) is None
    for size in (1, 7, 100):
        assert server_name(in_records(data, size)) == (name or "")


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_greetings_are_read_without_faults(tail: bytes) -> None:
    start = b"\x16\x03\x01"
    for data in (b"\x16" + tail, start + len(tail).to_bytes(2) + tail, in_records(start + tail, 9)):
        try:
            name = server_name(data)
        except BadHello:
            continue
        assert name is None or isinstance(name, str)


@settings(deadline=None)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_changed_greetings_are_read_without_faults(place: int, byte: int) -> None:
    data = bytearray(hello("example.org"))
    data[place % len(data)] = byte
    try:
        server_name(bytes(data))
    except BadHello:
        pass


SPOILT: list[Callable[[bytes], bytes]] = [
    lambda data: b"\x16\x01" + data[2:],
    lambda data: data[:5] + b"\x02" + data[6:],
    lambda data: data[:3] + b"\xff\xff" + data[5:],
    lambda data: data[:6] + (30).to_bytes(3) + data[9:],
    lambda data: changed(data, b"\x00\x00\x0bexample.org", b"\x01\x00\x0bexample.org"),
    lambda data: changed(data, b"\x00\x00\x0bexample.org", b"\x00\x00\xffexample.org"),
    lambda data: in_records(data[:5] + b"\x01\xff\xff\xff" + b"\0" * 200_000, 1 << 14),
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_spoilt_greetings_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BadHello):
        server_name(spoil(hello("example.org")))
