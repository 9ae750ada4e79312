"""Programs that attack: shell, Python and C, with the host's addresses handed to them as variables."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache

# Attackers in Python get the C library, bare system calls, and `quietly`, which goes on after a refusal.
_PRELUDE = """
import ctypes, errno, mmap, os, signal, socket, struct, subprocess, sys, threading, time
from os import environ as T
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p
class Refused(OSError): pass
def syscall(number, *arguments):
    long = lambda a: ctypes.c_long(a) if isinstance(a, int) else a
    result = libc.syscall(ctypes.c_long(number), *map(long, arguments))
    if result < 0:
        raise Refused(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def quietly(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
def put(path, data=b"x", flags=os.O_WRONLY | os.O_CREAT):
    os.write(os.open(path, flags, 0o666), data)
def show(path):
    os.write(1, open(path, "rb").read(1 << 20))
def wait():
    print("ready", flush=True)
    time.sleep(30)
"""


@dataclass(frozen=True)
class Program:
    """A program by language (`sh`, `python` or `c`) and source."""

    language: str
    source: str

    def argv(self) -> list[str]:
        """Return the command line that starts it; C must be compiled and brought in first."""
        if self.language == "sh":
            return ["bash", "-c", self.source]
        assert self.language == "python", "C programs have no command line before they are compiled"
        return [sys.executable, "-I", "-S", "-c", _PRELUDE + self.source]


def sh(source: str) -> Program:
    """Return a bash script."""
    return Program("sh", source)


def py(source: str) -> Program:
    """Return a Python program, with `libc`, `syscall`, `quietly`, `put`, `show`, `wait` and `T` at hand."""
    return Program("python", source)


def c(source: str) -> Program:
    """Return a C program."""
    return Program("c", source)


@cache
def compiled(source: str, *options: str) -> bytes:
    """Return what gcc makes of a C source, outside, before the attack begins."""
    with tempfile.TemporaryDirectory(prefix="dsv4agent-attack-") as folder:
        result = os.path.join(folder, "program")
        command = ["gcc", "-O1", "-w", "-x", "c", "-", "-o", result, "-lpthread", *options]
        subprocess.run(command, input=source.encode(), check=True, capture_output=True)
        with open(result, "rb") as file:
            return file.read()
