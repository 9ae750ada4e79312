"""Errors out of task groups."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast


@contextmanager
def single_error() -> Generator[None]:
    """Let an error that comes alone out of a task group come as itself.

    A task group wraps even one error into a group; who runs a session or a command expects the error.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        if (error := _alone(group)) is None:
            raise
        raise error from error.__cause__


def _alone(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    inner = list(group.exceptions)
    if len(inner) > 1:
        return None
    if isinstance(inner[0], BaseExceptionGroup):
        return _alone(cast("BaseExceptionGroup[BaseException]", inner[0]))
    return inner[0]
