"""A system-call filter, assembled by hand as classic BPF for x86_64 and aarch64.

Everything is allowed but what opens a way around the cage: other namespaces, mounts, kernel interfaces,
other processes' memory, and (where no network namespace stands) sockets.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable

# include/uapi/linux/filter.h, bpf_common.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
# include/uapi/linux/seccomp.h
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
# offsets in struct seccomp_data
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_FAMILIES = {"unix": 1, "inet": 2, "inet6": 10, "netlink": 16}
_SOCK_TYPE_MASK, _SOCK_STREAM, _SOCK_SEQPACKET = 0xF, 1, 5
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NAMESPACE_FLAGS = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

# Names with their numbers on x86_64 and on aarch64; None where the machine has no such call.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "ioctl": (16, 29),
    "clone3": (435, 435),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "creat": (85, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
}
# Where a file's mode stands among the arguments.
_MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1, "mknod": 1, "mknodat": 2}
# The same for calls that take it only if their flags, the argument before, ask for a new file.
_MODES_WITH_FLAGS = {"open": 2, "openat": 3}
_NEW_FILE = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE
_SET_USER_ID = 0o4000
# Objects of System V and POSIX queues belong to a namespace and outlive the processes that use them.
_SHARED_OBJECTS = frozenset(
    {"shmget", "shmat", "shmctl", "msgget", "msgsnd", "msgrcv", "msgctl"}
    | {"semget", "semop", "semctl", "semtimedop", "mq_open", "mq_unlink"}
)
# By name the arguments, and their values, with which a process speaks of itself.
_ON_A_PROCESS: dict[str, tuple[tuple[int, int], ...]] = {
    "prlimit64": ((0, 0),),
    "setpriority": ((0, 0), (1, 0)),
    "ioprio_set": ((0, 1), (1, 0)),
    "sched_setaffinity": ((0, 0),),
    "sched_setscheduler": ((0, 0),),
    "sched_setparam": ((0, 0),),
    "sched_setattr": ((0, 0),),
    "migrate_pages": ((0, 0),),
    "move_pages": ((0, 0),),
}
_CONDITIONAL = frozenset(
    {"socket", "connect", "socketpair", "clone", "ioctl", "clone3"}
    | _MODES.keys()
    | _MODES_WITH_FLAGS.keys()
    | _ON_A_PROCESS.keys()
)
_OTHER_PROCESSES = _SHARED_OBJECTS | {
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "kcmp",
}
# Programs that find these missing fall back to older calls; a refusal would make them give up.
# (`openat2` has the mode of a new file in memory, where a filter cannot look.)
_MISSING = frozenset({"io_uring_setup", "io_uring_enter", "io_uring_register", "openat2"})


def seccomp_filter(*, sockets: bool, own_pid_namespace: bool, machine: str | None = None) -> bytes:
    """Return the filter as an array of `struct sock_filter`.

    Args:
        sockets: Allow local and internet sockets. False leaves connected pairs only, for cages that share
            the host's network namespace.
        own_pid_namespace: Allow debugging, limits and priorities of other processes and shared System V
            objects, which then reach the cage's own only; its IPC namespace must be its own too.
        machine: `x86_64` or `aarch64`; this machine by default.

    Raises:
        NotImplementedError: No numbers are known for the machine.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        raise NotImplementedError(f"no system-call numbers for {machine}; use x86_64 or aarch64")
    column = 0 if machine == "x86_64" else 1
    numbers = {name: pair[column] for name, pair in _CALLS.items()}
    refuse = _return(_ERRNO | errno.EPERM)
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, _AUDIT_ARCHITECTURE[machine], 1, 0),
        _return(_KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _return(_KILL_PROCESS)]
    for name, number in numbers.items():
        if number is None or name in _CONDITIONAL or (own_pid_namespace and name in _OTHER_PROCESSES):
            continue
        program += _on(number, [_return(_ERRNO | errno.ENOSYS) if name in _MISSING else refuse])
    # The flags of clone3 lie in memory, where a filter cannot look; libc falls back to clone.
    program += _on(numbers["clone3"], [_return(_ERRNO | errno.ENOSYS)])
    program += _on(
        numbers["clone"],
        [_load_argument(0), _instruction(_JUMP_ANY_BIT, _NAMESPACE_FLAGS, 0, 1), refuse, _return(_ALLOW)],
    )
    # A program that acts as its owner would hand this user's rights to whoever starts it outside.
    for name, argument in (_MODES | _MODES_WITH_FLAGS).items():
        if numbers[name] is None:
            continue
        has_mode: list[bytes] = []
        if name in _MODES_WITH_FLAGS:
            new = _instruction(_JUMP_ANY_BIT, _NEW_FILE, 1, 0)
            has_mode = [_load_argument(argument - 1), new, _return(_ALLOW)]
        forbidden = [_load_argument(argument), _instruction(_JUMP_ANY_BIT, _SET_USER_ID, 0, 1), refuse]
        program += _on(numbers[name], [*has_mode, *forbidden, _return(_ALLOW)])
    if not own_pid_namespace:
        for name, itself in _ON_A_PROCESS.items():
            body: list[bytes] = []
            for argument, value in itself:
                body += [_load_argument(argument), _instruction(_JUMP_EQUAL, value, 1, 0), refuse]
            program += _on(numbers[name], [*body, _return(_ALLOW)])
    program += _on(numbers["ioctl"], _refuse_values(1, (_TIOCSTI, _TIOCLINUX), refuse))
    if sockets:
        program += _on(numbers["socket"], _allow_values(0, _FAMILIES.values(), refuse))
    else:
        program += _on(numbers["socket"], [refuse])
        program += _on(numbers["connect"], [refuse])
        # A datagram pair could still be pointed at another address; a raw one is a datagram pair by another
        # name.
        kind = [_load_argument(1), _instruction(_AND, _SOCK_TYPE_MASK)]
        for allowed in (_SOCK_STREAM, _SOCK_SEQPACKET):
            kind += [_instruction(_JUMP_EQUAL, allowed, 0, 1), _return(_ALLOW)]
        unix = [_load_argument(0), _instruction(_JUMP_EQUAL, _FAMILIES["unix"], 1, 0), refuse]
        program += _on(numbers["socketpair"], [*unix, *kind, refuse])
    return b"".join([*program, _return(_ALLOW)])


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _return(action: int) -> bytes:
    return _instruction(_RETURN, action)


def _load_argument(index: int) -> bytes:
    """Load the low half of an argument; both machines are little-endian."""
    return _instruction(_LOAD, _ARGUMENTS + 8 * index)


def _on(number: int | None, body: list[bytes]) -> list[bytes]:
    """Run `body`, which must return on every path, for one system call."""
    assert number is not None
    return [_instruction(_JUMP_EQUAL, number, 0, len(body)), *body]


def _allow_values(argument: int, values: Iterable[int], otherwise: bytes) -> list[bytes]:
    tests = [part for value in values for part in (_instruction(_JUMP_EQUAL, value, 0, 1), _return(_ALLOW))]
    return [_load_argument(argument), *tests, otherwise]


def _refuse_values(argument: int, values: Iterable[int], refuse: bytes) -> list[bytes]:
    tests = [part for value in values for part in (_instruction(_JUMP_EQUAL, value, 0, 1), refuse)]
    return [_load_argument(argument), *tests, _return(_ALLOW)]
