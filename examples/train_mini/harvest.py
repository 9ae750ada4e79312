"""Cuts pure functions out of installed Python source, with the small things that they need."""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from examples.train_mini.memory_import import unsafe_reason
from examples.train_mini.templates import plain_source, segment

MAX_LINES = 40
MAX_SLICE_LINES = 70
MAX_WIDTH = 100
LARGEST_FILE = 400_000
"""Bytes; larger ones hold tables."""
_BUILTINS = frozenset(dir(builtins))
_REFUSED_MODULES = frozenset(
    (
        "sys time random uuid io locale os pytest unittest csv contextlib copyreg weakref warnings abc types "
        "pprint"
    ).split()
)
_REFUSED_NAMES = frozenset("id hash object super setattr delattr dir property print".split())
_OS_PATH = frozenset("join split splitext basename dirname normpath sep commonprefix".split())


@dataclass(frozen=True)
class Candidate:
    """A function that may run on its own.

    Attributes:
        key: Qualified name, `module.function`.
        name: Function name.
        source: Needed constants and helpers, then the function; no annotations.
        imports: Import lines.
        others: Names of helper functions in `source`.
        original: The function as written, with annotations, for guessing types.
        standard: Whether it comes from the standard library.
    """

    key: str
    name: str
    source: str
    imports: tuple[str, ...]
    others: tuple[str, ...]
    original: str
    standard: bool


def source_files() -> list[tuple[str, str, bool]]:
    """Return (path, module name, is standard) of the standard library's and all installed packages' files."""
    paths = sysconfig.get_paths()
    standard = Path(paths["stdlib"])
    skip = {
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "site-packages",
        "turtledemo",
        "ensurepip",
        "tkinter",
        "distutils",
        "__pycache__",
    }
    files: list[tuple[str, str, bool]] = []
    for file in sorted(standard.rglob("*.py")):
        relative = file.relative_to(standard)
        if not skip & set(relative.parts) and not any("test" in part for part in relative.parts[:-1]):
            files.append((str(file), ".".join(relative.with_suffix("").parts), True))
    for base in sorted({paths["purelib"], paths["platlib"]}):
        for file in sorted(Path(base).rglob("*.py")):
            if not file.is_file() or file.stat().st_size > LARGEST_FILE:
                continue
            relative = file.relative_to(base)
            if not any("test" in part or part == "__pycache__" for part in relative.parts):
                files.append((str(file), ".".join(relative.with_suffix("").parts), False))
    return files


def candidates(path: str, module: str, standard: bool) -> Iterator[Candidate]:
    """Yield the functions of one file that can stand alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = Path(path).read_text(encoding="utf-8")
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    definitions, imports = _module_names(text, tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield from _candidate(text, node, definitions, imports, module, standard)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("__"):
                    yield from _free_method(
                        text, method, definitions, imports, f"{module}.{node.name}", standard
                    )


def _module_names(text: str, tree: ast.Module) -> tuple[dict[str, ast.stmt], dict[str, str]]:
    definitions: dict[str, ast.stmt] = {}
    imports: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            definitions[node.name] = node
        elif (
            isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        ):
            definitions[node.targets[0].id] = node
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname or "." not in alias.name:
                    imports[alias.asname or alias.name] = f"import {alias.name}" + (
                        f" as {alias.asname}" if alias.asname else ""
                    )
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                named = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
                imports[alias.asname or alias.name] = f"from {node.module} import {named}"
    return definitions, imports


def _free_method(
    text: str,
    method: ast.FunctionDef,
    definitions: Mapping[str, ast.stmt],
    imports: Mapping[str, str],
    module: str,
    standard: bool,
) -> Iterator[Candidate]:
    """Yield a method that does not use its object, as a function."""
    static = [d.id for d in method.decorator_list if isinstance(d, ast.Name)] == ["staticmethod"]
    if method.decorator_list and not static:
        return
    if not static:
        if not method.args.args or method.args.args[0].arg != "self":
            return
        if any(isinstance(n, ast.Name) and n.id == "self" for n in ast.walk(method)):
            return
    lines = segment(text, method).split("\n")
    lines[0] = lines[0].strip()
    if any(line.strip() and not line.startswith("    ") for line in lines[1:]):
        return
    dedented = "\n".join([lines[0], *(line[4:] for line in lines[1:])])
    if not static:
        dedented = re.sub(r"\(\s*self\s*(,\s*|\))", lambda m: "(" if m[1] != ")" else "()", dedented, count=1)
    try:
        node = ast.parse(dedented).body[0]
    except SyntaxError:
        return
    if isinstance(node, ast.FunctionDef):
        yield from _candidate(dedented, node, definitions, imports, module, standard, module_text=text)


def _candidate(
    text: str,
    node: ast.FunctionDef,
    definitions: Mapping[str, ast.stmt],
    imports: Mapping[str, str],
    module: str,
    standard: bool,
    *,
    module_text: str | None = None,
) -> Iterator[Candidate]:
    if node.decorator_list or node.name.startswith("__"):
        return
    original = segment(text, node)
    if not _acceptable(original, node):
        return
    needed: dict[str, ast.stmt] = {}
    lines: set[str] = set()
    waiting: list[ast.AST] = [node]
    own = {node.name}
    while waiting:
        current = waiting.pop()
        for name in _free_names(current):
            if name in own or name in needed or name in _BUILTINS:
                continue
            if name in imports:
                lines.add(imports[name])
            elif name in definitions and len(needed) < 4:
                needed[name] = definitions[name]
                waiting.append(definitions[name])
            else:
                return
    if any(line.split()[1].partition(".")[0] in _REFUSED_MODULES for line in lines if line != "import os"):
        return
    parts: list[str] = []
    whole = module_text or text
    for name in definitions:
        if name not in needed:
            continue
        dependency = needed[name]
        written = segment(whole, dependency)
        if isinstance(dependency, ast.Assign):
            if written.count("\n") > 6 or len(written) > 500 or not _simple_value(dependency.value):
                return
        elif isinstance(dependency, ast.FunctionDef):
            if not _acceptable(written, dependency) or dependency.decorator_list:
                return
        elif written.count("\n") > 12:
            return
        parts.append(written)
    parts.append(original)
    try:
        source = "\n\n\n".join(_trim(part) for part in parts)
        ast.parse(source)
    except (SyntaxError, ValueError, StopIteration):
        return
    if (
        source.count("\n") > MAX_SLICE_LINES
        or unsafe_reason("\n".join([*sorted(lines), source]), frozenset()) is not None
    ):
        return
    others = tuple(n for n in needed if isinstance(needed[n], ast.FunctionDef))
    yield Candidate(
        f"{module}.{node.name}", node.name, source, tuple(sorted(lines)), others, original, standard
    )


def _acceptable(source: str, node: ast.FunctionDef) -> bool:
    lines = source.split("\n")
    if not 2 <= len(lines) <= MAX_LINES + 30 or not source.isascii() or "\t" in source or "\x0c" in source:
        return False
    body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    if (
        not body
        or body[0].lineno == node.lineno
        or (len(body) == 1 and isinstance(body[0], (ast.Raise, ast.Pass)))
    ):
        return False
    code_lines = (node.end_lineno or 0) - body[0].lineno + 1
    if code_lines > MAX_LINES or max(map(len, lines)) > MAX_WIDTH:
        return False
    if not any(isinstance(n, (ast.Return, ast.Yield)) and n.value is not None for n in ast.walk(node)):
        return False
    for child in ast.walk(node):
        if isinstance(child, (ast.Await, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.AsyncFor)):
            return False
        if isinstance(child, ast.Name) and child.id in _REFUSED_NAMES:
            return False
        if (
            isinstance(child, ast.Attribute)
            and isinstance(child.value, ast.Name)
            and child.value.id in ("os", "sys")
        ):
            if child.attr not in ("path", "sep", "fspath"):
                return False
        if (
            isinstance(child, ast.Attribute)
            and isinstance(child.value, ast.Attribute)
            and child.value.attr == "path"
        ):
            if child.attr not in _OS_PATH:
                return False
    return len(node.args.args) + len(node.args.posonlyargs) >= 1 and len(node.args.args) <= 5


def _free_names(node: ast.AST) -> list[str]:
    """Return names read inside a definition that it does not bind itself, annotations left out."""
    bound: set[str] = set()
    read: dict[str, None] = {}
    stack: list[ast.AST] = [node]
    while stack:
        current = stack.pop()
        for field, value in ast.iter_fields(current):
            if field in ("annotation", "returns"):
                continue
            children = cast("list[object]", value) if isinstance(value, list) else [value]
            stack += [child for child in children if isinstance(child, ast.AST)]
        if isinstance(current, ast.Name):
            if isinstance(current.ctx, ast.Load):
                read.setdefault(current.id)
            else:
                bound.add(current.id)
        elif isinstance(current, ast.arg):
            bound.add(current.arg)
        elif isinstance(current, (ast.FunctionDef, ast.ClassDef)) and current is not node:
            bound.add(current.name)
        elif isinstance(current, ast.ExceptHandler) and current.name:
            bound.add(current.name)
    return [name for name in read if name not in bound]


def _simple_value(node: ast.expr) -> bool:
    allowed = (
        ast.Constant,
        ast.List,
        ast.Tuple,
        ast.Set,
        ast.Dict,
        ast.UnaryOp,
        ast.BinOp,
        ast.Call,
        ast.Attribute,
        ast.Name,
    )
    return isinstance(node, allowed)


def _trim(part: str) -> str:
    """Remove annotations, and cut docstrings to their first line."""
    node = ast.parse(part).body[0]
    if not isinstance(node, ast.FunctionDef):
        return part
    first = node.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        lines = part.split("\n")
        text = next((line.strip() for line in first.value.value.split("\n") if line.strip()), "")
        indent = " " * first.col_offset
        short = f'{indent}"""{text}"""'
        usable = (
            bool(text) and len(text) <= 88 and '"' not in text and "\\" not in text and len(node.body) > 1
        )
        start, end = first.lineno - 1, first.end_lineno or first.lineno
        lines[start:end] = [short] if usable else []
        while start + usable < len(lines) and not lines[start + usable].strip():
            del lines[start + usable]
        part = "\n".join(lines)
    part = plain_source(part, hints=False)
    return re.sub(r"\n{3,}", "\n\n", part)


def for_evaluation_only(key: str) -> bool:
    """Tell whether the hash of its name keeps a standard function out of training (15 % of them)."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < 0.15


def python_version() -> str:
    """Return `3.12` for the running Python."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
