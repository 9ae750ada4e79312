"""From the bytes of a page to text, by what they are; markup and documents are parsed inside the sandbox."""

from __future__ import annotations

import codecs
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from dsv4agent.sandboxes import Sandbox

TEXT_CHARACTERS = 4 << 20
"""The longest text that is taken from a page."""
EXTRACT_SECONDS = 20
EXTRACT_MEMORY = 1 << 30

# The source arrives on stdin, so that it need not be readable inside the sandbox.
_BOOT = "import sys;i=sys.stdin.buffer;exec(compile(i.read(int(i.readline())),'extract','exec'))"
_SOURCE = Path(__file__).with_name("_extract.py")

_TEXT_TYPES = re.compile(
    r"text/.+|application/(.+\+)?(json|xml|yaml|toml)|application/(x-)?(javascript|ndjson|sh|sql|tex|yaml|toml)"
)
_CHARSETS = re.compile(
    r"ascii|utf-(8|8-sig|16|32)(-[bl]e)?|(iso8859|koi8|mac|tis|ptcp|kz|hp)[-_].+|cp\d+"
    r"|big5.*|gb.+|hz|euc_.+|shift_jis.*|iso2022_.+|johab"
)
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(frozen=True)
class PageText:
    """What a page says.

    Attributes:
        title: Its title, empty if it has none.
        text: Its text; markdown if it was HTML.
    """

    title: str
    text: str


class Unsupported(Exception):
    """Raised when there is no way from the bytes to text; says why."""


async def page_text(sandbox: Sandbox, body: bytes, media_type: str, charset: str, url: str) -> PageText:
    """Return the text of a page.

    Args:
        sandbox: Where markup and documents are parsed.
        body: The page.
        media_type: As the server says, in lower case and without parameters; may be empty.
        charset: As the server says; may be empty.
        url: Makes links absolute.

    Raises:
        Unsupported: It holds no text, or none that can be read.
        TimeoutError: Parsing took too long.
        SandboxError: The sandbox runs no programs.
    """
    if body.startswith(b"%PDF-") or media_type == "application/pdf":
        return await _extracted(sandbox, "pdf", body, "", url)
    if media_type in _HTML_TYPES or (
        not media_type and body.lstrip()[:15].lower().startswith(b"<!doctype html")
    ):
        return await _extracted(sandbox, "html", body, charset, url)
    is_binary = b"\0" in body[:4096] and not charset.startswith(("utf-16", "utf-32"))
    if (_TEXT_TYPES.fullmatch(media_type) or not media_type) and not is_binary:
        return PageText("", body.decode(charset or "utf-8", "replace").removeprefix("\ufeff"))
    raise Unsupported("only HTML, text, JSON, XML and PDF are read")


def known_charset(name: str) -> str:
    """Return the name of a character set if pages are written in it, else an empty string.

    Python's other codecs (`hex`, `zip`, `punycode`) are none, or take time that pages could make them spend.
    """
    try:
        known = codecs.lookup(name.strip("\"' ")).name
    except (LookupError, ValueError):
        return ""
    return known if _CHARSETS.fullmatch(known) else ""


async def _extracted(sandbox: Sandbox, kind: str, body: bytes, charset: str, url: str) -> PageText:
    source = _SOURCE.read_bytes()
    request = {
        "kind": kind,
        "charset": charset or None,
        "url": url,
        "memory": EXTRACT_MEMORY,
        "seconds": EXTRACT_SECONDS,
        "characters": TEXT_CHARACTERS,
    }
    fed = b"%d\n%s%s\n%s" % (len(source), source, json.dumps(request).encode(), body)
    done = await sandbox.run([sys.executable, "-I", "-c", _BOOT], input=fed, timeout=EXTRACT_SECONDS)
    try:
        answer = json.loads(done.stdout)
        error, title, text = answer.get("error"), str(answer.get("title", "")), str(answer.get("text", ""))
    except (ValueError, AttributeError):
        raise Unsupported(f"the process that read it ended with exit code {done.exit_code}") from None
    if error:
        raise Unsupported(str(error))
    if not text.strip():
        raise Unsupported("it holds no text (a picture, or a page made by scripts)")
    return PageText(title, text)
