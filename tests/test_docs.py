"""The documentation is true: its Python runs, and the token costs that it states are the real ones."""

from __future__ import annotations

import ast
import asyncio
import re
import time
from collections.abc import Coroutine
from inspect import CO_COROUTINE
from pathlib import Path
from types import FunctionType
from typing import Any, cast, get_args

import pytest

from dsv4agent import Event, SandboxUnavailable, StopReason
from dsv4agent.cli.exits import code_of_stop
from dsv4agent.transcript.events import EventBase

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SECONDS = 60.0
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
_spent = 0.0


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the code blocks of a page in a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(2)) + 1, found[2])
        for found in _BLOCK.finditer(text)
        if found[1] == language
    ]


def run_block(source: str, page: Path, line: int, names: dict[str, Any]) -> None:
    """Run a block, which may await at its top level, so that errors name the line of the page."""
    code = compile(
        "\n" * (line - 1) + source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    result = FunctionType(code, names)()
    if code.co_flags & CO_COROUTINE:
        asyncio.run(cast("Coroutine[Any, Any, None]", result))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page run in order and share their names; all pages share one budget of time."""
    global _spent
    monkeypatch.setenv("DSV4AGENT_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    names: dict[str, Any] = {"__name__": "__main__"}
    begin = time.monotonic()
    try:
        for line, source in blocks(page, "python"):
            run_block(source, page, line, names)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    _spent += time.monotonic() - begin
    assert _spent < SECONDS, f"the documentation's code took {_spent:.0f} s in all; shorten {name_of(page)}"


def test_every_block_says_its_language() -> None:
    unmarked = [f"{name_of(page)}:{line}" for page in PAGES for line, _ in blocks(page, "")]
    assert unmarked == []


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for target in cast("list[str]", _LINK.findall(page.read_text(encoding="utf-8"))):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def test_the_index_lists_every_page() -> None:
    listed: set[str] = set(_LINK.findall((DOCS / "README.md").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"README.md"}
    assert {target for target in listed if not target.startswith("..")} == pages


def table(page: Path, header: str) -> list[list[str]]:
    """Return the rows of the table of a page that begins with this header line."""
    text = page.read_text(encoding="utf-8")
    rows = text[text.index(header) :].split("\n\n")[0].split("\n")[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows if row]


def test_the_session_page_lists_every_event_and_field() -> None:
    stated: dict[str, str] = {
        row[0]: row[1] for row in table(DOCS / "sessions.md", "| type | further fields |")
    }
    kinds = cast("list[type[EventBase]]", get_args(Event))
    fields = {kind.model_fields["type"].default: set(kind.model_fields) for kind in kinds}
    real = {name: names - {"type", *EventBase.model_fields} for name, names in fields.items()}
    assert {name: set(names.split(", ")) for name, names in stated.items()} == real


def test_the_session_page_states_the_exit_codes() -> None:
    rows = table(DOCS / "sessions.md", "| stop reason | when | exit code |")
    assert {reason: int(code) for reason, _, code in rows} == {
        reason.value: int(code_of_stop(reason)) for reason in StopReason
    }
