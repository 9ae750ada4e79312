from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.train_mini.pytest_text import UnsafeSource, run_tests

MODULE = """def helper(x):
    return x[0] + 1


def total(xs):
    s = 0
    for x in xs:
        s -= x
    return s


def first(xs):
    return helper(xs) + len(xs)
"""
TESTS = """import unittest

import pytest

from shop.cart import first, total


def test_total():
    assert total([]) == 0
    assert total([1, 2]) == 3


@pytest.mark.parametrize("xs, want", [([1], 1), ([2, 3], 5), ([], 0)])
def test_many(xs, want):
    print("seen", xs)
    assert total(xs) == want


@pytest.mark.parametrize("s, n", [("a", 1), ("b c", 2), ("a", 1)])
def test_labels(s, n):
    assert len(s) == n


def test_first():
    assert first([]) == 1


class TestGroup:
    def test_inside(self):
        result = {"a": total([1]), "b": [1, 2, 3]}
        assert result == {"a": 1, "b": [1, 2, 3]}


class CartCase(unittest.TestCase):
    def setUp(self):
        self.xs = [1, 2, 3]

    def test_sum(self):
        self.assertEqual(total(self.xs), 6)

    def test_raise(self):
        with self.assertRaises(ValueError):
            total(self.xs)


def test_raises():
    with pytest.raises(ValueError):
        total([3])


def test_approx():
    assert total([0.5]) == pytest.approx(0.5)


def test_text():
    assert "a\\nb\\nc" == "a\\nx\\nc", "not the same"


def test_chain():
    try:
        first([])
    except IndexError as error:
        raise ValueError("no first") from error
"""


def real(folder: Path, *flags: str) -> tuple[str, int]:
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("CI", "BUILD_NUMBER", "PYTEST_CURRENT_TEST", "COLUMNS")
    }
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", *flags, "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout, done.returncode


def plain(text: str) -> str:
    return re.sub(r"in \d+\.\d\ds", "in 0.00s", text)


@pytest.mark.parametrize(
    "old, new",
    [
        ("", ""),
        ("def total(xs):", "def total(xs:"),
        ("def total(xs):", "def sum_of(xs):"),
        ("def total(xs):", "LIMIT = [][1]\n\n\ndef total(xs):"),
    ],
    ids=["failures", "syntax error", "import error", "error at import"],
)
@pytest.mark.parametrize("flags", [(), ("-x",)], ids=["all", "first"])
def test_the_text_is_what_pytest_prints(tmp_path: Path, old: str, new: str, flags: tuple[str, ...]) -> None:
    files = {"shop/__init__.py": "", "shop/cart.py": MODULE.replace(old, new), "tests/test_cart.py": TESTS}
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    text, code = real(tmp_path, *flags)
    run = run_tests(files, str(tmp_path), fail_fast=bool(flags))
    assert plain(run.text) == plain(text)
    assert run.exit_code == code


def test_passing_runs_leave_no_modules_behind() -> None:
    files = {
        "shop/__init__.py": "",
        "shop/cart.py": MODULE.replace("s -= x", "s += x"),
        "test_a.py": "from shop.cart import total\n\n\ndef test_a():\n    assert total([2]) == 2\n",
    }
    run = run_tests(files, "/nowhere/demo", seconds="0.03")
    assert (run.exit_code, run.passed, run.exact) == (0, 1, True)
    assert run.text == "." + " " * 71 + " [100%]\n1 passed in 0.03s\n"
    assert "shop" not in sys.modules and "test_a" not in sys.modules
    assert not any(entry.startswith("/nowhere") for entry in sys.path)


def test_an_endless_loop_is_stopped() -> None:
    files = {"test_a.py": "def test_a():\n    while True:\n        pass\n"}
    run = run_tests(files, "/nowhere/demo", limit=0.05)
    assert run.timed_out and not run.exact


@pytest.mark.parametrize(
    "line", ["import subprocess", "import os; os.remove('x')", "open('x')", "from os import system"]
)
def test_code_that_reaches_the_machine_is_refused(line: str) -> None:
    with pytest.raises(UnsafeSource, match=r"test_a\.py"):
        run_tests({"test_a.py": line + "\n"}, "/nowhere/demo")


def test_addresses_make_a_text_inexact() -> None:
    module = "def wrap(key):\n    box = {}\n    box[key] = box\n    return box\n"
    tests = "from box import wrap\n\n\ndef test_wrap():\n    assert wrap('a') == {'b': 1}\n"
    run = run_tests({"box.py": module, "test_box.py": tests}, "/home/user/box")
    assert "<Recursion on dict with id=" in run.text
    assert run.exit_code == 1 and not run.exact


def test_abbreviated_addresses_make_a_text_inexact() -> None:
    module = "def pairs(n):\n    return {key: (item for item in ()) for key in range(n)}\n"
    tests = "from box import pairs\n\n\ndef test_pairs():\n    assert pairs(3) == [1]\n"
    run = run_tests({"box.py": module, "test_box.py": tests}, "/home/user/box")
    assert re.search(r"\.\.\.[0-9a-f]+>", run.text), run.text
    assert run.exit_code == 1 and not run.exact


def test_a_text_does_not_depend_on_earlier_runs() -> None:
    """After some calls the interpreter rewrites hot code, which then marks another place as the error's."""
    module = "def cut(a, b):\n    c = min(a, late)\n    late = 1\n    return c\n"
    tests = "from box import cut\n\n\ndef test_cut():\n    assert cut(1, 2) == 1\n"
    texts = {
        run_tests({"box.py": module, "test_box.py": tests}, "/home/user/box", seconds="0.01").text
        for _ in range(40)
    }
    assert len(texts) == 1
