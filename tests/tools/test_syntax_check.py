import pytest

from dsv4agent.tools.syntax_check import new_syntax_error


@pytest.mark.parametrize(
    ("path", "after", "warning"),
    [
        ("a.py", "x = (\n", "SyntaxError at line 1: '(' was never closed"),
        (
            "a.py",
            "def f():\n    pass\n  x\n",
            "SyntaxError at line 3: unindent does not match any outer indentation level",
        ),
        ("a.py", "return 1\n", "SyntaxError at line 1: 'return' outside function"),
        ("a.json", '{"a": 1,\n}', "SyntaxError at line 2: Expecting property name enclosed in double quotes"),
        ("a.toml", "a = 1\nb =\n", "SyntaxError at line 2: Invalid value"),
        ("a.toml", "a = 1\nb = 2\na = 3\n", "SyntaxError at line 3: Cannot overwrite a value"),
        ("a.json", "[" * 100_000, "SyntaxError at line 1: too deeply nested"),
    ],
)
def test_new_errors_are_reported(path: str, after: str, warning: str) -> None:
    assert new_syntax_error(path, None, after) == warning


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("a.py", "x = 1\n"),
        ("a.py", "x = '\\d'\n"),  # warns when compiled, and runs
        ("a.json", "{}"),
        ("a.json", "\ufeff{}"),
        ("a.toml", "[a]\n"),
        ("a.txt", "x = ("),
        ("Makefile", "x = ("),
    ],
)
def test_valid_and_unknown_files_pass(path: str, after: str) -> None:
    assert new_syntax_error(path, "", after) is None


def test_an_old_error_is_not_held_against_the_edit() -> None:
    assert new_syntax_error("a.py", "x = (\n", "y = (\n") is None


def test_nul_and_deep_nesting_do_not_raise() -> None:
    assert new_syntax_error("a.py", None, "x = '\0'") is not None
    assert new_syntax_error("a.py", None, "(" * 10_000) is not None


@pytest.mark.parametrize(("path", "text"), [("a.json", "1" * 5000), ("a.toml", "a = " + "1" * 5000)])
def test_numbers_of_too_many_digits_do_not_raise(path: str, text: str) -> None:
    warning = new_syntax_error(path, None, text)
    assert warning is not None
    assert "limit" in warning
