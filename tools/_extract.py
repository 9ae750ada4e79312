"""Turns a page or document into text. Foreign bytes are parsed here, in a process inside the sandbox.

Sent as text to an interpreter and run there. Input: a line of JSON with `kind` (`html` or `pdf`), `charset`
(or null), `url`, and the limits `memory` (bytes), `seconds` and `characters`; then the bytes. Output: JSON
with `title` and `text`, or with `error`.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import resource
import sys
from typing import Any

_SHORT = 200
"""Characters below which the main text of a page is doubted, and all of it is taken."""
_PAGES = 300


def main() -> None:
    """Read, extract, write."""
    logging.disable(logging.CRITICAL)
    request: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (request["seconds"], request["seconds"]))
    data = sys.stdin.buffer.read()
    extract = _from_pdf if request["kind"] == "pdf" else _from_html
    try:
        title, text = extract(data, request)
        answer = {"title": title[:500], "text": text[: request["characters"]]}
    except ImportError as error:
        answer = {"error": f"the package {error.name} is not installed (pip install 'dsv4agent[web]')"}
    except MemoryError:
        answer = {"error": "it takes too much memory to read"}
    except Exception as error:  # Parsers fail in their own ways, and the text of it is all that is of use.
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    sys.stdout.buffer.write(json.dumps(answer).encode())


def _from_html(data: bytes, request: dict[str, Any]) -> tuple[str, str]:
    import trafilatura

    page: Any = data
    if request["charset"]:
        page = data.decode(request["charset"], "replace")
    tree: Any = trafilatura.load_html(page)
    if tree is None:
        return "", ""
    title = " ".join(str(tree.findtext(".//title") or "").split())
    text = trafilatura.extract(
        page,
        url=request["url"],
        output_format="markdown",
        include_links=True,
        include_tables=True,
        include_comments=False,
    )
    if not text or len(text) < _SHORT:
        whole = _whole_page(tree)
        text = whole if len(whole) > len(text or "") else text
    return title, text or ""


def _whole_page(tree: Any) -> str:
    """Return everything that a page shows, menus included."""
    from markdownify import markdownify

    etree: Any = importlib.import_module("lxml.etree")
    etree.strip_elements(tree, "script", "style", "noscript", "template", "svg", "head", with_tail=False)
    text: str = markdownify(etree.tostring(tree, encoding="unicode", method="html"), heading_style="ATX")
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    return "\n".join(kept).strip()


def _from_pdf(data: bytes, request: dict[str, Any]) -> tuple[str, str]:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    title = str(reader.metadata.title or "") if reader.metadata else ""
    pages = [page.extract_text().strip() for page in reader.pages[:_PAGES]]
    if len(reader.pages) > _PAGES:
        pages.append(f"[{len(reader.pages) - _PAGES} further pages not read]")
    return " ".join(title.split()), "\n\n".join(page for page in pages if page)


if __name__ == "__main__":
    main()
