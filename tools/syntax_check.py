"""Parse checks after a write: they warn about errors that the edit brought in, and never block it."""

from __future__ import annotations

import json
import re
import tomllib
import warnings
from collections.abc import Callable


def new_syntax_error(path: str, before: str | None, after: str) -> str | None:
    """Return `SyntaxError at line N: message` if `after` does not parse but `before` did, or was None.

    Knows `.py`, `.json` and `.toml` by the file's name; every other file passes.
    """
    check = _CHECKS.get(path[path.rfind(".") :])
    if check is None:
        return None
    error = check(after)
    if error is None or (before is not None and check(before) is not None):
        return None
    line, message = error
    return f"SyntaxError at line {line}: {message}"


def _python_error(text: str) -> tuple[int, str] | None:
    try:
        with warnings.catch_warnings():
            # A warning about the code under edit is not ours to print or to raise.
            warnings.simplefilter("ignore")
            compile(text, "<file>", "exec", flags=0, dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 1, error.msg
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        return 1, str(error) or "too complex to parse"
    return None


def _json_error(text: str) -> tuple[int, str] | None:
    try:
        json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        return error.lineno, error.msg
    except ValueError as error:  # a number of too many digits
        return 1, str(error)
    except RecursionError:
        return 1, "too deeply nested"
    return None


def _toml_error(text: str) -> tuple[int, str] | None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        if where is None:
            return 1, str(error)
        line = int(where[1]) if where[1] else text.count("\n") + 1
        return line, str(error)[: where.start()]
    except ValueError as error:  # a number of too many digits
        return 1, str(error)
    except RecursionError:
        return 1, "too deeply nested"
    return None


_CHECKS: dict[str, Callable[[str], tuple[int, str] | None]] = {
    ".py": _python_error,
    ".pyi": _python_error,
    ".json": _json_error,
    ".toml": _toml_error,
}
