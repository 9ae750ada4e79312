"""The browser of one session: its tabs, and what becomes of an action that a page does not let end."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from playwright.async_api import BrowserContext, Page
from playwright.async_api import Error as PlaywrightError

from dsv4agent.tools._browser_actions import Refusal, act
from dsv4agent.tools._browser_downloads import Downloads
from dsv4agent.tools._browser_refs import Line, StaleRef
from dsv4agent.tools._browser_tab import SETTLE_SECONDS, Tab
from dsv4agent.tools._browser_words import clipped

MOST_TABS = 10
LOOK_SECONDS = 10.0
"""How long a page may take to answer before its renderer counts as hanging; at most half an action's time."""
READY_SECONDS = 5.0
"""How long an element may take to become visible, enabled and uncovered."""
DOWNLOAD_SECONDS = 5.0
"""How long an action waits for a download that it started."""
_LOG_LINES = 200
_NEXT = "open it again with goto, or go on without it"
_LOOKS = 3
_CLOSE_SECONDS = 2.0
_HARMLESS = ("log:", "info:", "debug:", "warning:")
_PART = (
    "() => { const e = document.scrollingElement || document.documentElement;"
    " return e ? [e.scrollTop, innerHeight, e.scrollHeight] : null }"
)

_T = TypeVar("_T")


class _Disturbed(Exception):
    """Raised when a page waits for an answer to a dialog, crashed, or opens alerts without end."""


@dataclass(frozen=True)
class _View:
    """What a page looks like: its title, its lines, and which part of its height is visible."""

    title: str
    lines: list[Line]
    part: list[int] | None


class Session:
    """One browser context with its tabs.

    Args:
        context: The context.
        seconds: How long one action may take.
        downloads: Folder of downloads.
        spool: Where the browser writes them while they run.
        limit: The most bytes of a download.
    """

    def __init__(
        self, context: BrowserContext, *, seconds: float, downloads: str, spool: str, limit: int
    ) -> None:
        self._context = context
        self._seconds = seconds
        self._patience = min(LOOK_SECONDS, seconds / 2)
        self._downloads = Downloads(downloads, spool, limit, self.report)
        self._tabs: dict[Page, Tab] = {}
        self._current: Tab | None = None
        self._numbers, self._refs = itertools.count(1), itertools.count(1)
        self._events: list[str] = []
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._errors = 0
        self._disturbed = asyncio.Event()
        self._expecting_page = False
        self._closing: set[asyncio.Future[None]] = set()
        context.on("page", self._on_page)
        for page in context.pages:
            self._adopt(page)

    async def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a request asks and say what the current tab looks like then."""
        tab = await self._current_tab()
        if tab.dead:
            if request["action"] not in {"goto", "console"}:
                return await self._reply(None, None)
            tab = await self._replace(tab)
        for each in self._tabs.values():
            each.begin()
        picture, problem = None, None
        try:
            self._refuse_if_dialog_open(request)
            if request["action"] == "console":
                return self._console()
            picture = await self._attend(self._act(tab, request), self._seconds)
            await self._attend(self._settle(), SETTLE_SECONDS + DOWNLOAD_SECONDS + 1)
        except _Disturbed:
            pass  # How is seen below.
        except StaleRef as error:
            problem = Refusal("stale_ref", f"{error} is not on the page any more; take a new snapshot")
        except Refusal as refusal:
            problem = refusal
        except TimeoutError:
            await tab.stop_loading()
            reason = f"{request['action']} did not end within {self._seconds:g} s; go on with what is there"
            problem = Refusal("timeout", reason)
        except PlaywrightError as error:
            problem = Refusal("failed", f"{clipped(error.message)}; take a new snapshot")
        return await self._reply(problem, picture)

    def report(self, event: str) -> None:
        """Take a line about something that happened."""
        if len(self._events) < _LOG_LINES:
            self._events.append(event)

    def log(self, line: str) -> None:
        """Take a console message or a network error."""
        self._log.append(line)
        self._errors += not line.startswith(_HARMLESS)

    def disturb(self, tab: Tab) -> None:
        """Take that a page cannot go on by itself; one in the background matters if it asks something."""
        if tab is self._current or tab.dialog:
            self._disturbed.set()

    async def _act(self, tab: Tab, request: Mapping[str, Any]) -> bytes | None:
        action = request["action"]
        if action in {"accept", "dismiss"}:
            await self._answer_dialog(action == "accept", request.get("text"))
        elif action in {"switch_tab", "close_tab"}:
            chosen = self._tab_by_number(int(request["number"]))
            if action == "close_tab":
                await self._close(chosen)
            else:
                self._current = chosen
                await chosen.page.bring_to_front()
        elif action != "tabs":
            return await act(tab, request)
        return None

    async def _settle(self) -> None:
        tab = await self._current_tab()
        await tab.settle()
        await self._downloads.wait(DOWNLOAD_SECONDS)

    async def _reply(self, problem: Refusal | None, picture: bytes | None) -> dict[str, Any]:
        view: _View | None = None
        for _ in range(_LOOKS):
            tab = await self._current_tab()
            if any(each.dialog for each in self._tabs.values()):
                break
            if tab.stuck:
                problem = Refusal("timeout", f"the page opens alerts without end and was stopped; {_NEXT}")
                await self._replace(tab)
            elif tab.crashed:
                problem = Refusal("page_crashed", f"the page of tab {tab.number} crashed; {_NEXT}")
                await self._replace(tab)
            try:
                view = await self._attend(self._look(await self._current_tab()), 3 * self._patience)
                break
            except (_Disturbed, PlaywrightError):
                continue  # A dialog, a crash, or the next page came in between.
            except TimeoutError:
                problem = Refusal("timeout", f"the page does not answer and was stopped; {_NEXT}")
                await self._replace(tab)
        return self._answer(problem, view, picture)

    async def _look(self, tab: Tab) -> _View:
        """Read a page.

        Raises:
            TimeoutError: It does not answer.
            PlaywrightError: It is gone.
        """
        async with asyncio.timeout(self._patience):
            await tab.page.evaluate("1")
        lines: list[Line] = []
        try:
            lines = await tab.refs.snapshot(self._patience)
        except (PlaywrightError, TimeoutError):
            # It answers, so it is not hanging: nothing of it has arrived yet, or it is huge.
            self.report(f"the page could not be read within {self._patience:g} s; try a snapshot later")
        async with asyncio.timeout(self._patience):
            tab.title = clipped(await tab.page.title())
            part = await _visible_part(tab.page)
        if tab.page.url.startswith("chrome-error:"):
            return _View("", [], None)  # What Chromium says there, the reply says better.
        return _View(tab.title, lines, part)

    def _answer(self, problem: Refusal | None, view: _View | None, picture: bytes | None) -> dict[str, Any]:
        tab = self._current
        assert tab is not None
        events, self._events = self._events, []
        errors, self._errors = self._errors, 0
        asking = next((each for each in self._tabs.values() if each.dialog), None)
        return {
            "code": problem.code if problem else None,
            "reason": problem.reason if problem else "",
            "url": clipped(tab.page.url),
            "title": view.title if view else "",
            "status": tab.status,
            "tab": tab.number,
            "tabs": [[each.number, clipped(each.page.url), each.title] for each in self._tabs.values()],
            "events": events,
            "errors": errors,
            "dialog": asking.describe_dialog() if asking else None,
            "lines": [[line.depth, line.text, line.ref, line.in_view] for line in view.lines] if view else [],
            "part": view.part if view else None,
            "picture": base64.b64encode(picture).decode() if picture else None,
        }

    def _console(self) -> dict[str, Any]:
        lines = list(self._log)
        self._log.clear()
        return {**self._answer(None, None, None), "log": lines}

    async def _attend(self, deed: Coroutine[Any, Any, _T], seconds: float) -> _T:
        """Wait for a deed, but no longer than the pages let it go on.

        Raises:
            TimeoutError: It took too long, and was cancelled.
            _Disturbed: A page cannot go on by itself; the deed was cancelled.
        """
        self._disturbed.clear()
        task = asyncio.ensure_future(deed)
        watch = asyncio.ensure_future(self._disturbed.wait())
        try:
            await asyncio.wait({task, watch}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _Disturbed if watch.done() else TimeoutError
        finally:
            watch.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=1.0)

    async def _current_tab(self) -> Tab:
        if self._current is None or self._current.page.is_closed():
            self._current = next(reversed(self._tabs.values()), None) or await self._open_tab()
        return self._current

    async def _open_tab(self) -> Tab:
        self._expecting_page = True
        try:
            return self._adopt(await self._context.new_page())
        finally:
            self._expecting_page = False

    async def _replace(self, tab: Tab) -> Tab:
        """Put a fresh tab in the place of one whose page is dead, or is to be."""
        if not tab.crashed:
            await tab.kill_renderer()
        self._current = await self._open_tab()
        await self._close(tab)
        self.report(f"tab {self._current.number} is a fresh one in place of tab {tab.number}")
        return self._current

    async def _close(self, tab: Tab) -> None:
        self._tabs.pop(tab.page, None)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await tab.page.close()
        except (PlaywrightError, TimeoutError):
            pass  # Its process is dead or dying.

    def _adopt(self, page: Page) -> Tab:
        tab = self._tabs.get(page)
        if tab is None:
            ready_seconds = min(READY_SECONDS, self._seconds / 4)
            tab = Tab(next(self._numbers), page, self._refs, self, ready_seconds=ready_seconds)
            self._tabs[page] = tab
            page.on("download", self._downloads.start)
            page.on("close", self._on_close)
            if self._current is None:
                self._current = tab
        return tab

    def _on_page(self, page: Page) -> None:
        if page in self._tabs:
            return
        if len(self._tabs) >= MOST_TABS and not self._expecting_page:
            self.report(f"a new tab was refused: {MOST_TABS} are open; close one")
            closing = asyncio.ensure_future(page.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            return
        tab = self._adopt(page)  # At once, to miss nothing that happens in it.
        if not self._expecting_page:
            self._current = tab
            self.report(f"tab {tab.number} opened and is now the current one")

    def _on_close(self, page: Page) -> None:
        tab = self._tabs.pop(page, None)
        if tab is not None:
            self.report(f"tab {tab.number} closed")

    def _refuse_if_dialog_open(self, request: Mapping[str, Any]) -> None:
        if request["action"] in {"accept", "dismiss", "close_tab", "console"}:
            return
        for tab in self._tabs.values():
            if tab.dialog:
                raise Refusal(
                    "dialog_open", f"tab {tab.number} shows a dialog; use accept, dismiss or close_tab"
                )

    async def _answer_dialog(self, accept: bool, text: str | None) -> None:
        asking = next((tab for tab in self._tabs.values() if tab.dialog), None)
        if asking is None:
            raise Refusal("no_dialog", "no dialog is open; go on")
        await asking.answer_dialog(accept, text)

    def _tab_by_number(self, number: int) -> Tab:
        for tab in self._tabs.values():
            if tab.number == number:
                return tab
        numbers = ", ".join(str(tab.number) for tab in self._tabs.values())
        raise Refusal("not_found", f"there is no tab {number}; open tabs: {numbers}")


async def _visible_part(page: Page) -> list[int] | None:
    """Return top and height of what is visible, and the height of all; None if the page's scripts object."""
    try:
        top, height, whole = await page.evaluate(_PART)
        return [int(top), int(height), int(whole)]
    except (PlaywrightError, TypeError, ValueError, OverflowError):
        return None
