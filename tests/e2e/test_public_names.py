from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

import dsv4agent


@pytest.mark.parametrize("name", [name for name in dsv4agent.__all__ if name != "__version__"])
def test_every_exported_name_exists_and_is_documented(name: str) -> None:
    value = getattr(dsv4agent, name)
    if name == "Event":
        assert all(kind.__doc__ and kind.__name__ in dsv4agent.__all__ for kind in get_args(value))
        return
    assert value.__doc__
    for member, function in vars(value).items() if isinstance(value, type) else ():
        if callable(function) and not member.startswith("_") and function.__module__.startswith("dsv4agent"):
            assert function.__doc__, f"{name}.{member}"


def test_all_is_sorted_and_complete() -> None:
    assert sorted(dsv4agent.__all__) == dir(dsv4agent)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = dsv4agent.nothing_here


def test_the_facade_loads_neither_torch_nor_itself_early() -> None:
    code = (
        "import sys, dsv4agent; early = [m for m in sys.modules if m.startswith('dsv4agent.')]; "
        "dsv4agent.Agent, dsv4agent.Session; print(early, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] False"
