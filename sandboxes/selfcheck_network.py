"""The part of the self-check about the network."""

from __future__ import annotations

import anyio

from dsv4agent.sandboxes.scene import Scene


async def network_is_unreachable(scene: Scene) -> str:
    """Try all kinds of sockets against listeners of the host and an address outside."""
    code = f"""
import socket
def attempt(name, family, kind, *address):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            for part in address:
                s.sendto(b"x", part) if kind == socket.SOCK_DGRAM else s.connect(part)
            print("reached", name)
    except OSError:
        pass
attempt("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", {scene.tcp}))
attempt("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", {scene.tcp}))
attempt("foreign udp", socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53))
attempt("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\\0{scene.abstract}")
attempt("path", socket.AF_UNIX, socket.SOCK_STREAM, "{scene.socket_path}")
attempt("packet", 17, socket.SOCK_RAW)
attempt("vsock", 40, socket.SOCK_STREAM)
try:
    print("reached", socket.getaddrinfo("example.com", 80))
except OSError:
    pass
try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", ("127.0.0.1", {scene.udp.getsockname()[1]}))
except OSError:
    pass
"""
    done = await scene.python(code)
    if done.exit_code or done.stdout:
        return (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    await anyio.sleep(0.05)
    try:
        scene.udp.recv(1)
    except BlockingIOError:
        return ""
    return "a UDP packet arrived on 127.0.0.1"
