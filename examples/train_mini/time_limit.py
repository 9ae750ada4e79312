"""Stops pure Python code of this process after some CPU time."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Generator
from types import FrameType


class TimeLimitExceeded(BaseException):
    """Raised inside code that used up its time; not an `Exception`, so that ordinary handlers let it pass."""


def _stop(signum: int, frame: FrameType | None) -> None:
    # Python drops what a garbage-collector callback raises, with a warning; the timer fires again after it.
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks:
            return
        frame = frame.f_back
    raise TimeLimitExceeded


@contextlib.contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raise `TimeLimitExceeded` in the body after `seconds` of CPU time, and again if the body swallows it.

    Works in the main thread only; elsewhere the body runs without a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
