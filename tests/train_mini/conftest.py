"""A small bank of library functions, so that tests need no prepared machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.train_mini.harvest import source_files
from examples.train_mini.library import build_bank, default_bank

MODULES = frozenset(
    (
        "textwrap posixpath fnmatch colorsys html calendar statistics email.utils urllib.parse shlex string "
        "keyword difflib quopri mimetypes locale fractions"
    ).split()
)


@pytest.fixture(scope="session")
def library_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bank of some modules of the standard library, in use for the whole test session."""
    path = tmp_path_factory.mktemp("bank") / "bank.json.gz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSV4AGENT_MINI_BANK", str(path))
        build_bank(path, workers=1, jobs=[job for job in source_files() if job[2] and job[1] in MODULES])
        assert default_bank() == path
        yield path
