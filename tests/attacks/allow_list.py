"""Attacks on a network by allow list: the proxy is the only way out, so it is what is talked into things."""
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

from dsv4agent.sandboxes import Network, Policy
from tests.attacks.attack import Attack, Run, family, holds, reaches
from tests.attacks.programs import Program, py
from tests.attacks.stage import Stage

ALLOWED = "allowed.test"

# `talk` sends bytes to the proxy and returns what comes back; `ask` does so for many requests.
_PROXY = """
from urllib.parse import urlsplit
proxy = urlsplit(T.get("HTTP_PROXY") or T["http_proxy"])
def talk(*parts):
    with socket.create_connection((proxy.hostname, proxy.port), 2) as s:
        s.settimeout(0.3)
        answer = b""
        for part in parts:
            s.sendall(part)
            try:
                answer += s.recv(4096)
            except TimeoutError:
                pass
        return answer
def ask(*requests):
    for request in requests:
        quietly(talk, request.encode("latin-1"))
port, udp = T["EVERYWHERE"], T["UDP"]
loopbacks = ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "0", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
             "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[64:ff9b::7f00:1]", "127.0.0.1.", "LOCALHOST.",
             "127.0.0.1%00allowed.test", "127。0。0。1", "①②⑦.0.0.1", "[::1%lo]", "127.0.0.1#allowed.test")
"""


def _on(source: str) -> Program:
    return py(_PROXY + source)


def _only(*hosts: str) -> Callable[[Stage, Policy], Policy]:
    def change(stage: Stage, policy: Policy) -> Policy:
        port = stage.host.addresses["EVERYWHERE"]
        return replace(policy, network=Network.only(*(host.replace("PORT", port) for host in hosts)))

    return change


def _case(name: str, description: str, run: Run, *hosts: str) -> Attack:
    return Attack(name, description, "", run, needs="allow_list", policy=_only(ALLOWED, *hosts))


async def _counter_check(stage: Stage) -> str:
    """See that an address which the user names is reached: else the other cases would prove nothing."""
    await stage.run(
        _on('ask(f"GET http://127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n")')
    )
    return "" if await stage.visited() else "the proxy does not even reach an address that is allowed by name"


ATTACKS = family(
    "allow_list",
    "network",
    _case(
        "allowed_address",
        "The counter-check: an address that the list itself names is reached.",
        _counter_check,
        "127.0.0.1:PORT",
    ),
    _case(
        "connect_to_loopback",
        "CONNECT to 127.0.0.1 in twenty spellings.",
        reaches(
            _on('ask(*(f"CONNECT {a}:{port} HTTP/1.1\\r\\nHost: {a}:{port}\\r\\n\\r\\n" for a in loopbacks))')
        ),
    ),
    _case(
        "get_from_loopback",
        "GET of an absolute address on 127.0.0.1 in twenty spellings, and with a user name in front.",
        reaches(
            _on("""
ask(*(f"GET http://{a}:{port}/ HTTP/1.1\\r\\nHost: {a}:{port}\\r\\n\\r\\n" for a in loopbacks))
ask(*(f"GET http://allowed.test@{a}:{port}/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n" for a in loopbacks))
""")
        ),
    ),
    _case(
        "own_addresses",
        "CONNECT to the host's own addresses, the metadata address and private networks.",
        reaches(
            _on("""
for name in T["ADDRESSES"].split() + ["169.254.169.254", "10.0.0.1", "192.168.0.1", "[fd00::1]", "[fe80::1]"]:
    a = f"[{name}]" if ":" in name and "[" not in name else name
    ask(f"CONNECT {a}:{port} HTTP/1.1\\r\\nHost: {a}\\r\\n\\r\\n", f"GET http://{a}:{port}/ HTTP/1.1\\r\\nHost: {a}\\r\\n\\r\\n")
""")
        ),
    ),
    _case(
        "host_header",
        "Names an allowed host in the Host header and another in the target, and the other way round.",
        reaches(
            _on("""
ask(f"GET http://127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n",
    f"GET http://allowed.test/ HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n",
    f"GET / HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n",
    f"GET http://allowed.test:80@127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n",
    f"GET http://127.0.0.1:{port}\\\\@allowed.test/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n",
    f"GET //127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n",
    f"CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\nHost: allowed.test:443\\r\\n\\r\\n",
    f"CONNECT allowed.test:443 HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n")
""")
        ),
    ),
    _case(
        "second_request",
        "Sends a second request on a connection whose first one was judged, pipelined and in a body.",
        reaches(
            _on("""
first = "GET http://allowed.test/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n"
second = f"GET http://127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n"
ask(first + "\\r\\n" + second, first + "Content-Length: 0\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n" + second,
    first + f"Content-Length: {len(second)}\\r\\n\\r\\n" + second, first + "Connection: keep-alive\\r\\n\\r\\n" + second,
    f"CONNECT allowed.test:443 HTTP/1.1\\r\\n\\r\\nCONNECT 127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n")
""")
        ),
    ),
    _case(
        "smuggled_lines",
        "Hides a second target behind line ends, tabs and NULs in the request line.",
        reaches(
            _on("""
for gap in ("\\r", "\\n", "\\t", "\\x0b", "\\0", " ", "\\r\\n ", "%0d%0a", "%00"):
    ask(f"CONNECT allowed.test:443{gap}127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n",
        f"CONNECT 127.0.0.1:{port}{gap}allowed.test:443 HTTP/1.1\\r\\n\\r\\n",
        f"GET http://127.0.0.1:{port}/{gap}http://allowed.test/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n")
""")
        ),
    ),
    _case(
        "name_that_leads_inside",
        "Asks for an allowed name that resolves to this machine, as a rebound name would.",
        reaches(
            _on("""
name = T["HOST_NAME"]
if name != "localhost":
    ask(f"CONNECT {name}:{port} HTTP/1.1\\r\\nHost: {name}:{port}\\r\\n\\r\\n",
        f"GET http://{name}:{port}/ HTTP/1.1\\r\\nHost: {name}:{port}\\r\\n\\r\\n")
""")
        ),
        # Most systems lead their own name to 127.0.0.1 or 127.0.1.1.
        f"{socket.gethostname()}:PORT",
    ),
    _case(
        "look_alikes",
        "Uses names that end, begin or look like an allowed one.",
        reaches(
            _on("""
for name in ("evil-allowed.test", "allowed.test.localhost", "localhost\\u3002allowed.test", "xallowed.test",
             "allowed.test.", "allowed.test:80@localhost", "localhost/allowed.test", "localhost?.allowed.test",
             "localhost#.allowed.test", "*.allowed.test", "..localhost"):
    ask(*(f"CONNECT {name}:{port} HTTP/1.1\\r\\n\\r\\n".encode().decode("latin-1"),))
    ask(f"GET http://{name}:{port}/ HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n".encode().decode("latin-1"))
""")
        ),
    ),
    _case(
        "other_methods",
        "Uses other methods, old versions and SOCKS to reach the host.",
        reaches(
            _on("""
for method in ("OPTIONS", "TRACE", "POST", "connect", "CONNECT ", "PRI", "GET\\t"):
    ask(f"{method} http://127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n",
        f"{method} 127.0.0.1:{port} HTTP/1.0\\r\\n\\r\\n", f"{method} 127.0.0.1:{port}\\r\\n\\r\\n")
number = int(port)
quietly(talk, b"\\x04\\x01" + number.to_bytes(2, "big") + bytes((127, 0, 0, 1)) + b"\\0")
quietly(talk, b"\\x05\\x01\\x00", b"\\x05\\x01\\x00\\x01\\x7f\\0\\0\\x01" + number.to_bytes(2, "big"))
for scheme in ("ftp", "https", "file", "gopher", "ws", "HTTP"):
    ask(f"GET {scheme}://127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n")
""")
        ),
    ),
    _case(
        "around_the_proxy",
        "Leaves the proxy aside: direct TCP, UDP, IPv6, and names of its own.",
        reaches(
            _on("""
for name in ["127.0.0.1", "::1", *T["ADDRESSES"].split()]:
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    for target in (port, T["TCP"], T["TCP6"]):
        quietly(lambda: socket.create_connection((name, int(target)), 1))
    quietly(lambda: socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (name, int(udp))))
quietly(lambda: socket.socket(socket.AF_UNIX).connect("\\0" + T["ABSTRACT"]))
quietly(lambda: socket.socket(socket.AF_UNIX).connect(T["OUTSIDE"] + "/socket"))
""")
        ),
    ),
    _case(
        "raw_and_exotic",
        "Opens raw, packet and exotic sockets, which a network namespace alone might allow.",
        holds(
            py("""
held = []
for family, kind, protocol in ((2, 3, 1), (10, 3, 58), (17, 3, 0x300), (40, 1, 0), (38, 5, 0), (30, 5, 0), (44, 3, 0)):
    held.append(quietly(socket.socket, family, kind, protocol))
wait()
"""),
            "socket:",
        ),
    ),
    _case(
        "many_headers",
        "Floods the proxy with endless headers and lines; it must go on to serve, and still refuse.",
        reaches(
            _on("""
quietly(talk, b"GET http://allowed.test/ HTTP/1.1\\r\\n" + b"A: b\\r\\n" * 200000)
quietly(talk, b"CONNECT " + b"a" * (1 << 20))
sockets = [quietly(socket.create_connection, (proxy.hostname, proxy.port), 1) for _ in range(200)]
ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n")
""")
        ),
    ),
)
