"""Imports Python modules from files that exist only in memory, and forgets them again."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from types import CodeType, ModuleType

Compile = Callable[[str, str], CodeType]
"""From absolute path and source text to a module's code."""


class MemoryImporter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules under one absolute folder, whose files are given as a mapping from relative path to text.

    Args:
        root: Absolute folder that the files claim to lie in; nothing needs to exist there.
        files: Texts by path relative to `root`.
        compile_module: Compiles a module; it may keep its results.
    """

    def __init__(self, root: str, files: Mapping[str, str], compile_module: Compile) -> None:
        self._root = root
        self._files = files
        self._folders = {path[:i] for path in files for i, sign in enumerate(path) if sign == "/"}
        self._compile = compile_module
        self.loaded: list[str] = []

    @contextlib.contextmanager
    def active(self, path: Sequence[str]) -> Generator[None]:
        """Serve imports from `path` entries below the root; on leaving, drop what was loaded meanwhile."""
        saved = list(sys.path)
        sys.path[:0] = path
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            sys.path[:] = saved
            for name in self.loaded:
                sys.modules.pop(name, None)
            self.loaded.clear()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for a module or (namespace) package among the files."""
        tail = fullname.rpartition(".")[2]
        prefix = self._root + "/"
        for entry in sys.path if path is None else path:
            if entry != self._root and not entry.startswith(prefix):
                continue
            base = (entry + "/" + tail)[len(prefix) :]
            for relative, package in ((base + "/__init__.py", True), (base + ".py", False)):
                if relative in self._files:
                    origin = prefix + relative
                    spec = importlib.machinery.ModuleSpec(fullname, self, origin=origin, is_package=package)
                    spec.has_location = True
                    if package:
                        spec.submodule_search_locations = [prefix + base]
                    return spec
            if base in self._folders:
                spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
                spec.submodule_search_locations = [prefix + base]
                self.loaded.append(fullname)
                return spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in its namespace."""
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        self.loaded.append(spec.name)
        code = self._compile(spec.origin, self._files[spec.origin[len(self._root) + 1 :]])
        exec(_unused(code), module.__dict__)

    def get_source(self, fullname: str) -> str | None:
        """Return the text of a loaded module (what `linecache` asks)."""
        module = sys.modules.get(fullname)
        origin = getattr(module, "__file__", None)
        return None if origin is None else self._files.get(origin[len(self._root) + 1 :])


def _unused(code: CodeType) -> CodeType:
    """Copy code with all the code in it.

    An interpreter rewrites the instructions of code that runs often, and then marks another place as that of
    an error: what a run prints would depend on what had been run before.
    """
    inner = tuple(_unused(value) if isinstance(value, CodeType) else value for value in code.co_consts)
    return code.replace(co_consts=inner)


_FORBIDDEN_NAMES = frozenset(
    (
        "open exec eval compile __import__ input breakpoint exit quit globals locals vars help memoryview "
        "__builtins__ __loader__ __spec__"
    ).split()
)
_ALLOWED_MODULES = frozenset(
    (
        "__future__ abc array ast base64 binascii bisect calendar cmath collections colorsys "
        "contextlib copy copyreg csv dataclasses datetime decimal difflib enum fnmatch fractions "
        "functools graphlib hashlib heapq html io itertools json keyword linecache locale math "
        "numbers operator posixpath ntpath pprint pytest quopri random re reprlib string stringprep "
        "struct statistics sys textwrap token tokenize types typing unicodedata unittest urllib.parse "
        "uuid warnings weakref zlib typing_extensions os os.path"
    ).split()
)
_FORBIDDEN_ATTRIBUTES = frozenset(
    (
        "__globals__ __subclasses__ __code__ __builtins__ __loader__ __import__ f_globals f_back gi_frame "
        "meta_path path_hooks"
    ).split()
)
_ALLOWED_ATTRIBUTES = {
    "os": frozenset("path sep fspath linesep pathsep curdir pardir extsep".split()),
    "sys": frozenset("path maxsize version_info byteorder maxunicode float_info int_info".split()),
    "io": frozenset("StringIO BytesIO".split()),
}
"""What of these modules may be used; the rest acts on the machine."""


def unsafe_reason(source: str, own_modules: frozenset[str]) -> str | None:
    """Say why running `source` inside this process could touch more than memory, or return None.

    A filter for honest generated code, not a sandbox: imports outside a short list of pure modules,
    builtins that reach
    files or other frames,
    and attributes of `os` and `sys` that act on the machine are refused. Source that does not parse
    is harmless.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if node.level == 0 else []
            allowed = _ALLOWED_ATTRIBUTES.get(node.module or "")
            if (
                allowed is not None
                and node.level == 0
                and not all(alias.name in allowed for alias in node.names)
            ):
                return f"imports parts of {node.module}"
        elif isinstance(node, ast.Name):
            if node.id in _FORBIDDEN_NAMES and isinstance(node.ctx, ast.Load):
                return f"uses {node.id}"
            continue
        elif isinstance(node, ast.Attribute):
            if node.attr in _FORBIDDEN_ATTRIBUTES:
                return f"uses .{node.attr}"
            if isinstance(node.value, ast.Name) and node.attr not in _ALLOWED_ATTRIBUTES.get(
                node.value.id, {node.attr}
            ):
                return f"uses {node.value.id}.{node.attr}"
            continue
        else:
            continue
        for name in names:
            if name not in _ALLOWED_MODULES and name.partition(".")[0] not in own_modules | {"collections"}:
                return f"imports {name}"
    return None
