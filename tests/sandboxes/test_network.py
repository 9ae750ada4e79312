import gc
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import (
    Connection,
    Enforcement,
    Gate,
    MemorySandbox,
    Network,
    NetworkDenied,
    NetworkMode,
    Policy,
    Sandbox,
    SandboxError,
    SandboxUnavailable,
    choose_sandbox,
)
from dsv4agent.sandboxes.bubblewrap import BubblewrapSandbox
from tests.web_servers import Names, Page, WebServer, loopback_is_public, make_certificate, serve

pytestmark = pytest.mark.anyio

# Fetches what follows on the command line through the proxy of the environment, and says what came.
FETCH = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10, context=context).read().decode(), end="")
except Exception as error:
    body = error.read().decode() if hasattr(error, "read") else ""
    print("failed:", error, body)
"""


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serve({"/": Page(b"from outside\n")}) as server:
        server.pages["/inwards"] = Page(status=302, headers={"Location": "http://169.254.169.254/latest"})
        server.pages["/loop"] = Page(status=302, headers={"Location": "http://127.0.0.1:1/"})
        yield server


async def opened(workspace: Path, network: Network, gate: Gate | None = None) -> BubblewrapSandbox:
    try:
        return await BubblewrapSandbox.open(Policy(str(workspace), network=network), gate=gate)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def fetch(sandbox: Sandbox, *arguments: str, env: dict[str, str] | None = None) -> str:
    done = await sandbox.run(["python", "-c", FETCH, *arguments], env=env, timeout=30)
    return (done.stdout + done.stderr).decode()


async def python(sandbox: Sandbox, code: str) -> str:
    done = await sandbox.run(["python", "-c", code], timeout=30)
    return (done.stdout + done.stderr).decode()


def names(web: WebServer) -> tuple[Network, Gate]:
    """An allow list of names that a resolver of the test leads to 127.0.0.1."""
    network = Network.only(f"good.test:{web.port}", f"changing.test:{web.port}", "inward.test")
    resolve = Names(
        good_test=[["127.0.0.1"]],
        evil_test=[["127.0.0.1"]],
        inward_test=[["192.168.0.1"]],
        changing_test=[["127.0.0.1"], ["192.168.0.1"]],
    )
    return network, Gate(network, resolve=resolve, judge=loopback_is_public)


async def test_named_hosts_are_reached_through_the_proxy_and_no_others(
    workspace: Path, web: WebServer
) -> None:
    network, gate = names(web)
    seen: list[Connection] = []
    gate.on_connection = seen.append
    async with await opened(workspace, network, gate) as sandbox:
        assert await fetch(sandbox, f"http://good.test:{web.port}/") == "from outside\n"
        assert web.seen[0].header("Host") == f"good.test:{web.port}"
        denied = await fetch(sandbox, f"http://evil.test:{web.port}/")
        assert f"network_denied: evil.test:{web.port} is not in the allow list" in denied
        assert "not in the allow list" in await fetch(sandbox, "http://good.test/")
        assert "resolves to 192.168.0.1" in await fetch(sandbox, "http://inward.test/")
        assert "169.254.169.254:80 is not in the allow list" in await fetch(
            sandbox, f"http://good.test:{web.port}/inwards"
        )
        # The second answer is another one: the connection of the first check used the first.
        assert await fetch(sandbox, f"http://changing.test:{web.port}/") == "from outside\n"
        assert "resolves to 192.168.0.1" in await fetch(sandbox, f"http://changing.test:{web.port}/")
    assert [(c.host, c.allowed) for c in seen[:2]] == [("good.test", True), ("evil.test", False)]
    assert seen[0].received > len("from outside\n")


async def test_addresses_that_the_user_names_are_reached(workspace: Path, web: WebServer) -> None:
    # NO_PROXY leads 127.0.0.1 to the sandbox's own loopback, so this goes without it.
    everything = {"NO_PROXY": "", "no_proxy": ""}
    async with await opened(workspace, Network.only(f"127.0.0.1:{web.port}")) as sandbox:
        url = f"http://127.0.0.1:{web.port}/"
        assert await fetch(sandbox, url, env=everything) == "from outside\n"
        assert "refused" in await fetch(sandbox, url)
        denied = await fetch(sandbox, f"http://127.0.0.1:{web.port}/loop", env=everything)
        assert "127.0.0.1:1 is not in the allow list" in denied
        assert "localhost" in await fetch(sandbox, f"http://localhost:{web.port}/", env=everything)
        assert len(web.seen) == 2


async def test_tls_goes_through_and_leads_only_where_it_says(workspace: Path, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "good.test", "evil.test")
    file = workspace / "authority.pem"
    file.write_bytes(certificate.file.read_bytes())
    with serve({"/": Page(b"secret\n")}, certificate.server()) as secure:
        network, gate = names(secure)
        async with await opened(workspace, network, gate) as sandbox:
            assert await fetch(sandbox, f"https://good.test:{secure.port}/", str(file)) == "secret\n"
            fronted = await python(
                sandbox,
                f"""
import os, socket, ssl
proxy = os.environ["https_proxy"].rpartition(":")[2]
s = socket.create_connection(("127.0.0.1", int(proxy)))
s.sendall(b"CONNECT good.test:{secure.port} HTTP/1.1\\r\\nHost: good.test\\r\\n\\r\\n")
print(s.recv(1000)[:12])
try:
    ssl.create_default_context(cafile="authority.pem").wrap_socket(s, server_hostname="evil.test")
    print("greeted another server")
except OSError as error:
    print("closed")
""",
            )
            assert fronted == "b'HTTP/1.1 200'\nclosed\n"
            assert "403" in await fetch(sandbox, "https://good.test/", str(file))
            assert len(secure.seen) == 1


WAYS_OUT = """
import os, socket
for name in list(os.environ):
    if name.lower().endswith("proxy"):
        del os.environ[name]
def attempt(name, family, kind, *address):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            s.connect(*address)
            if kind == socket.SOCK_DGRAM:
                s.send(b"x")
            print("reached", name)
    except OSError:
        pass
attempt("host", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", PORT))
attempt("host6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", PORT))
attempt("mapped", socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", PORT))
attempt("tcp", socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 443))
attempt("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 443))
attempt("dns", socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53))
attempt("dns6", socket.AF_INET6, socket.SOCK_DGRAM, ("2001:db8::1", 53))
attempt("metadata", socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))
attempt("multicast", socket.AF_INET, socket.SOCK_DGRAM, ("224.0.0.251", 5353))
attempt("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\\0ABSTRACT")
attempt("raw", socket.AF_INET, socket.SOCK_RAW, ("192.0.2.1", 1))
attempt("packet", 17, socket.SOCK_RAW, ("lo", 3))
try:
    print("reached", socket.getaddrinfo("example.org", 80))
except OSError:
    pass
try:
    os.setns(os.open("/proc/1/ns/net", os.O_RDONLY))
    print("setns")
except (OSError, AttributeError):
    pass
print("tried")
"""


@pytest.mark.parametrize("mode", [NetworkMode.OFF, NetworkMode.ALLOW_LIST])
async def test_there_is_no_other_way_out(workspace: Path, web: WebServer, mode: NetworkMode) -> None:
    network = Network.only(f"127.0.0.1:{web.port}") if mode is NetworkMode.ALLOW_LIST else Network()
    name = f"dsv4agent-test-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        async with await opened(workspace, network) as sandbox:
            assert sandbox.report.guarantees["network"] is Enforcement.FULL
            code = WAYS_OUT.replace("PORT", str(web.port)).replace("ABSTRACT", name)
            assert await python(sandbox, code) == "tried\n"
    assert web.seen == []


async def test_the_report_names_the_hosts(workspace: Path) -> None:
    async with await opened(workspace, Network.only("example.org", "*.example.com")) as sandbox:
        assert sandbox.report.guarantees["network"] is Enforcement.FULL
        assert "network: only example.org, *.example.com, through the proxy" in sandbox.report.notes


async def test_programs_share_one_loopback(workspace: Path) -> None:
    (workspace / "page").write_text("from inside\n")
    async with await opened(workspace, Network()) as sandbox:
        text = ""
        server = await sandbox.spawn(["python", "-m", "http.server", "8000", "--bind", "127.0.0.1"])
        for _ in range(200):
            text = await fetch(sandbox, "http://127.0.0.1:8000/page")
            if text == "from inside\n":
                break
            assert "refused" in text
            await anyio.sleep(0.05)
        assert text == "from inside\n"
        await server.kill()
        assert "refused" in await fetch(sandbox, "http://127.0.0.1:8000/page")


async def test_two_sandboxes_are_apart(workspace: Path) -> None:
    code = """
import socket, time
server = socket.create_server(("127.0.0.1", 8000))
print("up", flush=True)
time.sleep(60)
"""
    async with await opened(workspace, Network()) as one, await opened(workspace, Network()) as other:
        server = await one.spawn(["python", "-c", code])
        assert await server.read() == b"up\n"
        assert "refused" in await fetch(other, "http://127.0.0.1:8000/")


async def test_programs_get_no_powers_over_their_network(workspace: Path) -> None:
    code = """
import fcntl, json, os, socket, struct
found = {}
with socket.socket() as s:
    try:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0))  # SIOCSIFFLAGS: switch loopback off
        found["loopback"] = "switched off"
    except OSError as error:
        found["loopback"] = error.strerror
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
found["capabilities"] = [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")]
found["filter"] = int(status["Seccomp"])
found["descriptors"] = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2
                        and os.path.exists(f"/proc/self/fd/{n}")]
found["processes"] = len([name for name in os.listdir("/proc") if name.isdigit()])
found["namespaces"] = [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "user", "pid")]
print(json.dumps(found))
"""
    async with await opened(workspace, Network.only("example.org")) as sandbox:
        first, second = [json.loads(await python(sandbox, code)) for _ in range(2)]
    assert first["loopback"] == "Operation not permitted"
    assert first["capabilities"] == [0, 0, 0, 0, 0] and first["filter"] == 2
    assert [path for path in first["descriptors"] if "/fd" not in path] == []
    assert first["processes"] <= 3
    assert first["namespaces"][0] == second["namespaces"][0] != os.readlink("/proc/self/ns/net")
    assert first["namespaces"][1] != os.readlink("/proc/self/ns/user")
    assert first["namespaces"][2] != os.readlink("/proc/self/ns/pid")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def falls_to(count: int) -> bool:
    """Wait until no more descriptors are open than before; other threads close theirs when they get to it."""
    for _ in range(500):
        gc.collect()
        if descriptors() <= count:
            return True
        await anyio.sleep(0.01)
    return False


async def test_closing_ends_the_proxy_and_its_connections(workspace: Path, web: WebServer) -> None:
    network, gate = names(web)
    async with await opened(workspace, network, gate):
        pass  # What is made once per process (threads, event loops) is not counted.
    before = descriptors()
    sandbox = await opened(workspace, network, gate)
    held = await sandbox.spawn(["python", "-c", HOLD.replace("PORT", str(web.port))])
    assert await held.read() == b"HTTP/1.1 200"
    await sandbox.aclose()
    assert await falls_to(before)


HOLD = """
import os, socket, sys, time
s = socket.create_connection(("127.0.0.1", int(os.environ["http_proxy"].rpartition(":")[2])))
s.sendall(b"CONNECT good.test:PORT HTTP/1.1\\r\\nHost: good.test\\r\\n\\r\\n")
sys.stdout.write(s.recv(12).decode())
sys.stdout.flush()
time.sleep(60)
"""


async def test_a_forgotten_sandbox_leaves_no_proxy(workspace: Path) -> None:
    network = Network.only("example.org")
    async with await opened(workspace, network):
        pass
    before = descriptors()
    sandbox = await opened(workspace, network)
    sandbox._files.close()  # pyright: ignore[reportPrivateUsage]
    assert descriptors() > before
    del sandbox
    assert await falls_to(before)


@pytest.mark.parametrize("opener", ["bubblewrap", "landlock", "none", "memory"])
async def test_every_sandbox_has_a_gate_under_its_policy(
    workspace: Path, web: WebServer, opener: str
) -> None:
    network = Network(NetworkMode.ON, (f"127.0.0.1:{web.port}",))
    policy = Policy(str(workspace), network=network)
    if opener == "memory":
        sandbox: Sandbox = MemorySandbox(policy=policy)
    else:
        try:
            sandbox = await choose_sandbox(policy, opener)  # type: ignore[arg-type]
        except SandboxUnavailable as error:
            pytest.skip(str(error))
    async with sandbox:
        async with await sandbox.gate.connect("127.0.0.1", web.port):
            pass
        with pytest.raises(NetworkDenied):
            await sandbox.gate.connect("169.254.169.254", 80)


async def test_what_is_missing_is_said(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "bwrap").symlink_to(shutil.which("bwrap") or pytest.skip("bubblewrap is not installed"))
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(SandboxUnavailable, match="`nsenter` is not installed; install the"):
        await choose_sandbox(Policy(str(workspace)), "bubblewrap")


async def test_landlock_keeps_no_list_of_hosts(workspace: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"Landlock version|list of allowed hosts"):
        await choose_sandbox(Policy(str(workspace), network=Network.only("example.org")), "landlock")


async def test_without_a_cage_the_report_says_that_no_list_is_kept(workspace: Path) -> None:
    policy = Policy(str(workspace), network=Network.only("example.org"))
    async with await choose_sandbox(policy, "none") as sandbox:
        assert sandbox.report.guarantees["network"] is Enforcement.NONE
        assert "binds the runtime's own requests only" in sandbox.report.notes[1]
        with pytest.raises(NetworkDenied):
            await sandbox.gate.connect("example.com", 443)


async def test_nonsense_in_the_list_is_an_error_before_anything_starts(workspace: Path) -> None:
    for name in ("bubblewrap", "none"):
        with pytest.raises(SandboxError, match="https://example"):
            await choose_sandbox(Policy(str(workspace), network=Network.only("https://example.org")), name)  # type: ignore[arg-type]
