"""What the exit code of the command means, and which error leads to which."""

from __future__ import annotations

import signal
from enum import IntEnum

from dsv4agent.encoding import ProtocolError
from dsv4agent.errors import (
    BackendError,
    CheckpointMismatch,
    Dsv4agentError,
    ModelNotFound,
    SessionError,
    UsageError,
)
from dsv4agent.sandboxes import SandboxError, SandboxUnavailable
from dsv4agent.transcript import StopReason


class ExitCode(IntEnum):
    """Exit codes; the session is stored and can be resumed after all of 1, 6, 7 and 130."""

    OK = 0
    NOT_FINISHED = 1
    USAGE = 2
    SANDBOX_UNAVAILABLE = 3
    MODEL = 4
    SESSION = 5
    RUN_FAILED = 6
    CHECK_FAILED = 7
    INTERRUPTED = 128 + signal.SIGINT


def code_of_error(error: Exception) -> ExitCode:
    """Return the exit code for an error that ends the command."""
    match error:
        case SandboxUnavailable():
            return ExitCode.SANDBOX_UNAVAILABLE
        case ModelNotFound() | CheckpointMismatch() | BackendError() | ProtocolError():
            return ExitCode.MODEL
        case SessionError():
            return ExitCode.SESSION
        case UsageError():
            return ExitCode.USAGE
        case _:
            return ExitCode.RUN_FAILED


def code_of_stop(reason: StopReason) -> ExitCode:
    """Return the exit code for the way a run ended."""
    match reason:
        case StopReason.FINISHED:
            return ExitCode.OK
        case StopReason.INTERRUPTED:
            return ExitCode.INTERRUPTED
        case StopReason.ERROR:
            return ExitCode.RUN_FAILED
        case _:
            return ExitCode.NOT_FINISHED


KNOWN_ERRORS: tuple[type[Exception], ...] = (Dsv4agentError, SandboxError, ProtocolError)
"""Errors whose message is all that a user needs."""
