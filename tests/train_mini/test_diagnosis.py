from __future__ import annotations

import pytest

from examples.train_mini.diagnosis import diagnosis


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    if x < limit:", "    if x <= limit:", "Change `< limit` to `<= limit`."),
        ("    return a - b", "    return b - a", "Change `return a - b` to `return b - a`."),
        ("    total = 0", "    total = 1", "Change `= 0` to `= 1`."),
        ("    x", "    return x", "Change `x` to `return x`."),
        ("    i = 1\n    return x[i]", "    i = 1\n    return x[i - 1]", "Change `i]` to `i - 1]`."),
    ],
)
def test_says_the_smallest_change_with_its_neighbours(old: str, new: str, said: str) -> None:
    assert diagnosis(old, new) == said
