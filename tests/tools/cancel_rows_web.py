"""Cancelling what waits for a web server, for a page or for the user."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Network
from dsv4agent.tools import AskUser
from dsv4agent.tools.browser import BrowserTool
from dsv4agent.tools.web_fetch import WebFetchTool
from tests.tools.cancellation import Call, Row, Trial, comes_true, listening_ports
from tests.tools.shell_desk import Desk

SITE = Path(__file__).with_name("browser_site.py")
_CHROMIUM = "chrom"

_ARTICLE = (
    "<!doctype html><html><head><title>Slow</title></head><body><article><h1>Waiting</h1>"
    + "".join(f"<p>Sentence {n} of many, which tell of waiting for {n} answers.</p>\n" for n in range(200))
    + "</article></body></html>"
)


class _SlowSite(BaseHTTPRequestHandler):
    """Answers with an article, but hesitates before the header and within the body."""

    def do_GET(self) -> None:
        data = _ARTICLE.encode()
        try:
            if self.path != "/quick":
                time.sleep(0.03)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for start in range(0, len(data), 2048):
                self.wfile.write(data[start : start + 2048])
                if self.path != "/quick":
                    time.sleep(0.01)
        except OSError:
            pass  # The client has gone away.

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _slow_site() -> Generator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _SlowSite)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _open_connections(port: int) -> int:
    """Return how many connections of this machine to a port are open."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[3] == "01" and int(fields[2].rpartition(":")[2], 16) == port for fields in lines)


async def _no_connection_is_open(desk: Desk, trial: Trial) -> None:
    assert await comes_true(lambda: _open_connections(trial.site) == 0), "a connection is left open"


def _fetch(trial: Trial, page: str) -> Call:
    return "web_fetch", {"url": f"http://127.0.0.1:{trial.site}/{page}"}


async def _page_before_a_browser(desk: Desk, trial: Trial) -> None:
    """Serve the site inside the sandbox; every fourth trial starts the browser, the others find one."""
    if trial.number == 0:
        source = SITE.read_text()
        server = await desk.sandbox.spawn([sys.executable, "-u", "-c", source, str(trial.port)])
        assert int(await server.read()) == trial.port
    if trial.number % 4 == 0:
        await desk.tools["browser"].aclose()
    else:
        desk.last = await desk.text("browser", action="goto", url=_address(trial, "form"))


def _address(trial: Trial, page: str) -> str:
    return f"http://127.0.0.1:{trial.port}/{page}"


def _browse(desk: Desk, trial: Trial) -> Call:
    if trial.number % 4 < 2:
        return "browser", {"action": "goto", "url": _address(trial, "endless")}
    element, arguments = (("checkbox", {"action": "click"}), ("textbox", {"action": "type", "text": "Ada"}))[
        trial.number % 4 - 2
    ]
    found = re.search(rf"{element} [^\n]*\[ref=(e\d+)\]", desk.last)
    assert found, desk.last
    return "browser", {**arguments, "ref": found[1]}


async def _only_the_server_listens(desk: Desk, trial: Trial) -> None:
    assert listening_ports() == {trial.port}


class _Users:
    """A user who answers quick questions and never the others."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, question: str, options: Sequence[str]) -> str:
        self.asked += 1
        try:
            await anyio.sleep(0 if question == "quick" else 1000)
        finally:
            self.asked -= 1
        return "an answer"


_USER = _Users()


async def _nobody_is_asked(desk: Desk, trial: Trial) -> None:
    assert _USER.asked == 0, "a question stays open"


WEB_ROWS = (
    Row(
        "browser",
        lambda: [BrowserTool()],
        _browse,
        shortest=0.01,
        longest=1.5,
        before=_page_before_a_browser,
        after=_only_the_server_listens,
        again=lambda trial: ("browser", {"action": "goto", "url": _address(trial, "second")}),
        works=".*\ntitle: Second\n.*",
        stays=_CHROMIUM,
        not_on={"landlock"},
        trials=4,
    ),
    Row(
        "web_fetch",
        lambda: [WebFetchTool()],
        lambda _, trial: _fetch(trial, "slow"),
        longest=0.5,
        site=_slow_site,
        policy=lambda site: {"network": Network.only(f"127.0.0.1:{site}")},
        after=_no_connection_is_open,
        again=lambda trial: _fetch(trial, "quick"),
        works=".*Sentence 17 of many.*",
        not_on={"landlock"},
        trials=6,
    ),
    Row(
        "ask_user",
        lambda: [AskUser(_USER)],
        lambda _, trial: ("ask_user", {"question": f"slow {trial.number}"}),
        longest=0.05,
        after=_nobody_is_asked,
        again=lambda _: ("ask_user", {"question": "quick"}),
        works="an answer",
    ),
)
