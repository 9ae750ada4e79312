import errno
import platform
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4agent.sandboxes.seccomp import (
    _CALLS,  # pyright: ignore[reportPrivateUsage]
    _CONDITIONAL,  # pyright: ignore[reportPrivateUsage]
    _MODES,  # pyright: ignore[reportPrivateUsage]
    _MODES_WITH_FLAGS,  # pyright: ignore[reportPrivateUsage]
    _ON_A_PROCESS,  # pyright: ignore[reportPrivateUsage]
    _OTHER_PROCESSES,  # pyright: ignore[reportPrivateUsage]
    seccomp_filter,
)

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def answer(program: bytes, number: int, *arguments: int, machine: str = "x86_64") -> int:
    """Run a filter as the kernel does, on one system call."""
    data = struct.pack("<IIQ6Q", number, ARCHITECTURES[machine], 0, *(*arguments, *[0] * 6)[:6])
    accumulator, counter = 0, 0
    instructions = list(struct.iter_unpack("<HBBI", program))
    while True:
        code, if_true, if_false, value = instructions[counter]
        counter += 1
        if code == 0x06:
            return value
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[
                code
            ]
            counter += if_true if holds else if_false


def numbers(machine: str) -> dict[str, int]:
    return {
        name: number
        for name, pair in _CALLS.items()
        if (number := pair[0 if machine == "x86_64" else 1]) is not None
    }


def header_numbers() -> Iterator[tuple[str, str, int]]:
    for machine, path in (
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ):
        if Path(path).exists():
            for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(path).read_text()):
                yield machine, name, int(number)


def test_numbers_agree_with_the_headers_of_the_kernel() -> None:
    known = {(machine, name): number for machine, name, number in header_numbers()}
    if not known:
        pytest.skip("no kernel headers on this machine")
    checked = 0
    for machine in {machine for machine, _ in known}:
        for name, number in numbers(machine).items():
            if (machine, name) in known:
                assert known[machine, name] == number, (machine, name)
                checked += 1
    assert checked > 30


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("sockets", "own_pids"), [(True, True), (False, False)])
def test_every_listed_call_is_refused(machine: str, sockets: bool, own_pids: bool) -> None:
    program = seccomp_filter(sockets=sockets, own_pid_namespace=own_pids, machine=machine)
    assert len(program) // 8 < 4096  # the kernel's limit
    conditional = _CONDITIONAL - {"clone3"}
    for name, number in numbers(machine).items():
        if name not in conditional:
            expected = ALLOW if own_pids and name in _OTHER_PROCESSES else ERRNO
            assert answer(program, number, machine=machine) & 0xFFFF0000 == expected, name
    for harmless in (0, 1, 300, 439, 5000):
        if harmless not in numbers(machine).values():
            assert answer(program, harmless, machine=machine) == ALLOW


def test_missing_calls_look_missing_so_that_programs_fall_back() -> None:
    program = seccomp_filter(sockets=False, own_pid_namespace=False, machine="x86_64")
    for name in ("clone3", "io_uring_setup"):
        assert answer(program, numbers("x86_64")[name]) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_sockets(machine: str) -> None:
    calls = numbers(machine)
    closed = seccomp_filter(sockets=False, own_pid_namespace=False, machine=machine)
    for family in range(46):
        assert answer(closed, calls["socket"], family, 1, machine=machine) == ERRNO | errno.EPERM
    assert answer(closed, calls["connect"], machine=machine) == ERRNO | errno.EPERM
    assert answer(closed, calls["socketpair"], 1, 1 | 0o2000000, machine=machine) == ALLOW
    assert answer(closed, calls["socketpair"], 1, 5, machine=machine) == ALLOW
    # A raw pair of Unix sockets is a datagram pair, which can be pointed at another address.
    for kind in (2, 3, 4, 10):
        pair = answer(closed, calls["socketpair"], 1, kind | 0o2000000, machine=machine)
        assert pair == ERRNO | errno.EPERM
    assert answer(closed, calls["socketpair"], 30, 5, machine=machine) == ERRNO | errno.EPERM
    opened = seccomp_filter(sockets=True, own_pid_namespace=True, machine=machine)
    allowed = {
        family for family in range(46) if answer(opened, calls["socket"], family, 1, machine=machine) == ALLOW
    }
    assert allowed == {1, 2, 10, 16}
    assert answer(opened, calls["connect"], machine=machine) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_clone_makes_threads_and_processes_but_no_namespaces(machine: str) -> None:
    program = seccomp_filter(sockets=True, own_pid_namespace=True, machine=machine)
    clone = numbers(machine)["clone"]
    assert answer(program, clone, 0x003D0F00, machine=machine) == ALLOW  # a thread, as glibc makes it
    assert answer(program, clone, 0x01200011, machine=machine) == ALLOW  # fork
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(program, clone, 17 | flag, machine=machine) == ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_no_file_gets_the_set_user_id_bit(machine: str) -> None:
    program = seccomp_filter(sockets=True, own_pid_namespace=True, machine=machine)
    calls = numbers(machine)
    for name, place in (_MODES | _MODES_WITH_FLAGS).items():
        if name not in calls:
            continue
        arguments = [0, 0, 0, 0]
        if name in _MODES_WITH_FLAGS:
            arguments[place] = 0o4755  # what lies there by chance, for a file that is not made
            assert answer(program, calls[name], *arguments, machine=machine) == ALLOW
            arguments[place - 1] = 0o101
        refused = ERRNO | errno.EPERM
        for mode, expected in ((0o4755, refused), (0o104644, refused), (0o2775, ALLOW)):
            arguments[place] = mode
            assert answer(program, calls[name], *arguments, machine=machine) == expected, name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_other_processes_keep_their_limits_and_priorities(machine: str) -> None:
    calls = numbers(machine)
    shared = seccomp_filter(sockets=False, own_pid_namespace=False, machine=machine)
    own = seccomp_filter(sockets=True, own_pid_namespace=True, machine=machine)
    for name, itself in _ON_A_PROCESS.items():
        arguments = [0, 0]
        for place, value in itself:
            arguments[place] = value
        assert answer(shared, calls[name], *arguments, machine=machine) == ALLOW, name
        arguments[itself[-1][0]] = 4242
        assert answer(shared, calls[name], *arguments, machine=machine) == ERRNO | errno.EPERM, name
        assert answer(own, calls[name], *arguments, machine=machine) == ALLOW, name


def test_terminals_cannot_be_typed_into() -> None:
    program = seccomp_filter(sockets=True, own_pid_namespace=True, machine="x86_64")
    assert answer(program, 16, 0, 0x5412) == ERRNO | errno.EPERM
    assert answer(program, 16, 0, 0x541C) == ERRNO | errno.EPERM
    assert answer(program, 16, 0, 0x5401) == ALLOW


def test_other_machines_and_call_tables_are_killed() -> None:
    program = seccomp_filter(sockets=True, own_pid_namespace=True, machine="x86_64")
    assert answer(program, 1, machine="aarch64") == KILL
    assert answer(program, 0x40000000 | 1) == KILL


def test_unknown_machines_are_an_error() -> None:
    with pytest.raises(NotImplementedError, match="riscv64"):
        seccomp_filter(sockets=True, own_pid_namespace=True, machine="riscv64")


def test_this_machine_is_known() -> None:
    machine = platform.machine()
    assert seccomp_filter(sockets=True, own_pid_namespace=True) == seccomp_filter(
        sockets=True, own_pid_namespace=True, machine=machine
    )
