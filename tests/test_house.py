"""The house rules: imports only go down, and one name is all that installing adds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOWER_ROOMS = {"engine": {"engine"}, "sandboxes": {"sandboxes"}, "tools": {"tools", "sandboxes"}}


def imported_names(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            pytest.fail(f"{path}: relative import")
    return names


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("room", sorted(LOWER_ROOMS))
def test_lower_rooms_never_import_the_runtime_above_them(room: str) -> None:
    files = python_files(room)
    assert files
    for path in files:
        for name in imported_names(path):
            parts = name.split(".")
            if parts[0] == "dsv4agent" and len(parts) > 1:
                assert parts[1] in LOWER_ROOMS[room], f"{path.relative_to(ROOT)} imports {name}"


def test_rooms_are_imported_by_their_one_public_name() -> None:
    for path in python_files("dsv4agent", "engine", "tools", "sandboxes", "tests", "examples"):
        for name in imported_names(path):
            assert name.split(".")[0] not in LOWER_ROOMS, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room", sorted(LOWER_ROOMS))
def test_rooms_are_relative_links_in_the_package(room: str) -> None:
    link = ROOT / "dsv4agent" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room


def test_engine_does_not_load_the_runtime() -> None:
    code = (
        "import dsv4agent.engine, sys\n"
        "print([m for m in sys.modules if m.startswith('dsv4agent.') and m.split('.')[1] != 'engine'])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"
