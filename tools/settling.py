"""Letting work that should not stay half-done come to its end although its caller was cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.lowlevel

Result = TypeVar("Result")


async def settle(work: Callable[[], Awaitable[Result]], seconds: float) -> Result:
    """Do the work; a cancellation from outside reaches it only `seconds` later.

    Work that ends within that time is not cancelled: its result is returned, or its exception raised.
    """
    results: list[Result] = []
    failures: list[Exception] = []
    async with anyio.create_task_group() as group:
        with anyio.CancelScope(shield=True) as scope:

            async def notice() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    scope.deadline = anyio.current_time() + seconds

            group.start_soon(notice)
            try:
                results.append(await work())
            except Exception as failure:  # Kept out of the group, which would wrap it.
                failures.append(failure)
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    if not results:
        await anyio.lowlevel.checkpoint_if_cancelled()
        raise AssertionError("only a cancellation ends the work before its end")
    return results[0]
