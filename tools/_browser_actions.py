"""What can be done in a tab, one function for each action of the tool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from dsv4agent.tools._browser_refs import StaleRef
from dsv4agent.tools._browser_tab import Tab
from dsv4agent.tools._browser_words import clipped

_SCREEN = 0.9
"""Share of the visible part that one step of scrolling moves."""
_NO_LIMIT = 0.0
# How the status lines begin that the sandbox's proxy writes in its own name. Only for http: of https, what it
# does not let through does not load at all.
_PROXY_ANSWERS = {403: "network_denied: ", 502: "unreachable: ", 504: "timeout: "}


class Refusal(Exception):
    """The action ends with a stable code and the next useful step."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


async def act(tab: Tab, request: Mapping[str, Any]) -> bytes | None:
    """Do what a request asks in a tab; return a picture if it asks for one.

    Raises:
        Refusal: It cannot be done, for a reason that the model can act on.
        PlaywrightError: The browser says no, or the tab is gone.
    """
    return await _ACTIONS[request["action"]](tab, request)


async def _goto(tab: Tab, request: Mapping[str, Any]) -> None:
    try:
        response = await tab.page.goto(request["url"], wait_until="domcontentloaded", timeout=_NO_LIMIT)
    except PlaywrightError as error:
        if "Download is starting" in error.message:
            return  # The download reports itself.
        if "net::" in error.message:
            reason = error.message.partition("net::")[2].split()[0].rstrip(":")
            raise Refusal("network_error", f"{clipped(request['url'])} did not load: {reason}") from None
        raise
    if response is not None and response.status_text.startswith(_PROXY_ANSWERS.get(response.status, "\n")):
        # Said in words of ours: a site could write such a status line too.
        reason = "the sandbox's proxy refused it" if response.status == 403 else "the proxy does not reach it"
        raise Refusal("network_error", f"{clipped(request['url'])} did not load: {reason}")


async def _click(tab: Tab, request: Mapping[str, Any]) -> None:
    element = await tab.refs.element(request["ref"])
    await _when_ready(tab, request["ref"], element.click(timeout=1000 * tab.ready_seconds))


async def _type(tab: Tab, request: Mapping[str, Any]) -> None:
    ref, text = request["ref"], request["text"]
    element = await tab.refs.element(ref)
    kind = str(await element.evaluate("e => e instanceof HTMLInputElement ? e.type : ''"))
    if kind in {"checkbox", "radio", "submit", "button", "image", "reset"}:
        raise Refusal("not_editable", f"{ref} is a {kind}; use click")
    if kind == "file":
        raise Refusal("not_editable", f"{ref} takes a file to upload, which is not possible")
    try:
        await element.fill(text, timeout=1000 * tab.ready_seconds)
    except PlaywrightTimeout:
        raise _not_ready(tab, ref) from None
    except PlaywrightError as error:
        if "Malformed value" in error.message:
            raise Refusal(
                "invalid_arguments", f"{ref} is a {kind} field and does not take that text"
            ) from None
        if "not an <input>" not in error.message:
            raise
        # Something that only listens to keys, such as a canvas or an editor of its own making.
        await _when_ready(tab, ref, element.click(timeout=1000 * tab.ready_seconds))
        await tab.page.keyboard.type(text)
    if request.get("submit"):
        await tab.page.keyboard.press("Enter")


async def _press(tab: Tab, request: Mapping[str, Any]) -> None:
    if request.get("ref"):
        await (await tab.refs.element(request["ref"])).focus()
    try:
        await tab.page.keyboard.press(request["key"])
    except PlaywrightError as error:
        if "Unknown key" not in error.message:
            raise
        raise Refusal(
            "invalid_arguments",
            f"no key is called {clipped(request['key'])}; use names such as Enter, ArrowDown, a",
        ) from None


async def _select(tab: Tab, request: Mapping[str, Any]) -> None:
    ref, wanted = request["ref"], request["text"]
    element = await tab.refs.element(ref)
    options: list[list[str]] | None = await element.evaluate(
        "e => e instanceof HTMLSelectElement ? [...e.options].map(o => [o.value, o.label.trim()]) : null"
    )
    if options is None:
        raise Refusal("not_editable", f"{ref} is not a <select>; click what opens it, then the choice")
    index = next((i for i, names in enumerate(options) if wanted in reversed(names)), None)
    if index is None:
        labels = ", ".join(clipped(str(label)) for _, label in options[:50])
        raise Refusal("not_found", f"{ref} has no option {clipped(wanted)}; it has: {labels}")
    await _when_ready(tab, ref, element.select_option(index=index, timeout=1000 * tab.ready_seconds))


async def _scroll(tab: Tab, request: Mapping[str, Any]) -> None:
    element = await tab.refs.element(request["ref"]) if request.get("ref") else None
    direction = request.get("direction")
    if element is not None:
        await _when_ready(
            tab, request["ref"], element.scroll_into_view_if_needed(timeout=1000 * tab.ready_seconds)
        )
        if direction is None:
            return
    size = tab.page.viewport_size or {"width": 1280, "height": 720}
    middle = (size["width"] / 2, size["height"] / 2)
    box = await element.bounding_box() if element is not None else None
    if box is not None:
        # The wheel turns what is under the pointer, a list inside the page for instance.
        middle = (box["x"] + box["width"] / 2, min(box["y"] + box["height"] / 2, size["height"] - 1))
    steps = request.get("number", 1.0) * _SCREEN
    sideways, sign = direction in {"left", "right"}, -1 if direction in {"up", "left"} else 1
    distance = sign * steps * size["width" if sideways else "height"]
    await tab.page.mouse.move(*middle)
    await tab.page.mouse.wheel(distance if sideways else 0, 0 if sideways else distance)
    await asyncio.sleep(0.1)  # The wheel does not wait for its effect.


async def _history(tab: Tab, request: Mapping[str, Any]) -> None:
    step = -1 if request["action"] == "back" else 1
    history = await tab.command("Page.getNavigationHistory")
    if history is None or not 0 <= history["currentIndex"] + step < len(history["entries"]):
        raise Refusal("no_history", f"tab {tab.number} cannot go {request['action']}; use goto")
    move = tab.page.go_back if step < 0 else tab.page.go_forward
    await move(wait_until="domcontentloaded", timeout=_NO_LIMIT)


async def _wait(tab: Tab, request: Mapping[str, Any]) -> None:
    if request.get("text"):
        await tab.page.get_by_text(request["text"]).first.wait_for(timeout=_NO_LIMIT)
    else:
        await asyncio.sleep(request["number"])


async def _screenshot(tab: Tab, request: Mapping[str, Any]) -> bytes:
    return await tab.page.screenshot(timeout=_NO_LIMIT)


async def _nothing(tab: Tab, request: Mapping[str, Any]) -> None:
    pass  # The snapshot follows every action.


_ACTIONS: dict[str, Callable[[Tab, Mapping[str, Any]], Awaitable[bytes | None]]] = {
    "goto": _goto,
    "click": _click,
    "type": _type,
    "press": _press,
    "select": _select,
    "scroll": _scroll,
    "back": _history,
    "forward": _history,
    "wait": _wait,
    "screenshot_path": _screenshot,
    "snapshot": _nothing,
}


async def _when_ready(tab: Tab, ref: str, deed: Awaitable[Any]) -> None:
    try:
        await deed
    except PlaywrightTimeout as error:
        raise _not_ready(tab, ref, error.message) from None
    except PlaywrightError as error:
        if "not attached" in error.message:
            raise StaleRef(ref) from None
        raise


def _not_ready(tab: Tab, ref: str, log: str = "") -> Refusal:
    covered = [line.strip(" -") for line in log.split("\n") if "intercepts pointer events" in line]
    reason = clipped(covered[-1])[:200] if covered else "it is hidden, disabled or moving"
    return Refusal("not_ready", f"{ref} could not be used within {tab.ready_seconds:g} s: {reason}")
