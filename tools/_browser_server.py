"""Drives Chromium inside the sandbox; the process that `browser_process.py` starts there.

A request is one line of JSON on standard input. A reply is a 32-bit big-endian length and a JSON object on
descriptor 3. Each request is first answered with `{"taken": true}`, so that the other side can tell a browser
that was already gone from one that went down during the action.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from dsv4agent.tools._browser_refs import KEEP_REFS
from dsv4agent.tools._browser_session import Session

REPLIES = 3
VIEWPORT = {"width": 1280, "height": 720}
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")

_SWITCHES = (
    "--disable-quic",
    "--disable-domain-reliability",
    "--disable-client-side-phishing-detection",
    "--dns-prefetch-disable",
    "--no-pings",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy",
)
# Settings that have no switch, or whose switch Playwright uses itself.
_LOCAL_STATE = {"dns_over_https": {"mode": "off", "templates": ""}}
_PREFERENCES = {
    "net": {"network_prediction_options": 2},
    "webrtc": {"ip_handling_policy": "disable_non_proxied_udp", "multiple_routes_enabled": False},
    "search": {"suggest_enabled": False},
    "safebrowsing": {"enabled": False},
    "alternate_error_pages": {"enabled": False},
    "signin": {"allowed": False},
}


class Unavailable(Exception):
    """Raised when there is no browser here; says what to install."""


async def serve(settings: Mapping[str, Any]) -> None:
    """Start the browser and answer requests until the input or the browser ends."""
    requests = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(requests), sys.stdin
    )
    executable: str | None = settings["executable"]
    folder = Path(tempfile.gettempdir(), f"browser-{settings['name']}")
    with _empty_folder(folder):
        async with async_playwright() as playwright:
            await playwright.selectors.register("keep-refs", KEEP_REFS, content_script=True)
            try:
                _require_snapshots()
                context = await _launch(playwright, executable, folder)
            except Unavailable as error:
                reply({"code": "unavailable", "reason": str(error)})
                return
            except PlaywrightError as error:
                reply({"code": "failed", "reason": _first_lines(error.message)})
                return
            gone = asyncio.Event()
            context.on("close", lambda _: gone.set())
            await context.grant_permissions([])  # Which refuses all others.
            session = Session(
                context,
                seconds=settings["seconds"],
                downloads=settings["downloads"],
                spool=str(folder / "downloads"),
                limit=settings["download_bytes"],
            )
            reply({"code": None})
            await _answer_requests(requests, session, gone)
            if not gone.is_set():
                await context.close()


@contextmanager
def _empty_folder(folder: Path) -> Generator[None]:
    """Make a folder new, although the last browser may have been killed in it, and remove it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.environ["TMPDIR"] = str(folder)  # Where the programs below leave theirs.
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _answer_requests(requests: asyncio.StreamReader, session: Session, gone: asyncio.Event) -> None:
    end = asyncio.ensure_future(gone.wait())
    while True:
        line = asyncio.ensure_future(requests.readline())
        await asyncio.wait({line, end}, return_when=asyncio.FIRST_COMPLETED)
        if end.done() or not line.result():
            line.cancel()
            return
        reply({"taken": True})
        answer = asyncio.ensure_future(session.perform(json.loads(line.result())))
        await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            answer.cancel()
            return
        reply(answer.result())


def _require_snapshots() -> None:
    """Raise `Unavailable` if this Playwright is too old to show where elements are."""
    if "boxes" not in inspect.signature(getattr(Page, "aria_snapshot", _require_snapshots)).parameters:
        raise Unavailable("this Playwright is too old; install the newest `playwright`")


async def _launch(playwright: Playwright, executable: str | None, folder: Path) -> BrowserContext:
    profile = folder / "profile"
    (profile / "Default").mkdir(parents=True)
    (profile / "Local State").write_text(json.dumps(_LOCAL_STATE))
    (profile / "Default" / "Preferences").write_text(json.dumps(_PREFERENCES))
    (folder / "downloads").mkdir()
    return await playwright.chromium.launch_persistent_context(
        profile,
        executable_path=find_browser(playwright, executable),
        headless=True,
        chromium_sandbox=False,  # The session's sandbox is around it, and lets no one make another.
        args=[*_SWITCHES, *_proxy()],
        viewport={"width": VIEWPORT["width"], "height": VIEWPORT["height"]},
        accept_downloads=True,
        downloads_path=folder / "downloads",
        timeout=30_000,
    )


def find_browser(playwright: Playwright, wanted: str | None) -> str:
    """Return the path of the wanted browser, of an installed Chromium, or of Playwright's own.

    Raises:
        Unavailable: There is none.
    """
    own = playwright.chromium.executable_path
    for candidate in (wanted,) if wanted else (*_NAMES, own):
        if candidate and (found := shutil.which(candidate)):
            return found
    missing = f"{wanted} is not an executable file" if wanted else "no Chromium is installed"
    raise Unavailable(f"{missing}; install the system package `chromium`, or name another browser")


def _proxy() -> Iterator[str]:
    """Yield switches for the way out that the environment names; loopback never takes it."""
    way_out = os.environ.get("HTTPS_PROXY") or os.environ.get("HTTP_PROXY")
    if way_out:
        yield f"--proxy-server={way_out}"
        yield "--proxy-bypass-list=localhost;127.0.0.1;[::1]"
    else:
        yield "--no-proxy-server"


def missing_sockets() -> str | None:
    """Say why there can be no browser if the sandbox allows no local sockets, which all browsers need."""
    for family in (socket.AF_UNIX, socket.AF_INET):
        try:
            socket.socket(family, socket.SOCK_STREAM).close()
        except OSError as error:
            return f"local sockets are refused ({error.strerror})"
    return None


def reply(answer: Mapping[str, Any]) -> None:
    """Write a reply."""
    data = json.dumps(answer).encode()
    message = memoryview(struct.pack(">I", len(data)) + data)
    while message:
        message = message[os.write(REPLIES, message) :]


def _first_lines(text: str) -> str:
    return " ".join(text.split("\n")[:3])[:500]


def main(settings: Mapping[str, Any]) -> None:
    """Run until told to end."""
    os.set_inheritable(REPLIES, False)
    if reason := missing_sockets():
        reply({"code": "sandbox_unavailable", "reason": reason})
        return
    # Nobody reads what programs below say in passing; only this program's last words are kept.
    last_words = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        asyncio.run(serve(settings))
    except Exception as error:
        os.write(last_words, f"{type(error).__name__}: {error}"[:500].encode())
        raise
