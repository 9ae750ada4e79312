"""The one network of a sandbox: its programs share a loopback device and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from dsv4agent.sandboxes.errors import SandboxUnavailable

_MAKER = Path(__file__).with_name("_network_namespace.py").read_text(encoding="utf-8")
# Both as they are now: they may lie in a workspace, whose programs could change what runs outside later.
_PYTHON = os.path.realpath(sys.executable)
_PATIENCE = 10.0
"""Seconds that making the namespaces may take."""


class NetworkNamespace:
    """Holds a user and a network namespace open, by descriptors of this process alone.

    Attributes:
        listener: A listening socket inside, on 127.0.0.1, for a proxy served from outside; None unless asked
            for.
    """

    def __init__(self, user: int, net: int, listener: socket.socket | None) -> None:
        self._user, self._net = user, net
        self.listener = listener
        # Also when it is forgotten: a namespace without descriptors and processes is gone.
        self._release = weakref.finalize(self, _close, (user, net), listener)

    @classmethod
    def open(cls, *, listen: bool) -> Self:
        """Make both namespaces in a short-lived process.

        Args:
            listen: Whether to make a listener.

        Raises:
            SandboxUnavailable: The kernel refuses, or `nsenter` is missing.
        """
        if shutil.which("nsenter") is None:
            raise SandboxUnavailable("`nsenter` is not installed")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.settimeout(_PATIENCE)
            argv = [_PYTHON, "-I", "-S", "-c", _MAKER, str(theirs.fileno()), str(int(listen))]
            maker = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={},
                cwd="/",
                pass_fds=(theirs.fileno(),),
            )
            theirs.close()
            try:
                descriptors = _receive(ours)
            except TimeoutError:
                maker.kill()
                descriptors = []
            said = maker.communicate()[1].decode("utf-8", "replace").strip()
        if len(descriptors) != 2 + listen:
            reason = said.rpartition("\n")[2] or "the helper said nothing"
            raise SandboxUnavailable(f"no network namespace could be made: {reason}")
        return cls(descriptors[0], descriptors[1], socket.socket(fileno=descriptors[2]) if listen else None)

    def entered(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return the command line that runs `argv` inside.

        The namespaces are named by our entries in /proc instead of being inherited, so that the program gets
        no descriptor of them.
        """
        ours = f"/proc/{os.getpid()}/fd"
        enter = ("nsenter", f"--user={ours}/{self._user}", f"--net={ours}/{self._net}")
        return (*enter, "--preserve-credentials", "--", *argv)

    def close(self) -> None:
        """Let go of the namespaces; running programs keep theirs."""
        self._release()


def _receive(connection: socket.socket) -> list[int]:
    # Not `socket.recv_fds`, which cannot close the descriptors on exec from the very start.
    _, messages, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(3 * 4), socket.MSG_CMSG_CLOEXEC)
    received: list[int] = []
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received += memoryview(data).cast("i").tolist()
    return received


def _close(descriptors: tuple[int, int], listener: socket.socket | None) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    if listener is not None:
        listener.close()
