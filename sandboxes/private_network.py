"""The network of one confined sandbox: a namespace and, with an allow list, the proxy on its edge."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Self

import anyio
import anyio.to_thread

from dsv4agent.sandboxes.gate import Gate
from dsv4agent.sandboxes.network_namespace import NetworkNamespace
from dsv4agent.sandboxes.protocol import NetworkMode
from dsv4agent.sandboxes.proxy import Proxy

_PATIENCE = 2.0
"""Seconds that closing waits for the proxy's connections to end."""
_NO_PROXY = "localhost,127.0.0.1,::1"


class PrivateNetwork:
    """What all programs of a sandbox share instead of the host's network.

    Attributes:
        environment: Variables that lead programs to the proxy.
    """

    def __init__(self, namespace: NetworkNamespace, proxy: ProxyThread | None, proxy_url: str) -> None:
        self._namespace = namespace
        self._proxy = proxy
        self.environment: Mapping[str, str] = _proxy_variables(proxy_url) if proxy_url else {}

    @classmethod
    async def open(cls, gate: Gate) -> Self:
        """Make the namespace, and start the proxy if the gate's policy is an allow list.

        Raises:
            SandboxUnavailable: No namespace can be made.
        """
        listen = gate.network.mode is NetworkMode.ALLOW_LIST
        namespace = await anyio.to_thread.run_sync(lambda: NetworkNamespace.open(listen=listen))
        if namespace.listener is None:
            return cls(namespace, None, "")
        port: int = namespace.listener.getsockname()[1]
        return cls(namespace, ProxyThread(gate, namespace.listener.dup()), f"http://127.0.0.1:{port}")

    def entered(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return the command line that runs `argv` in this network."""
        return self._namespace.entered(argv)

    def close(self) -> None:
        """Cut all connections."""
        if self._proxy is not None:
            self._proxy.close()
        self._namespace.close()


class ProxyThread:
    """Serves a proxy in a thread with an event loop of its own, until it is closed or forgotten.

    A sandbox has no task group, and its programs must get out also while the loop that made it is busy.
    """

    def __init__(self, gate: Gate, listener: socket.socket) -> None:
        stopped, stop = os.pipe()
        self._ended = threading.Event()
        self._stop = weakref.finalize(self, os.close, stop)
        arguments = (gate, listener, stopped, self._ended)
        # A daemon: at the interpreter's end nobody waits for connections.
        threading.Thread(target=_serve, args=arguments, name="sandbox proxy", daemon=True).start()

    def close(self) -> None:
        """End the proxy and its connections."""
        self._stop()
        self._ended.wait(_PATIENCE)


def _serve(gate: Gate, listener: socket.socket, stopped: int, ended: threading.Event) -> None:
    async def serve() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(Proxy(gate).serve, listener)
            # Readable at its end: when the other descriptor is closed.
            await anyio.wait_readable(stopped)
            group.cancel_scope.cancel()
        # Before the loop's own end, which waits for lookups that nobody can cancel.
        listener.close()
        ended.set()

    try:
        anyio.run(serve)
    finally:
        listener.close()
        os.close(stopped)
        ended.set()


def _proxy_variables(url: str) -> dict[str, str]:
    names = {"HTTP_PROXY": url, "HTTPS_PROXY": url, "ALL_PROXY": url, "NO_PROXY": _NO_PROXY}
    return names | {name.lower(): value for name, value in names.items()}
