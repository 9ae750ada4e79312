"""Tool namespaces of V4.1: `namespace` fields on tools and calls become qualified names `namespace::name`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

SEPARATOR: Final = "::"


class NamespaceConflict(ValueError):
    """Raised when a tool's namespaces disagree or a name part holds the separator."""


def qualified_function(tool: Mapping[str, Any], function: Mapping[str, Any]) -> dict[str, Any]:
    """Return the function declaration to show to the model: qualified name, no `namespace` key.

    A namespace given as `{name, description}` puts its description on a line before the function's own.

    Raises:
        NamespaceConflict: Two places name different namespaces, or a part holds `::`.
    """
    shown = {key: value for key, value in function.items() if key != "namespace"}
    spaces = (tool.get("namespace"), function.get("namespace"))
    if "name" in shown:
        shown["name"] = qualified_name(str(shown["name"]), *spaces)
    for space in spaces:
        if isinstance(space, Mapping) and (about := cast("Mapping[str, Any]", space).get("description")):
            own = shown.get("description")
            shown["description"] = f"{about}\n{own}" if own else str(about)
            break
    return shown


def qualified_name(name: str, *namespaces: object) -> str:
    """Join a tool's name and the namespaces given for it (strings, objects with a `name`, or nothing).

    Raises:
        NamespaceConflict: See `qualified_function`.
    """
    inner, bare = split_name(name)
    given = [text for text in (inner, *map(_space_name, namespaces)) if text]
    if len(set(given)) > 1:
        raise NamespaceConflict(f"Tool {bare!r} has conflicting namespaces {sorted(set(given))}; keep one.")
    if given and SEPARATOR in given[0]:
        raise NamespaceConflict(f"Namespace must not contain '::': {given[0]}")
    return f"{given[0]}{SEPARATOR}{bare}" if given else bare


def split_name(name: str) -> tuple[str | None, str]:
    """Split `namespace::name` at the first separator; the first part is None without one.

    Raises:
        NamespaceConflict: The bare name still holds `::`.
    """
    space, separator, bare = name.partition(SEPARATOR)
    if not separator:
        return None, name
    if SEPARATOR in bare:
        raise NamespaceConflict(f"Tool name must not contain '::': {bare}")
    return space, bare


def _space_name(namespace: object) -> str:
    if isinstance(namespace, Mapping):
        namespace = cast("Mapping[str, Any]", namespace).get("name")
    return "" if namespace is None else str(namespace)
