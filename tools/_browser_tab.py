"""One tab: its page, what it is loading, and what happened in it that the model should hear of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from playwright.async_api import (
    ConsoleMessage,
    Dialog,
    FileChooser,
    Frame,
    Page,
    Request,
    Response,
)
from playwright.async_api import Error as PlaywrightError

from dsv4agent.tools._browser_refs import RefBook
from dsv4agent.tools._browser_words import clipped, quoted

QUIET_SECONDS = 0.1
"""A page that requested nothing for so long after an action has settled."""
LOADED_SECONDS = 0.2
"""A page that did request something needs longer to show it."""
SETTLE_SECONDS = 3.0
"""The longest wait for that; some pages never stop."""
MOST_ALERTS = 20
"""Alerts of one action that are answered; a page with more is stopped."""
_POLL = 0.05


class Observer(Protocol):
    """Who hears of what happens in a tab."""

    def report(self, event: str) -> None:
        """Take a line about something that happened."""
        ...

    def log(self, line: str) -> None:
        """Take a console message or a network error."""
        ...

    def disturb(self, tab: Tab) -> None:
        """Take that the page cannot go on by itself: an open dialog, a crash, alerts without end."""
        ...


class Tab:
    """A page with its events.

    Args:
        number: The tab's number, never used again in this session.
        page: The page.
        numbers: Where refs get their numbers.
        observer: Who hears of what happens.
        ready_seconds: How long an element may take to become visible, enabled and uncovered.
    """

    def __init__(
        self,
        number: int,
        page: Page,
        numbers: Iterator[int],
        observer: Observer,
        *,
        ready_seconds: float,
    ) -> None:
        self.number = number
        self.page = page
        self.refs = RefBook(page, numbers)
        self.ready_seconds = ready_seconds
        self.title = ""
        self.status: int | None = None
        self.dialog: Dialog | None = None
        self.crashed = self.stuck = self.requested = False
        self.alerts = 0
        self._observer = observer
        self._loading: set[Request] = set()
        self._cdp: Any = None  # A `CDPSession`, whose answers have no type.
        page.on("request", self._on_request)
        page.on("requestfinished", self._on_request_finished)
        page.on("requestfailed", self._on_request_failed)
        page.on("response", self._on_response)
        page.on("framenavigated", self._on_navigated)
        page.on("dialog", self._on_dialog)
        page.on("console", self._on_console)
        page.on("pageerror", self._on_page_error)
        page.on("crash", self._on_crash)
        page.on("filechooser", self._on_file_chooser)

    @property
    def dead(self) -> bool:
        """Whether nothing can be done in this tab any more."""
        return self.crashed or self.stuck

    def begin(self) -> None:
        """Forget what an earlier action counted."""
        self.alerts, self.status, self.requested = 0, None, False

    async def settle(self) -> None:
        """Wait until the page has loaded what an action made it load, but not for ever."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_SECONDS
        quiet_since = loop.time()
        while (now := loop.time()) < end:
            if now - quiet_since >= (LOADED_SECONDS if self.requested else QUIET_SECONDS):
                return
            await asyncio.sleep(_POLL)
            if self._loading:
                quiet_since = loop.time()

    async def command(self, method: str, seconds: float = 2.0) -> Mapping[str, Any] | None:
        """Send a command of the debugging protocol to the page; None if it has no answer in time."""
        try:
            async with asyncio.timeout(seconds):
                if self._cdp is None:
                    self._cdp = await self.page.context.new_cdp_session(self.page)
                return await self._cdp.send(method)
        except (PlaywrightError, TimeoutError):
            return None

    async def kill_renderer(self) -> None:
        """End the process that runs the page's scripts, which may be in an endless loop."""
        await self.command("Page.crash", 0.5)  # The dead do not answer.

    async def stop_loading(self) -> None:
        """Give up what is still on its way."""
        await self.command("Page.stopLoading", 1.0)

    def describe_dialog(self) -> str:
        """Return the open dialog in one line."""
        assert self.dialog is not None
        default = f", default {quoted(self.dialog.default_value)}" if self.dialog.default_value else ""
        return f"{self.dialog.type} {quoted(self.dialog.message)}{default}"

    async def answer_dialog(self, accept: bool, text: str | None) -> None:
        """Close the open dialog."""
        assert self.dialog is not None
        dialog, self.dialog = self.dialog, None
        self._observer.report(f"{'accepted' if accept else 'dismissed'} the {dialog.type}")
        await _answer(dialog, accept, text)

    async def _on_dialog(self, dialog: Dialog) -> None:
        if dialog.type == "beforeunload":
            self._observer.report("left the page although it asked to stay")
            await _answer(dialog, True)
        elif dialog.type == "alert":
            self.alerts += 1
            if self.alerts > MOST_ALERTS:
                self.stuck = True
                self._observer.disturb(self)
                return
            self._observer.report(f"alert {quoted(dialog.message)}, accepted")
            await _answer(dialog, True)
        else:
            self.dialog = dialog
            self._observer.disturb(self)

    def _on_request(self, request: Request) -> None:
        self.requested = True
        self._loading.add(request)

    def _on_request_finished(self, request: Request) -> None:
        self._loading.discard(request)

    def _on_request_failed(self, request: Request) -> None:
        self._loading.discard(request)
        if request.failure != "net::ERR_ABORTED" and not _is_icon(request.url):
            self._observer.log(f"network error: {request.method} {clipped(request.url)}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        request = response.request
        if request.is_navigation_request() and request.frame == self.page.main_frame:
            self.status = response.status
        if response.status >= 400 and not _is_icon(request.url):
            self._observer.log(f"HTTP {response.status}: {request.method} {clipped(request.url)}")
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            # A stream of events never finishes, and nothing waits for it.
            self._loading.discard(request)

    def _on_navigated(self, frame: Frame) -> None:
        if frame == self.page.main_frame:
            self._loading = {request for request in self._loading if request.is_navigation_request()}
            self._observer.report(f"tab {self.number} navigated")

    def _on_console(self, message: ConsoleMessage) -> None:
        if not message.text.startswith("Failed to load resource:"):  # The request is reported itself.
            self._observer.log(f"{message.type}: {clipped(message.text)}")

    def _on_page_error(self, error: Any) -> None:
        self._observer.log(f"uncaught: {clipped(str(error))}")

    def _on_crash(self, _: Page) -> None:
        self.crashed = True
        self._observer.disturb(self)

    def _on_file_chooser(self, _: FileChooser) -> None:
        self._observer.report("the page asked for a file to upload; uploads are not possible")


def _is_icon(url: str) -> bool:
    """Tell whether the browser asked for this by itself."""
    return url.endswith("/favicon.ico")


async def _answer(dialog: Dialog, accept: bool, text: str | None = None) -> None:
    try:
        await (dialog.accept(dialog.default_value if text is None else text) if accept else dialog.dismiss())
    except PlaywrightError:
        pass  # Its page is gone.
