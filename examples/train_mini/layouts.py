"""Where the files of a repository stand and which files besides code it has."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from examples.train_mini.vocabulary import FOLDERS, MODULES, NOUNS, PACKAGES

_ABOUT = ("Small helpers.", "Internal tools.", "Work in progress.", "See the tests for examples.")


@dataclass(frozen=True)
class Layout:
    """Folders of code and tests.

    Attributes:
        code: Folder of the modules (`""`, `"shop"`, `"src/shop"`).
        package: Dotted prefix of imports, or "".
        tests: Folder of the test files.
        suffix: Whether tests are named `x_test.py`.
        packages: Files `__init__.py` to make.
        settings: `pyproject`, `conftest` or "" for how `src` gets onto the path.
    """

    code: str
    package: str
    tests: str
    suffix: bool
    packages: tuple[str, ...]
    settings: str

    def module_path(self, module: str) -> str:
        """Return the path of a module."""
        return f"{self.code}/{module}.py" if self.code else f"{module}.py"

    def test_path(self, module: str) -> str:
        """Return the path of the test file for a module."""
        name = f"{module}_test.py" if self.suffix else f"test_{module}.py"
        return f"{self.tests}/{name}" if self.tests else name


def draw_layout(rng: Random, package: str) -> Layout:
    """Draw a layout for a project whose package would be called `package`."""
    suffix = rng.random() < 0.12
    kind = rng.random()
    if kind < 0.25:
        return Layout("", "", "", suffix, (), "")
    if kind < 0.45:
        return Layout("", "", "tests", suffix, ("tests/__init__.py",) if rng.random() < 0.2 else (), "")
    tests = rng.choice(("tests", "tests", "tests", "test", package))
    if kind < 0.78:
        inits = [f"{package}/__init__.py"] if rng.random() < 0.9 else []
        if tests == package and not inits:
            tests = "tests"
        if rng.random() < 0.15 and tests != package:
            inits.append(f"{tests}/__init__.py")
        return Layout(package, package, tests, suffix, tuple(inits), "")
    if tests == package:
        tests = "tests"
    settings = rng.choice(("pyproject", "pyproject", "conftest"))
    if rng.random() < 0.3:
        return Layout("src", "", tests, suffix, (), settings)
    return Layout(f"src/{package}", package, tests, suffix, (f"src/{package}/__init__.py",), settings)


def draw_workspace(rng: Random) -> tuple[str, str]:
    """Draw (absolute path of the workspace, name of the project)."""
    project = rng.choice(
        (
            rng.choice(PACKAGES),
            rng.choice(PACKAGES),
            rng.choice(NOUNS),
            f"{rng.choice(NOUNS)}-{rng.choice(NOUNS)}",
        )
    )
    name = project + rng.choice(("", "", "", "", str(rng.randint(1, 99)), "-main", "_py"))
    if rng.random() < 0.15:
        name = f"tmp{''.join(rng.choice('abcdefghijklmnopqrstuvwxyz0123456789_') for _ in range(8))}"
    folder = rng.choice(FOLDERS)
    if rng.random() < 0.1:
        folder = f"{folder}/{rng.choice(NOUNS)}"
    return f"/{folder}/{name}", project.replace("-", "_")


def draw_modules(rng: Random, count: int, banned: set[str]) -> list[str]:
    """Draw different module names."""
    pool = [name for name in MODULES if name not in banned]
    names: list[str] = []
    while len(names) < count:
        name = rng.choice(pool) if rng.random() < 0.75 else f"{rng.choice(NOUNS)}_{rng.choice(NOUNS)}"
        if name not in names and name not in banned:
            names.append(name)
    return names


def extra_files(rng: Random, layout: Layout, project: str) -> dict[str, str]:
    """Draw files besides code: settings, a readme, what git ignores."""
    files: dict[str, str] = dict.fromkeys(layout.packages, "")
    if layout.settings == "pyproject":
        files["pyproject.toml"] = (
            f'[project]\nname = "{project}"\nversion = "0.{rng.randint(1, 9)}.0"\n\n'
            f'[tool.pytest.ini_options]\npythonpath = ["src"]\n'
            + ('testpaths = ["' + layout.tests + '"]\n' if rng.random() < 0.4 else "")
        )
    elif layout.settings == "conftest":
        files["conftest.py"] = (
            'import os\nimport sys\n\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), "src"))\n'
        )
    elif rng.random() < 0.15:
        files["pyproject.toml"] = (
            f'[project]\nname = "{project}"\nversion = "0.{rng.randint(1, 9)}.{rng.randint(0, 9)}"\n'
        )
    if rng.random() < 0.35:
        files["README.md"] = f"# {project}\n\n{rng.choice(_ABOUT)}\n"
    if rng.random() < 0.35:
        files[".gitignore"] = rng.choice(
            ("__pycache__/\n", "__pycache__/\n*.pyc\n.pytest_cache/\n", "*.pyc\n__pycache__\n.venv/\n")
        )
    if rng.random() < 0.06:
        files["requirements.txt"] = "pytest\n"
    if rng.random() < 0.05:
        files["docs/notes.txt"] = "Nothing here yet.\n"
    if rng.random() < 0.04:
        files["setup.cfg"] = f"[metadata]\nname = {project}\n"
    return files
