"""The `browser` tool: one Chromium per session, inside its sandbox, seen as accessibility snapshots."""

from __future__ import annotations

import base64
import errno
import posixpath
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import anyio

from dsv4agent.sandboxes import NetworkMode, Policy, Sandbox
from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.browser_process import BrowserFailed, BrowserGone, BrowserProcess
from dsv4agent.tools.browser_view import clean_lines, describe, fit_text, fit_view, read_lines, subtree

ACTION_SECONDS = 30.0
DOWNLOAD_BYTES = 100 << 20
MOST_SCREENS = 100
MOST_TABS_EVER = 1_000_000

_NEEDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "goto": (("url",),),
    "click": (("ref",),),
    "type": (("ref",), ("text",)),
    "press": (("key",),),
    "select": (("ref",), ("text",)),
    "scroll": (("direction", "ref"),),
    "back": (),
    "forward": (),
    "snapshot": (),
    "tabs": (),
    "switch_tab": (("number",),),
    "close_tab": (("number",),),
    "accept": (),
    "dismiss": (),
    "wait": (("number", "text"),),
    "console": (),
    "screenshot_path": (("path",),),
}
"""What each action needs: of each group at least one argument."""

_NO_SCHEME = re.compile(r"[\w.-]+(:\d+)?([/?#]|$)|\[[\da-fA-F:]+\]")
_LOCAL = re.compile(r"(localhost|127\.[\d.]+|0\.0\.0\.0|\[::1\])(?=[:/?#]|$)")


class BrowserTool:
    """Drives one browser per session; every action answers with the page as a snapshot with refs.

    Args:
        timeout: Seconds before an action is given up.
        executable: The browser, by path or name; by default an installed Chromium.
        download_bytes: The most bytes of one download.
    """

    name = "browser"
    description = "Drive a web browser; each action answers with a snapshot of the page with element refs."
    effects = Effects.NETWORK

    def __init__(
        self,
        *,
        timeout: float = ACTION_SECONDS,
        executable: str | None = None,
        download_bytes: int = DOWNLOAD_BYTES,
    ) -> None:
        self._timeout = timeout
        self._settings = {"seconds": timeout, "executable": executable, "download_bytes": download_bytes}
        self._browsers: WeakKeyDictionary[Sandbox, _Browser] = WeakKeyDictionary()
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["action"],
            "properties": {
                "action": {"type": "string", "enum": list(_NEEDS), "description": "What to do."},
                "url": {"type": "string", "description": "Address, for goto."},
                "ref": {"type": "string", "description": "Element of the snapshot, such as e12."},
                "text": {
                    "type": "string",
                    "description": "Text to type, to select, to wait for, or to accept a prompt with.",
                },
                "submit": {"type": "boolean", "description": "Press Enter after typing."},
                "key": {"type": "string", "description": "Key to press, such as Enter or Control+A."},
                "direction": {
                    "type": "string",
                    "enum": ["up", "down", "left", "right"],
                    "description": "Where to scroll.",
                },
                "number": {
                    "type": "number",
                    "description": "Number of the tab, screens to scroll, or seconds to wait.",
                },
                "path": {"type": "string", "description": "PNG file for screenshot_path."},
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Do one action; whatever the model can mend is a result with a code.

        Raises:
            SandboxError: The sandbox cannot run programs.
        """
        started = time.monotonic()
        request = {name: value for name, value in args.items() if value is not None}
        if refused := self._refused(request):
            return refused
        browser = self._browsers.get(ctx.sandbox)
        if browser is None:
            downloads = posixpath.join(ctx.sandbox.policy.workspace, "downloads")
            settings = {**self._settings, "downloads": downloads, "name": secrets.token_hex(4)}
            browser = self._browsers[ctx.sandbox] = _Browser(ctx.sandbox, settings)
        try:
            answer, notes = await browser.ask(request, self._timeout)
        except BrowserFailed as failure:
            return _failed_start(failure)
        except BrowserGone:
            return _failure(
                "browser_crashed", "the browser ended during the action; the next one starts it anew"
            )
        except TimeoutError:
            return _failure(
                "timeout", "the browser did not answer and was ended; the next action starts it anew"
            )
        return await _result(ctx, request, answer, notes, 1000 * (time.monotonic() - started))

    async def aclose(self) -> None:
        """End all browsers."""
        browsers = list(self._browsers.values())
        self._browsers.clear()
        for browser in browsers:
            await browser.stop()

    def _refused(self, request: dict[str, Any]) -> ToolResult | None:
        """Look at what needs no browser to be refused; complete the address."""
        action: str = request["action"]
        for group in _NEEDS[action]:
            if not any(name in request for name in group):
                return _failure("invalid_arguments", f"{action} needs {' or '.join(group)}")
        if "\0" in "".join(value for value in request.values() if isinstance(value, str)):
            return _failure("invalid_arguments", "an argument holds a NUL character; write it as plain text")
        most = {"wait": self._timeout * 0.8, "scroll": MOST_SCREENS}.get(action, MOST_TABS_EVER)
        if not 0 <= request.get("number", 0) <= most:
            return _failure("invalid_arguments", f"number must be from 0 to {most:g}")
        if action == "goto":
            request["url"], reason = completed_url(request["url"])
            if reason:
                return _failure("refused_url", reason, Status.DENIED)
        return None


def completed_url(url: str) -> tuple[str, str]:
    """Return an address with its scheme, and why it is refused if it is.

    `example.org` means `https://example.org`, `localhost:8000` means `http://localhost:8000`.
    """
    url = url.strip()
    if _LOCAL.match(url):
        url = f"http://{url}"
    elif _NO_SCHEME.match(url):
        url = f"https://{url}"
    if url == "about:blank":
        return url, ""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
    except ValueError:
        scheme, host = "", None
    if scheme in {"http", "https"}:
        return url, "" if host else "the address names no host; write it as http://host/path"
    return url, (
        f"{scheme[:20] or 'such'} addresses are not opened, only http and https; "
        "serve local files with `python -m http.server` in the shell"
    )


@dataclass
class _Browser:
    """The browser of one sandbox, started when first needed and again after it ended."""

    sandbox: Sandbox
    settings: Mapping[str, Any]
    process: BrowserProcess | None = None
    started: bool = False
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    async def ask(self, request: Mapping[str, Any], seconds: float) -> tuple[dict[str, Any], list[str]]:
        """Return the browser's answer, and what is to be said about the browser itself."""
        async with self.lock:
            notes: list[str] = []
            try:
                if self.process is not None:
                    try:
                        return await self.process.ask(request, seconds), notes
                    except BrowserGone as gone:
                        if gone.during:
                            raise
                        await self.stop()
                if self.started:
                    notes.append("the browser was started anew; tabs, cookies and refs of the last are gone")
                self.process = await BrowserProcess.start(self.sandbox, self.settings)
                self.started = True
                return await self.process.ask(request, seconds), notes
            except BaseException:
                # After half an exchange nobody knows what the next reply would answer.
                await self.stop()
                raise

    async def stop(self) -> None:
        """End it, if it runs."""
        process, self.process = self.process, None
        if process is not None:
            await process.stop()


async def _result(
    ctx: ToolContext,
    request: Mapping[str, Any],
    answer: Mapping[str, Any],
    notes: list[str],
    duration_ms: float,
) -> ToolResult:
    code, reason = answer["code"], clean_lines([answer["reason"]])
    if code == "network_error":
        reason += _network_hint(ctx.sandbox.policy, request.get("url", ""), reason)
    if answer["picture"] and code is None:
        code, reason = await _save_picture(ctx.sandbox, request["path"], answer["picture"])
        if code is None:
            notes = [*notes, f"screenshot saved to {request['path']}"]
    lines = read_lines(answer)
    if request["action"] == "snapshot" and "ref" in request and lines:
        lines = subtree(lines, request["ref"])
        if not lines:
            code, reason = "stale_ref", f"{request['ref']} is not on the page any more; take a new snapshot"
    opening = "\n".join(([f"{code}: {reason}"] if code else []) + [describe(answer, notes)])
    truncation = None
    if request["action"] in {"console", "tabs"} and code is None:
        body = clean_lines(answer["log"]) if "log" in answer else _tab_list(answer["tabs"])
        text = fit_text(
            opening, body or "(no messages)", budget=ctx.max_output_tokens, count_tokens=ctx.count_tokens
        )
    else:
        text, truncation = fit_view(
            opening,
            lines,
            budget=ctx.max_output_tokens,
            count_tokens=ctx.count_tokens,
            spill_dir=ctx.spill_dir,
        )
    return ToolResult(
        text=text, status=_status(code), code=code, duration_ms=duration_ms, truncated=truncation
    )


def _status(code: str | None) -> Status:
    if code is None:
        return Status.OK
    if code in {"outside_workspace", "permission_denied"}:
        return Status.DENIED
    return Status.TIMEOUT if code == "timeout" else Status.ERROR


def _tab_list(tabs: Sequence[Sequence[Any]]) -> str:
    return clean_lines([f"{number}: {url} {title}".rstrip() for number, url, title in tabs])


def _network_hint(policy: Policy, url: str, reason: str) -> str:
    if _LOCAL.match(urlsplit(url).netloc):
        return "; is the server running?" if "REFUSED" in reason else "; check the address"
    if policy.network.mode is NetworkMode.OFF:
        return "; the sandbox has no network, only its own 127.0.0.1"
    if policy.network.mode is NetworkMode.ALLOW_LIST:
        hosts = ", ".join(policy.network.hosts[:20]) + (", ..." if len(policy.network.hosts) > 20 else "")
        return f"; only these hosts may be reached: {hosts}"
    return ""


async def _save_picture(sandbox: Sandbox, shown: str, picture: str) -> tuple[str | None, str]:
    """Write a screenshot; return a code and a reason if that failed."""
    path = posixpath.join(sandbox.policy.workspace, shown)
    try:
        await sandbox.write_bytes(path, base64.b64decode(picture))
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            roots = (sandbox.policy.workspace, *sandbox.policy.writable)
            inside = any(f"{posixpath.normpath(path)}/".startswith(f"{root}/") for root in roots)
            if not inside:
                return "outside_workspace", f"{shown} is not below {roots[0]}; write there"
            return "permission_denied", f"{shown} may not be written; choose another path"
        return "io_error", f"{shown}: {error.strerror or error}; choose another path"
    return None, ""


def _failed_start(failure: BrowserFailed) -> ToolResult:
    if failure.code == "unavailable":
        remedy = "install `dsv4agent[browser]` and the system package `chromium`"
        reason = failure.reason if "install" in failure.reason else f"{failure.reason}; {remedy}"
        return _failure("unavailable", reason)
    if failure.code == "sandbox_unavailable":
        return _failure(
            "sandbox_unavailable",
            f"no browser runs in this sandbox: {failure.reason}; use bubblewrap, or allow the network",
        )
    return _failure("browser_failed", f"{failure.reason}; try once more, then go on without it")


def _failure(code: str, reason: str, status: Status = Status.ERROR) -> ToolResult:
    return ToolResult(
        text=f"{code}: {reason}", status=Status.TIMEOUT if code == "timeout" else status, code=code
    )
