"""Starts a program under Landlock and seccomp, and outlives it just long enough to kill what it left behind.

Run by a bare interpreter with the arguments CONFIG PROGRAM [ARGUMENT...]. The outer process adopts orphans
(child subreaper), so that a daemon cannot leave the tree; the inner one confines itself and becomes the
program. CONFIG is the number of a descriptor of marshalled data from the same Python, or, from elsewhere, a
JSON object: `cwd`; `landlock` (null, or `read`, `write`, `devices`: lists of paths, and `network`); `seccomp`
(null, or the filter, in base64 within JSON); `environment` (an object, or null for this process's own).

Every command waits for this, so it imports little: `typing` or `json` alone take longer than all the rest.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import signal
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# System-call numbers of Landlock are the same on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

# include/uapi/linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = 1 << 8, 1 << 9, 1 << 10, 1 << 11
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = 1 << 12, 1 << 13, 1 << 14, 1 << 15
_NET_BIND_TCP, _NET_CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1 << 0, 1 << 1

_READ = EXECUTE | READ_FILE | READ_DIR
_WRITE = (
    WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
)
_DEVICE = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV
_FOR_FILES = EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV

# include/uapi/linux/prctl.h, capability.h
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_SECCOMP = 1, 24, 22
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAPSET = {"x86_64": 126, "aarch64": 91}
_LAST_CAPABILITY = 63

_FAILED = 125
_libc = ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """Return the version of Landlock that the kernel offers, 0 if none."""
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(version, 0)


def restrict_with_landlock(rules: dict[str, Any]) -> None:
    """Confine this thread to the rules, as far as this kernel's version goes.

    Raises:
        OSError: The kernel refused.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError("the kernel offers no Landlock")
    handled = (1 << 13) - 1
    for version, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= version:
            handled |= right
    attributes = [handled]
    if abi >= 4:
        attributes.append(0 if rules["network"] else _NET_BIND_TCP | _NET_CONNECT_TCP)
    if abi >= 6:
        attributes.append(_SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = _check(_libc.syscall(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0))
    try:
        for kind, rights in (("read", _READ), ("write", _READ | _WRITE), ("devices", _DEVICE)):
            for path in rules[kind]:
                _allow_beneath(ruleset, path, rights & handled)
        _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow_beneath(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # What is not there needs no permission.
    try:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            rights &= _FOR_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        _check(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(descriptor)


def drop_capabilities() -> None:
    """Give up all capabilities, as a user namespace would: root is then an ordinary owner of files."""
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(
            _PR_CAPBSET_DROP, capability, 0, 0, 0
        )  # Fails for an ordinary user, who has none to drop.
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.syscall(_CAPSET[os.uname().machine], header, bytes(24)))


def install_seccomp(program: bytes) -> None:
    """Install a filter made of `struct sock_filter`s.

    Raises:
        OSError: The kernel refused.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0))


def _become(config: dict[str, Any], argv: list[str], supervisor: int) -> NoReturn:
    """Confine this process and turn it into the program."""
    try:
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        if os.getppid() != supervisor:
            os._exit(_FAILED)
        os.chdir(config["cwd"])
        if config["landlock"] is not None:
            _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
            restrict_with_landlock(config["landlock"])
            drop_capabilities()
        if config["seccomp"] is not None:
            install_seccomp(config["seccomp"])
        # The interpreter ignores these; an ignored signal would stay ignored in the program.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        environment = config.get("environment")
        os.execvpe(argv[0], argv, os.environ if environment is None else environment)
    except OSError as error:
        os.write(2, f"launcher: {argv[0]}: {error}\n".encode())
    os._exit(127)


def _new_process_group() -> int:
    """Return a group for the program and all it starts, so that one signal reaches them and not this process.

    Its leader is a process that ends at once: the program must not lead it, or it could not open a session.
    """
    leader = os.fork()
    if leader == 0:
        os._exit(0)
    os.setpgid(leader, leader)  # Possible until it is waited for.
    return leader


def _supervise(child: int) -> NoReturn:
    """Wait for the program, kill what it left, and end as it ended."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)  # The pipes belong to the program alone, so that their ends can be seen.
    status = 0
    while True:
        pid, ended = os.wait()
        if pid == child:
            status = ended
            break
    _kill_children()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _kill_children() -> None:
    """Kill until no child is left; killing a child makes its children ours."""
    while True:
        for child in _children():
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def _children() -> list[int]:
    me = os.getpid()
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == me:
                found.append(int(name))
    return found


def _end(*_: object) -> NoReturn:
    _kill_children()
    os._exit(128 + signal.SIGTERM)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _configuration(text: str) -> dict[str, Any]:
    if text.isdigit():
        with open(int(text), "rb") as file:
            return marshal.load(file)
    import base64
    import json

    config: dict[str, Any] = json.loads(text)
    if config["seccomp"] is not None:
        config["seccomp"] = base64.b64decode(config["seccomp"])
    return config


def main(arguments: list[str]) -> NoReturn:
    """Start the program named by the arguments."""
    config = _configuration(arguments[0])
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    signal.signal(signal.SIGTERM, _end)
    # If the host process dies, this one is told to clean up.
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0))
    me = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    group = _new_process_group()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _become(config, arguments[1:], me)
    os.close(wait)
    os.setpgid(child, group)  # The child waits for its parent to have done this.
    os.close(go)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _supervise(child)


if __name__ == "__main__":
    main(sys.argv[1:])
