"""The CPU time limit under which candidate programs run."""

from __future__ import annotations

import gc
import time

import pytest

from examples.train_mini.time_limit import TimeLimitExceeded, time_limit


def spin(seconds: float) -> None:
    """Use `seconds` of CPU time in Python code."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_code_within_its_limit_ends_by_itself() -> None:
    with time_limit(5.0):
        spin(0.01)


def test_code_over_its_limit_is_stopped() -> None:
    with pytest.raises(TimeLimitExceeded), time_limit(0.05):
        spin(30.0)


def test_a_swallowed_limit_is_raised_again() -> None:
    with pytest.raises(TimeLimitExceeded), time_limit(0.05):
        try:
            spin(30.0)
        except BaseException:
            spin(30.0)


def test_a_garbage_collector_callback_runs_to_its_end() -> None:
    finished: list[str] = []

    def callback(phase: str, info: dict[str, int]) -> None:
        spin(0.3)
        finished.append(phase)

    gc.callbacks.append(callback)
    try:
        with pytest.raises(TimeLimitExceeded), time_limit(0.05):
            gc.collect()
            spin(30.0)
    finally:
        gc.callbacks.remove(callback)
    assert finished[:2] == ["start", "stop"]
