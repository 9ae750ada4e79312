"""What the package exports exists and is documented."""

from __future__ import annotations

import inspect

from dsv4agent import encoding


def test_every_exported_name_exists_and_has_a_docstring() -> None:
    assert encoding.__all__ == sorted(
        encoding.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    for name in encoding.__all__:
        value = getattr(encoding, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
