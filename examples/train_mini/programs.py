"""Random functions that nobody has written before, with docstrings that say what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from examples.train_mini.kinds import related
from examples.train_mini.program_parts import Builder, Parameter
from examples.train_mini.program_shapes import SHAPES
from examples.train_mini.renaming import random_function_name
from examples.train_mini.subjects import Subject, literal
from examples.train_mini.templates import vary_docstrings


def random_program(rng: Random) -> Subject:
    """Return a new random function, sometimes with helpers that it calls."""
    parts: list[str] = []
    helpers: list[str] = []
    kind = rng.random()
    helper = None
    if kind < 0.3:
        name = random_function_name(rng)
        helper_shape = rng.choice([shape for shape in SHAPES if shape.of_number])
        source, parameters = _function(rng, name, helper_shape.build, ("int",), None)
        parts.append(source)
        helpers.append(name)
        helper = (name, parameters)
        if kind < 0.06:
            middle = random_function_name(rng)
            if middle != name:
                source, parameters = _function(rng, middle, helper_shape.build, ("int",), helper)
                if f"{name}(" in source:
                    parts.append(source)
                    helpers.append(middle)
                    helper = (middle, parameters)
    name = random_function_name(rng)
    while name in helpers:
        name = random_function_name(rng) + "_all"
    weights = [shape.weight for shape in SHAPES]
    shape = rng.choices(SHAPES, weights)[0]
    source, parameters = _function(rng, name, shape.build, (), helper)
    parts.append(source)
    if helpers and rng.random() < 0.25:
        parts.reverse()
    text = vary_docstrings("\n\n\n".join(parts), rng)
    used = [h for h in helpers if any(f"{h}(" in part for part in parts if not part.startswith(f"def {h}("))]

    def propose(rng: Random) -> tuple[Sequence[str], str]:
        values: list[object] = []
        for parameter in parameters:
            value = parameter.draw(rng)
            values.append(related(value, values, rng) if parameter.kind == "int" else value)
        return (), f"{name}({', '.join(map(literal, values))})"

    return Subject(f"program.{shape.name}", name, text, (), propose, used)


def _function(
    rng: Random,
    name: str,
    build: Callable[[Builder], None],
    fixed: Sequence[str],
    helper: tuple[str, Sequence[Parameter]] | None,
) -> tuple[str, list[Parameter]]:
    builder = Builder(rng, helper)
    for kind in fixed:
        builder.parameter(kind)
    build(builder)
    hinted = rng.random() < 0.2
    signature = ", ".join(f"{p.name}: {p.hint}" if hinted else p.name for p in builder.parameters)
    lines = [f"def {name}({signature}):", f'    """{builder.sentence()}"""', *builder.lines]
    return "\n".join(lines), builder.parameters
