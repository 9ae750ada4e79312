"""Reads function and class templates from typed Python modules: annotations say what inputs to draw.

A template module holds ordinary functions and classes whose parameters are annotated with `kinds`. Its
source is taken as text, so formatting and idiom stay as written; annotations are removed or turned into
plain type hints.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import Any, get_args, get_type_hints

from examples.train_mini.kinds import INT, WORD, Char, Draw, related
from examples.train_mini.renaming import (
    draw_function_name,
    draw_names,
    local_bindings,
    random_class_name,
    rename,
)
from examples.train_mini.subjects import Subject, literal


@dataclass(frozen=True)
class Template:
    """One function or class as written, with the names it needs.

    Attributes:
        key: `module.name`.
        name: The public name.
        plain: Source of helpers and the definition without annotations.
        hinted: The same with plain type hints.
        imports: Import lines.
        propose: Draws (setup, expression).
        others: Names of helpers in `plain`.
    """

    key: str
    name: str
    plain: str
    hinted: str
    imports: Sequence[str]
    propose: Callable[[Random], tuple[Sequence[str], str]]
    others: Sequence[str]
    is_class: bool

    def subject(self, rng: Random, *, vary: bool = True) -> Subject:
        """Return the template as a subject, with other names, constants and docstrings if `vary`."""
        source = self.hinted if rng.random() < 0.25 else self.plain
        subject = Subject(self.key, self.name, source, self.imports, self.propose, self.others)
        if not vary:
            return subject
        source = vary_docstrings(source, rng)
        if rng.random() < 0.3:
            source = vary_constants(source, rng)
        names: dict[str, str] = {}
        for public in (self.name, *self.others):
            if self.is_class and public == self.name:
                names[public] = random_class_name(rng) if rng.random() < 0.4 else public
            else:
                names[public] = draw_function_name(public.lstrip("_"), rng)
        if len(set(names.values())) < len(names):
            names = {}
        names |= draw_names([n for n in local_bindings(ast.parse(source)) if n not in names], rng)
        renamed = rename(source, names)
        # A name that could not be replaced safely must stay in the tests as well.
        kept = {old: new for old, new in names.items() if re.search(rf"(?:def|class) {new}\b", renamed)}
        return subject.renamed(renamed, kept)


@functools.cache
def templates_of(package: str) -> tuple[Template, ...]:
    """Return all templates of a package's modules, in the order of their text."""
    found: list[Template] = []
    root = importlib.import_module(package)
    for info in sorted(pkgutil.iter_modules(root.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package}.{info.name}")
        found += _templates_of_module(module, f"{package.rpartition('.')[2]}.{info.name}")
    return tuple(found)


def _templates_of_module(module: ModuleType, key: str) -> list[Template]:
    source = inspect.getsource(module)
    tree = ast.parse(source)
    definitions: dict[str, ast.stmt] = {}
    imports: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = ast.unparse(node.value)
            if value.startswith("Annotated["):
                _BASES[node.targets[0].id] = _hint(node.value)
            else:
                definitions[node.targets[0].id] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("examples", "__future__", "typing")
            ):
                continue
            for alias in node.names:
                text = segment(source, node)
                if isinstance(node, ast.ImportFrom) and len(node.names) > 1:
                    text = f"from {node.module} import {alias.name}"
                imports[alias.asname or alias.name] = text
    templates: list[Template] = []
    for name, node in definitions.items():
        if name.startswith("_") or isinstance(node, ast.Assign):
            continue
        needed = _needed(node, definitions)
        nodes = [definitions[n] for n in definitions if n in needed]
        used = {x.id for n in nodes for x in ast.walk(n) if isinstance(x, ast.Name)}
        used -= {"choice", "between"}
        templates.append(
            Template(
                key=f"{key}.{name}",
                name=name,
                plain=_join(source, nodes, hints=False),
                hinted=_join(source, nodes, hints=True),
                imports=sorted({text for n, text in imports.items() if n in used}),
                propose=_proposal(getattr(module, name), name),
                others=[
                    n
                    for n in needed
                    if n != name and isinstance(definitions[n], (ast.FunctionDef, ast.ClassDef))
                ],
                is_class=isinstance(node, ast.ClassDef),
            )
        )
    return templates


def _needed(node: ast.stmt, definitions: dict[str, ast.stmt]) -> set[str]:
    """Return the module-level names that a definition uses, itself included, through all calls."""
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
    needed, waiting = {node.name}, [node]
    while waiting:
        for child in ast.walk(waiting.pop()):
            if isinstance(child, ast.Name) and child.id in definitions and child.id not in needed:
                needed.add(child.id)
                waiting.append(definitions[child.id])  # type: ignore[arg-type]  # pyright: ignore
    return needed


def _join(source: str, nodes: Sequence[ast.stmt], *, hints: bool) -> str:
    parts: list[str] = []
    for node in nodes:
        text = segment(source, node)
        parts.append(text if isinstance(node, ast.Assign) else plain_source(text, hints=hints))
    return "\n\n\n".join(parts)


def segment(source: str, node: ast.stmt) -> str:
    """Return the lines of a statement that begins at column 0."""
    return "\n".join(_lines(source)[node.lineno - 1 : node.end_lineno])


@functools.lru_cache(maxsize=4)
def _lines(source: str) -> list[str]:
    return source.split("\n")


def plain_source(text: str, *, hints: bool) -> str:
    """Remove annotations, or turn kinds into plain hints; everything else stays as written."""
    tree = ast.parse(text)
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            indent = " " * node.col_offset
            arguments = _arguments(node.args, hints=hints)
            returns = f" -> {_hint(node.returns)}" if hints and node.returns is not None else ""
            header = f"{indent}def {node.name}({arguments}){returns}:"
            end = node.body[0].lineno - 2
            if end < node.lineno - 1:
                raise ValueError(f"the body of {node.name} stands on the line of its header")
            while not lines[end].rstrip().endswith(":") and end > node.lineno - 1:
                end -= 1
            lines[node.lineno - 1] = header
            for i in range(node.lineno, end + 1):
                lines[i] = "\0"
        elif isinstance(node, ast.AnnAssign):
            i = node.lineno - 1
            target = lines[i][: node.annotation.col_offset].rstrip().removesuffix(":")
            rest = lines[i][node.annotation.end_col_offset or 0 :]
            lines[i] = target + rest
    return "\n".join(line for line in lines if line != "\0")


_BASES = {
    "Int": "int", "Digit": "int", "Count": "int", "Positive": "int", "Big": "int", "Year": "int",
    "Month": "int", "Percent": "int",
    "Ints": "list[int]", "SomeInts": "list[int]", "Naturals": "list[int]", "SortedInts": "list[int]",
    "Amounts": "list[float]",
    "Amount": "float", "Words": "list[str]", "SomeWords": "list[str]", "Names": "list[str]", "Name": "str",
    "Word": "str",
    "Text": "str", "Sentence": "str", "Lines": "str", "Char": "str", "Sign": "str", "Bits": "str",
    "Table": "dict[str, int]",
    "Rows": "list[list[int]]", "Groups": "list[list[int]]", "Square": "list[list[int]]",
    "Pairs": "list[tuple[int, int]]",
    "Items": "list[tuple[str, int]]", "Flag": "bool", "Maybe": "int | None", "Flags": "list[bool]",
}  # fmt: skip


def _hint(node: ast.expr) -> str:
    text = ast.unparse(node)
    if text.startswith("Annotated["):
        assert isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple)
        return ast.unparse(node.slice.elts[0])
    return _BASES.get(text, text)


def _arguments(arguments: ast.arguments, *, hints: bool) -> str:
    positional = arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True)]
    shown = [_argument(argument, default, hints=hints) for argument, default in pairs]
    if arguments.vararg is not None:
        shown.append("*" + _argument(arguments.vararg, None, hints=hints))
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [
        _argument(a, d, hints=hints) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return ", ".join(shown)


def _argument(argument: ast.arg, default: ast.expr | None, *, hints: bool) -> str:
    hint = f": {_hint(argument.annotation)}" if hints and argument.annotation is not None else ""
    if default is None:
        return argument.arg + hint
    value = ast.unparse(default).replace("'", '"')
    return f"{argument.arg}{hint} = {value}" if hint else f"{argument.arg}={value}"


def _draws(function: Callable[..., Any]) -> list[tuple[Draw, bool]]:
    """Return (draw, has a default) for each parameter but `self`."""
    hints = get_type_hints(function, include_extras=True)
    draws: list[tuple[Draw, bool]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self":
            continue
        metadata = getattr(hints.get(name), "__metadata__", ())
        draw = next((m for m in metadata if isinstance(m, Draw)), None)
        if draw is None:
            raise TypeError(f"{function.__qualname__}: annotate parameter {name} with a kind of input")
        draws.append((draw, parameter.default is not inspect.Parameter.empty))
    return draws


def _spoken(draws: Sequence[tuple[Draw, bool]], rng: Random) -> str:
    values: list[object] = []
    for draw, optional in draws:
        if optional and rng.random() < 0.4:
            break
        value = draw.value(rng)
        values.append(related(value, values, rng) if draw in (INT, WORD) or _is_char(draw) else value)
    return ", ".join(map(literal, values))


def _is_char(draw: Draw) -> bool:
    return draw is get_args(Char)[1]


def _proposal(target: Any, name: str) -> Callable[[Random], tuple[Sequence[str], str]]:
    if inspect.isfunction(target):
        draws = _draws(target)
        return lambda rng: ((), f"{name}({_spoken(draws, rng)})")
    return _class_proposal(target, name)


def _class_proposal(cls: type, name: str) -> Callable[[Random], tuple[Sequence[str], str]]:
    """Tests of a class call some methods and then look at one result."""
    made = _draws(cls.__init__) if "__init__" in vars(cls) else []
    methods = {n: f for n, f in vars(cls).items() if inspect.isfunction(f) and not n.startswith("_")}
    draws = {n: _draws(f) for n, f in methods.items()}
    changing = [n for n, f in methods.items() if get_type_hints(f).get("return") is type(None)]
    telling = [n for n in methods if n not in changing]
    variable = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()

    def propose(rng: Random) -> tuple[Sequence[str], str]:
        setup = [f"{variable} = {name}({_spoken(made, rng)})"]
        for _ in range(rng.randint(0 if made else 1, 4)):
            pool = changing if changing and rng.random() < 0.8 else telling
            method = rng.choice(pool)
            setup.append(f"{variable}.{method}({_spoken(draws[method], rng)})")
        told = rng.choice(telling)
        return setup, f"{variable}.{told}({_spoken(draws[told], rng)})"

    return propose


def vary_docstrings(source: str, rng: Random) -> str:
    """Change the look of one-line docstrings, or leave them out."""
    style = rng.random()
    if style < 0.3:
        return source
    out: list[str] = []
    lines = source.split("\n")
    for i, line in enumerate(lines):
        match = re.fullmatch(r'(\s+)"""(.*)"""', line)
        if match is None:
            out.append(line)
            continue
        indent, text = match[1], match[2]
        if text.rstrip(".").endswith(('"', "\\")):
            out.append(line)
            continue
        alone = i + 1 == len(lines) or not lines[i + 1].startswith(indent.rstrip("\n") or " ")
        if style < 0.55 and not alone:
            continue
        if style < 0.65:
            text = text.rstrip(".")
        elif style < 0.72:
            text = text[0].lower() + text[1:].rstrip(".")
        elif style < 0.8:
            out += [f'{indent}"""', indent + text, f'{indent}"""']
            continue
        elif style < 0.86 and not alone:
            out.append(f"{indent}# {text.rstrip('.')}")
            continue
        elif style < 0.92:
            text = text.replace("`", "")
        out.append(f'{indent}"""{text}"""')
    return "\n".join(out)


def vary_constants(source: str, rng: Random) -> str:
    """Change some integers above 2, the same way wherever they stand."""
    numbers = sorted({n for n in re.findall(r"(?<![\w.\"'%])\d+(?![\w.\"'])", source) if int(n) > 2}, key=int)
    changes: dict[str, str] = {}
    for number in numbers:
        value = int(number)
        if rng.random() < 0.6 and value < 10**5:
            changed = (
                value + rng.choice((-1, 1, 2, 3, 5, 10, rng.randint(1, max(2, value))))
                if value > 3
                else rng.randint(3, 9)
            )
            if str(changed) not in numbers and str(changed) not in changes.values():
                changes[number] = str(changed)
    if not changes:
        return source
    return re.sub(r"(?<![\w.\"'%])\d+(?![\w.\"'])", lambda m: changes.get(m[0], m[0]), source)
