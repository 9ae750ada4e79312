"""Failures of a sandbox itself. What a model can act on is an `OSError` or a value instead.

SandboxError
├── SandboxUnavailable   raised when no provider, or not the one asked for, works on this machine
├── SandboxClosed        raised when a sandbox is used after `aclose`
├── SandboxCrashed       raised when a process of the sandbox machinery died or spoke nonsense
└── ProgramsUnsupported  raised when a sandbox that holds only files is asked to run a program
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of all failures of a sandbox."""


class SandboxUnavailable(SandboxError):
    """Raised when no provider, or not the one asked for, works here; says what to install or switch on."""


class SandboxClosed(SandboxError):
    """Raised when a sandbox is used after `aclose`."""


class SandboxCrashed(SandboxError):
    """Raised when a process of the sandbox machinery died or spoke nonsense."""


class ProgramsUnsupported(SandboxError):
    """Raised when a sandbox that holds only files is asked to run a program."""
