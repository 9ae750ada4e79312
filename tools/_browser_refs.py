"""Snapshots of a page's accessibility tree, and refs that name its elements for as long as they live.

Runs inside the sandbox, as do all modules whose names begin with `_browser`. Playwright numbers elements anew
in each document, so that `e5` of the last page and `e5` of this page would be different elements. Here a
number is given out once in a session, and is good only while the document in which it was seen is there.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import ElementHandle, Frame, JSHandle, Page
from playwright.async_api import Error as PlaywrightError

MOST_LINES = 20_000
"""Lines of one snapshot that are looked at; pages beyond that are not read by scrolling."""
MOST_CHARACTERS = 2_000_000
MOST_FRAMES = 50
_RETAKES = 3
_PROBE_SECONDS = 2.0

# `- role "name" [attribute] [attribute]: text`; YAML quotes the part before the colon if it must.
_KEY = re.compile(r'(/?[\w-]+(?: "(?:[^"\\]|\\.)*")?(?: /(?:[^/\\]|\\.)*/)?)((?: \[[^\]]*\])*)')
_QUOTED_KEY = re.compile(r"'((?:[^']|'')*)'(?=:|$)")
_REF = re.compile(r" \[ref=((?:f\d+)?e\d+)\]")
_BOX = re.compile(r" \[box=(-?\d+),(-?\d+),(\d+),(\d+)\]")


KEEP_REFS = """{
  // Playwright gives an element another ref when its name changes ("Follow" becomes "Following"); this makes
  // it keep the first. It is a selector engine, which finds nothing, because engines run where refs are kept.
  queryAll: (() => {
    const refs = new WeakMap();
    Object.defineProperty(Element.prototype, '_ariaRef', {
      configurable: true,
      get() { return refs.get(this); },
      set(value) {
        if (refs.has(this)) value.ref = refs.get(this).ref;
        refs.set(this, value);
      },
    });
    return () => [];
  })(),
}"""


class StaleRef(Exception):
    """Raised when a ref names nothing that is still there."""


@dataclass(frozen=True)
class Line:
    """One line of a snapshot.

    Attributes:
        depth: Levels below the root.
        text: The line without indentation.
        ref: Ref of the element, if it has one.
        in_view: Whether the element, or for text its parent, lies in the visible part of the page.
    """

    depth: int
    text: str
    ref: str | None
    in_view: bool


@dataclass
class _Known:
    """What a ref stands for: Playwright's own ref, and the documents that were there when it was seen."""

    inner: str
    documents: frozenset[int]


@dataclass
class RefBook:
    """The refs of one tab.

    Attributes:
        page: The tab's page.
        numbers: Where refs get their numbers, shared by all tabs of the session.
    """

    page: Page
    numbers: Iterator[int]
    _known: dict[str, _Known] = field(default_factory=dict[str, _Known])
    _by_inner: dict[str, str] = field(default_factory=dict[str, str])
    _documents: dict[Frame, tuple[int, JSHandle]] = field(default_factory=dict[Frame, tuple[int, JSHandle]])
    _document_numbers: Iterator[int] = field(default_factory=itertools.count)

    async def snapshot(self, timeout: float) -> list[Line]:
        """Return the page as lines, within `timeout` seconds.

        Raises:
            PlaywrightError: The page does not answer.
        """
        async with asyncio.timeout(timeout):
            text, before = "", dict[Frame, int]()
            for _ in range(_RETAKES):
                before = await self._look_at_documents()
                text = await self.page.aria_snapshot(mode="ai", boxes=True, timeout=1000 * timeout)
                if await self._look_at_documents() == before:
                    break  # Else a document was replaced meanwhile; whose refs these are would be a guess.
        documents = frozenset(before.values())
        size = self.page.viewport_size or {"width": 1280, "height": 720}
        return self._read(text, documents, (size["width"], size["height"]))

    async def element(self, ref: str) -> ElementHandle:
        """Return the element of a ref.

        Raises:
            StaleRef: It is gone, or was never given out.
        """
        known = self._known.get(ref)
        if known is None:
            raise StaleRef(ref)
        try:
            handle = await self.page.locator(f"aria-ref={known.inner}").element_handle(timeout=500)
            frame = await handle.owner_frame()
            documents = await self._look_at_documents()
        except PlaywrightError:
            raise StaleRef(ref) from None
        if frame is None or documents.get(frame) not in known.documents:
            raise StaleRef(ref)
        return handle

    async def _look_at_documents(self) -> dict[Frame, int]:
        """Return a number for the document that each frame holds; a new document has a new number."""
        frames = self.page.frames[:MOST_FRAMES]
        found = await asyncio.gather(*(self._document(frame) for frame in frames))
        self._documents = {
            frame: document for frame, document in zip(frames, found, strict=True) if document is not None
        }
        return {frame: number for frame, (number, _) in self._documents.items()}

    async def _document(self, frame: Frame) -> tuple[int, JSHandle] | None:
        known = self._documents.get(frame)
        if known is not None and await _answer(known[1].evaluate("() => true")):
            return known
        # A handle dies with its document, whatever the page's scripts do.
        handle = await _answer(frame.evaluate_handle("document"))
        if handle is None:
            return None
        if frame == self.page.main_frame:
            self._by_inner.clear()
        else:
            self._by_inner = {inner: ref for inner, ref in self._by_inner.items() if inner[0] != "f"}
        return next(self._document_numbers), handle

    def _read(self, text: str, documents: frozenset[int], viewport: tuple[int, int]) -> list[Line]:
        lines: list[Line] = []
        seen: list[tuple[int, bool]] = []  # Depth and visibility of the line's ancestors.
        known: dict[str, _Known] = {}
        frame_depth: int | None = None
        for raw in text[:MOST_CHARACTERS].split("\n")[:MOST_LINES]:
            body = raw.lstrip(" ")
            if not body.startswith("- "):
                continue
            depth = (len(raw) - len(body)) // 2
            head, attributes, rest = _parts(body[2:])
            while seen and seen[-1][0] >= depth:
                seen.pop()
            in_view = seen[-1][1] if seen else True
            if frame_depth is not None and depth <= frame_depth:
                frame_depth = None
            box = _BOX.search(attributes)
            if box and frame_depth is None and box[3] != "0":
                in_view = _overlap(tuple(map(int, box.groups())), viewport)
            if head.startswith("iframe"):
                # Boxes below are counted from the corner of the frame, so they say little.
                frame_depth = depth
            seen.append((depth, in_view))
            attributes = _BOX.sub("", attributes).replace(" [cursor=pointer]", "")
            ref = None
            if found := _REF.search(attributes):
                ref = self._by_inner.get(found[1]) or self._new_ref(found[1])
                known[ref] = _Known(found[1], documents)
                attributes = attributes.replace(found[0], f" [ref={ref}]")
            lines.append(Line(depth, _disarmed(head) + attributes + _disarmed(rest), ref, in_view))
        self._known = known
        return lines

    def _new_ref(self, inner: str) -> str:
        ref = self._by_inner[inner] = f"e{next(self.numbers)}"
        return ref


def _parts(entry: str) -> tuple[str, str, str]:
    """Split an entry into role with name, attributes in brackets, and what follows."""
    rest = ""
    if quoted := _QUOTED_KEY.match(entry):
        entry, rest = quoted[1].replace("''", "'"), entry[quoted.end() :]
    matched = _KEY.match(entry)
    if matched is None:
        return entry, "", rest
    return matched[1], matched[2], entry[matched.end() :] + rest


def _disarmed(text: str) -> str:
    """Keep a page's own text from looking like a ref."""
    return text.replace("[ref=", "[ ref=")


def _overlap(box: tuple[int, ...], viewport: tuple[int, int]) -> bool:
    left, top, width, height = box
    return left < viewport[0] and top < viewport[1] and left + width > 0 and top + height > 0


async def _answer(question: Awaitable[Any]) -> Any:
    """Return the page's answer, or None if the document is gone or does not answer."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return await question
    except (PlaywrightError, TimeoutError):
        return None
