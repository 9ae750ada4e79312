"""One-line bugs of a function, found by the position of syntax nodes so that the formatting stays as written.

The operator tables are symmetric: if a line can become another, the other can become the first. So the
mutants of a buggy function contain, for most bugs, the repair itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from examples.train_mini.mutation_tables import (
    ARITHMETIC,
    ARITHMETIC_TEXT,
    COMPARISON,
    COMPARISON_TEXT,
    MEMBERSHIP,
    METHODS,
    NAMES_OF_CALLS,
)
from examples.train_mini.mutation_values import numbers_near, strings_near


class Family(StrEnum):
    """The kind of a one-line bug."""

    COMPARISON = "comparison"
    ARITHMETIC = "arithmetic"
    BOOLEAN = "boolean"
    OFF_BY_ONE = "off_by_one"
    SWAPPED_ARGUMENTS = "swapped_arguments"
    VARIABLE = "variable"
    INVERTED = "inverted"
    CONSTANT = "constant"
    MISSING_RETURN = "missing_return"
    METHOD = "method"
    INDEX = "index"


@dataclass(frozen=True)
class Mutant:
    """One changed line; `line` counts from 0."""

    family: Family
    line: int
    old_line: str
    new_line: str

    def apply(self, source: str) -> str:
        """Return `source` with the line replaced."""
        lines = source.split("\n")
        lines[self.line] = self.new_line
        return "\n".join(lines)


def mutants(source: str) -> list[Mutant]:
    """Return every one-line mutant of `source` (a module or function at column 0), without duplicates.

    Docstrings, annotations, decorators and the insides of f-strings stay as they are. The order depends on
    `source` alone. Source that does not parse has no mutants.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    found: dict[tuple[int, str], Mutant] = {}
    for mutant in _Finder(source, tree).find():
        found.setdefault((mutant.line, mutant.new_line), mutant)
    return list(found.values())


def local_names(function: ast.AST) -> list[str]:
    """Return parameters and assigned names inside `function` in order, without `self` and `_`."""
    names: dict[str, None] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            names.setdefault(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id)
    return [name for name in names if name not in ("self", "cls", "_")]


@dataclass(frozen=True)
class _Span:
    """A part of one line, in characters."""

    line: int
    start: int
    end: int


class _Finder:
    """Walks the tree once and yields mutants node by node."""

    def __init__(self, source: str, tree: ast.Module) -> None:
        self.lines = source.split("\n")
        self.tree = tree
        self.parents: dict[ast.AST, ast.AST] = {}
        self.names: Sequence[str] = ()
        self.attributes: Sequence[str] = ()

    def find(self) -> Iterator[Mutant]:
        self.attributes = sorted(
            {
                node.attr
                for node in ast.walk(self.tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
                and isinstance(node.ctx, ast.Store)
            }
        )
        for statement in self.tree.body:
            yield from self._visit(statement)

    def _visit(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            outer, self.names = self.names, local_names(node)
            for default in [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]:
                self.parents[default] = node
                yield from self._visit(default)
            for child in _without_docstring(node.body):
                self.parents[child] = node
                yield from self._visit(child)
            self.names = outer
            return
        if isinstance(node, ast.ClassDef):
            for child in _without_docstring(node.body):
                self.parents[child] = node
                yield from self._visit(child)
            return
        yield from self._mutate(node)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            values = cast("list[object]", value) if isinstance(value, list) else [value]
            children = [child for child in values if isinstance(child, ast.AST)]
            for child in children:
                self.parents[child] = node
                yield from self._visit(child)

    def _mutate(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare():
                yield from self._compare(node)
            case ast.BinOp():
                yield from self._binary(node)
            case ast.AugAssign():
                yield from self._augmented(node)
            case ast.Assign():
                yield from self._assign(node)
            case ast.BoolOp():
                yield from self._boolean(node)
            case ast.UnaryOp():
                yield from self._unary(node)
            case ast.If() | ast.While():
                yield from self._negate(node.test)
            case ast.IfExp():
                yield from self._negate(node.test)
                yield from self._swap(Family.INVERTED, node.body, node.orelse)
            case ast.comprehension():
                for test in node.ifs:
                    yield from self._negate(test)
            case ast.Constant():
                yield from self._constant(node)
            case ast.Call():
                yield from self._call(node)
            case ast.Subscript():
                yield from self._subscript(node)
            case ast.Return():
                yield from self._return(node)
            case ast.Expr():
                yield from self._expression(node)
            case ast.Name():
                yield from self._name(node)
            case ast.Attribute():
                yield from self._attribute(node)
            case ast.Tuple():
                if len(node.elts) == 2:
                    yield from self._swap(Family.SWAPPED_ARGUMENTS, node.elts[0], node.elts[1])
            case ast.DictComp():
                yield from self._swap(Family.SWAPPED_ARGUMENTS, node.key, node.value)
            case ast.Break():
                yield from self._replace(Family.INVERTED, self._span(node), ["continue", "pass"])
            case ast.Continue():
                yield from self._replace(Family.INVERTED, self._span(node), ["break", "pass"])
            case _:
                pass

    # Text of nodes

    def _span(self, node: ast.expr | ast.stmt) -> _Span | None:
        """Where `node` stands; None if it takes several lines or non-ASCII ones (columns are bytes)."""
        if node.end_col_offset is None or node.lineno != node.end_lineno:
            return None
        if not self.lines[node.lineno - 1].isascii():
            return None
        return _Span(node.lineno - 1, node.col_offset, node.end_col_offset)

    def _text(self, node: ast.expr | ast.stmt) -> str | None:
        span = self._span(node)
        return None if span is None else self.lines[span.line][span.start : span.end]

    def _between(self, left: ast.expr, right: ast.expr, operator: str) -> _Span | None:
        a, b = self._span(left), self._span(right)
        if a is None or b is None or a.line != b.line:
            return None
        at = self.lines[a.line].find(operator, a.end, b.start)
        return None if at < 0 else _Span(a.line, at, at + len(operator))

    def _replace(self, family: Family, span: _Span | None, texts: Sequence[str]) -> Iterator[Mutant]:
        if span is None:
            return
        line = self.lines[span.line]
        for text in texts:
            new = line[: span.start] + text + line[span.end :]
            if new != line and new.strip():
                yield Mutant(family, span.line, line, new)

    def _swap(self, family: Family, first: ast.expr, second: ast.expr) -> Iterator[Mutant]:
        a, b = self._span(first), self._span(second)
        if a is None or b is None or a.line != b.line or a.end > b.start:
            return
        line = self.lines[a.line]
        swapped = line[b.start : b.end] + line[a.end : b.start] + line[a.start : a.end]
        yield from self._replace(family, _Span(a.line, a.start, b.end), [swapped])

    # Operators

    def _compare(self, node: ast.Compare) -> Iterator[Mutant]:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            text = COMPARISON_TEXT[type(operator)]
            span = self._between(left, right, text)
            if text in COMPARISON:
                yield from self._replace(Family.COMPARISON, span, COMPARISON[text])
            else:
                yield from self._replace(Family.INVERTED, span, MEMBERSHIP[text])
            for side in (left, right):
                if isinstance(side, (ast.Name, ast.Attribute, ast.Call)) and text in "<= >= < >":
                    yield from self._one_more(Family.OFF_BY_ONE, side)
            left = right

    def _binary(self, node: ast.BinOp) -> Iterator[Mutant]:
        text = ARITHMETIC_TEXT.get(type(node.op))
        if text is None:
            return
        yield from self._replace(
            Family.ARITHMETIC, self._between(node.left, node.right, text), ARITHMETIC[text]
        )
        if text in ("-", "//", "/", "%", "**", "<<", ">>") or (text == "+" and not _is_number(node.right)):
            yield from self._swap(Family.SWAPPED_ARGUMENTS, node.left, node.right)
        if text in "+-" and isinstance(node.right, ast.Constant) and node.right.value == 1:
            left = self._text(node.left)
            if left is not None:
                family = Family.INDEX if self._in_subscript(node) else Family.OFF_BY_ONE
                yield from self._replace(family, self._span(node), [left])

    def _augmented(self, node: ast.AugAssign) -> Iterator[Mutant]:
        text = ARITHMETIC_TEXT.get(type(node.op))
        if text is None:
            return
        span = self._between(node.target, node.value, text + "=")
        yield from self._replace(Family.ARITHMETIC, span, [*(other + "=" for other in ARITHMETIC[text]), "="])

    def _assign(self, node: ast.Assign) -> Iterator[Mutant]:
        target = node.targets[0]
        if (
            isinstance(target, ast.Name)
            and self._in_loop(node)
            and not isinstance(node.value, (ast.List, ast.Dict))
        ):
            yield from self._replace(Family.ARITHMETIC, self._between(target, node.value, "="), ["+=", "-="])
        if isinstance(target, ast.Subscript):
            yield from self._swap(Family.SWAPPED_ARGUMENTS, target.slice, node.value)

    def _boolean(self, node: ast.BoolOp) -> Iterator[Mutant]:
        text, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from self._replace(Family.BOOLEAN, self._between(left, right, text), [other])
        for value in node.values:
            if isinstance(value, (ast.Name, ast.Call, ast.Attribute)):
                yield from self._negate(value, Family.BOOLEAN)

    def _unary(self, node: ast.UnaryOp) -> Iterator[Mutant]:
        operand = self._text(node.operand)
        if operand is None:
            return
        if isinstance(node.op, ast.Not):
            yield from self._replace(Family.INVERTED, self._span(node), [operand])
        elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            yield from self._replace(Family.ARITHMETIC, self._span(node), [operand])

    def _negate(self, test: ast.expr, family: Family = Family.INVERTED) -> Iterator[Mutant]:
        text = self._text(test)
        if text is None or isinstance(test, ast.UnaryOp):
            return
        bare = isinstance(test, (ast.Name, ast.Call, ast.Attribute, ast.Subscript))
        yield from self._replace(family, self._span(test), [f"not {text}" if bare else f"not ({text})"])

    # Values

    def _constant(self, node: ast.Constant) -> Iterator[Mutant]:
        value, text, span = node.value, self._text(node), self._span(node)
        if text is None or isinstance(self.parents.get(node), ast.Expr):
            return
        if value is True or value is False:
            yield from self._replace(Family.CONSTANT, span, [str(not value), "None"])
        elif value is None:
            parent = self.parents.get(node)
            if isinstance(parent, ast.Compare) and isinstance(parent.ops[0], (ast.Is, ast.IsNot)):
                return
            yield from self._replace(Family.CONSTANT, span, ["0", "False", "[]"])
        elif isinstance(value, int) and text == str(value):
            yield from self._replace(self._family_of_number(node), span, numbers_near(value))
        elif isinstance(value, float):
            yield from self._replace(
                Family.CONSTANT, span, [repr(value + 1), repr(value * 10), repr(value / 2)]
            )
        elif isinstance(value, str) and text[0] in "\"'" and not text.startswith(('"""', "'''")):
            quote = text[0]
            if "\\" not in text:
                yield from self._replace(
                    Family.CONSTANT,
                    span,
                    [quote + new + quote for new in strings_near(value) if quote not in new],
                )

    def _family_of_number(self, node: ast.Constant) -> Family:
        if self._in_subscript(node):
            return Family.INDEX
        parent = self.parents.get(node)
        in_range = (
            isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "range"
        )
        if in_range or (
            isinstance(parent, ast.BinOp)
            and node.value in (0, 1, 2)
            and isinstance(parent.op, (ast.Add, ast.Sub))
        ):
            return Family.OFF_BY_ONE
        return Family.CONSTANT

    def _in_subscript(self, node: ast.AST) -> bool:
        parent = self.parents.get(node)
        while isinstance(parent, (ast.UnaryOp, ast.Slice, ast.BinOp)):
            node, parent = parent, self.parents.get(parent)
        return isinstance(parent, ast.Subscript) and parent.slice is node

    def _in_loop(self, node: ast.AST) -> bool:
        parent = self.parents.get(node)
        while parent is not None:
            if isinstance(parent, (ast.For, ast.While)):
                return True
            parent = self.parents.get(parent)
        return False

    def _one_more(self, family: Family, node: ast.expr) -> Iterator[Mutant]:
        text = self._text(node)
        if text is not None:
            yield from self._replace(family, self._span(node), [f"{text} - 1", f"{text} + 1"])

    def _call(self, node: ast.Call) -> Iterator[Mutant]:
        for first, second in zip(node.args, node.args[1:], strict=False):
            if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
                yield from self._swap(Family.SWAPPED_ARGUMENTS, first, second)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in METHODS:
            span = self._span(function)
            if span is not None:
                name = _Span(span.line, span.end - len(function.attr), span.end)
                yield from self._replace(Family.METHOD, name, METHODS[function.attr])
        if isinstance(function, ast.Name):
            yield from self._replace(Family.METHOD, self._span(function), NAMES_OF_CALLS.get(function.id, ()))
            if function.id == "range":
                yield from self._range(node)
            elif function.id == "len":
                yield from self._one_more(Family.OFF_BY_ONE, node)
        if len(node.args) == 1 and not node.keywords and isinstance(function, ast.Name):
            argument = self._text(node.args[0])
            if argument is not None and function.id in (
                "sorted",
                "list",
                "abs",
                "str",
                "int",
                "set",
                "reversed",
                "round",
            ):
                yield from self._replace(Family.METHOD, self._span(node), [argument])

    def _range(self, node: ast.Call) -> Iterator[Mutant]:
        for bound in node.args[:2]:
            if not isinstance(bound, ast.Constant):
                yield from self._one_more(Family.OFF_BY_ONE, bound)
        if len(node.args) == 1:
            text = self._text(node.args[0])
            if text is not None:
                yield from self._replace(Family.OFF_BY_ONE, self._span(node.args[0]), [f"1, {text}"])
        elif len(node.args) == 2 and _is_number(node.args[0]):
            first, second = self._span(node.args[0]), self._span(node.args[1])
            if first is not None and second is not None and first.line == second.line:
                yield from self._replace(
                    Family.OFF_BY_ONE, _Span(first.line, first.start, second.start), [""]
                )

    def _subscript(self, node: ast.Subscript) -> Iterator[Mutant]:
        index = node.slice
        if isinstance(index, ast.Slice):
            yield from self._slice(index)
            return
        if isinstance(node.value, ast.Subscript) and not isinstance(node.value.slice, ast.Slice):
            yield from self._swap(Family.INDEX, node.value.slice, index)
        if isinstance(index, (ast.Name, ast.BinOp)):
            yield from self._one_more(Family.INDEX, index)
        text = self._text(index)
        if text == "-1":
            yield from self._replace(Family.INDEX, self._span(index), ["0"])
        elif text == "0":
            yield from self._replace(Family.INDEX, self._span(index), ["-1"])

    def _slice(self, node: ast.Slice) -> Iterator[Mutant]:
        span = self._span_of_slice(node)
        if span is None:
            return
        lower = "" if node.lower is None else self._text(node.lower)
        upper = "" if node.upper is None else self._text(node.upper)
        if lower is None or upper is None:
            return
        step = "" if node.step is None else f":{self._text(node.step)}"
        versions = [(upper, lower), ("", upper), (lower, ""), ("1", upper), (lower, "-1")]
        for bound, value in (("lower", lower), ("upper", upper)):
            part = node.lower if bound == "lower" else node.upper
            if part is None or isinstance(part, ast.Constant):
                continue
            more = (f"{value} + 1", f"{value} - 1")
            versions += [(text, upper) if bound == "lower" else (lower, text) for text in more]
        if step:
            yield from self._replace(Family.INDEX, span, [f"{lower}:{upper}"])
        yield from self._replace(
            Family.INDEX, span, [f"{a}:{b}{step}" for a, b in versions if (a, b) != (lower, upper)]
        )

    def _span_of_slice(self, node: ast.Slice) -> _Span | None:
        return self._span(node)

    # Statements

    def _return(self, node: ast.Return) -> Iterator[Mutant]:
        if node.value is None:
            return
        value, span = self._text(node.value), self._span(node)
        if value is None or span is None:
            return
        if isinstance(node.value, (ast.Compare, ast.BoolOp)):
            yield from self._negate(node.value)
        yield from self._replace(Family.MISSING_RETURN, span, [value])
        if isinstance(node.value, ast.Name):
            # Of anything longer, nothing on the line would tell what was meant.
            yield from self._replace(Family.MISSING_RETURN, span, ["return None"])

    def _expression(self, node: ast.Expr) -> Iterator[Mutant]:
        value = self._text(node.value)
        if value is not None and not isinstance(node.value, (ast.Yield, ast.YieldFrom, ast.Await)):
            yield from self._replace(Family.MISSING_RETURN, self._span(node), [f"return {value}"])

    def _name(self, node: ast.Name) -> Iterator[Mutant]:
        parent = self.parents.get(node)
        plain_store = isinstance(node.ctx, ast.Store) and not isinstance(parent, ast.AugAssign)
        if node.id not in self.names or plain_store or isinstance(node.ctx, ast.Del):
            return
        yield from self._replace(
            Family.VARIABLE, self._span(node), [name for name in self.names if name != node.id]
        )
        in_arithmetic = isinstance(parent, (ast.BinOp, ast.Return, ast.Call)) and not self._in_subscript(node)
        if in_arithmetic and isinstance(parent, ast.BinOp):
            yield from self._one_more(Family.OFF_BY_ONE, node)

    def _attribute(self, node: ast.Attribute) -> Iterator[Mutant]:
        if not (
            isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in self.attributes
        ):
            return
        span = self._span(node)
        if span is not None:
            name = _Span(span.line, span.end - len(node.attr), span.end)
            others = [attribute for attribute in self.attributes if attribute != node.attr]
            yield from self._replace(Family.VARIABLE, name, others)


def _without_docstring(body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    first = body[0]
    is_docstring = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return body[1:] if is_docstring else body


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float))
