"""Makes an empty network for one sandbox and hands it to the host process, then ends.

Run as a script by a bare interpreter: `python -I -S _network_namespace.py SOCKET LISTEN`. It enters a new
user and a new network namespace, switches the loopback device on, and sends descriptors of both namespaces,
and of a listener on a free port of 127.0.0.1 if LISTEN is 1, over the socket. Namespaces live as long as a
descriptor, so no process needs to stay.
"""

from __future__ import annotations

# Not `socket`, whose import takes as long as all the rest; a sandbox waits for this script when it opens.
import _socket
import ctypes
import fcntl
import os
import struct
import sys

# include/uapi/linux/sched.h, include/uapi/linux/sockios.h, include/uapi/linux/if.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_BACKLOG = 128


def main(arguments: list[str]) -> None:
    """Make the namespaces and send them."""
    _unshare()
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    descriptors = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("user", "net")]
    listener = _socket.socket()
    if arguments[1] == "1":
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        descriptors.append(listener.fileno())
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    host = _socket.socket(fileno=int(arguments[0]))
    host.sendmsg([b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])


def _unshare() -> None:
    """Leave the host's network; inside, this user keeps its own number and no other exists."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no user and network namespaces: {os.strerror(number)}")
    for name, text in (
        ("setgroups", "deny"),  # A condition for the map of groups.
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
