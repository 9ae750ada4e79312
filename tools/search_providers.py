"""Services that search the web, each reached through the sandbox's gate like any other host."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Protocol, TypeVar

from pydantic import BaseModel, Field, ValidationError

from dsv4agent.tools.web_client import Connect, Reply, WebError, parse_url, request

_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class SearchHit:
    """One page that was found; all in plain text."""

    title: str
    url: str
    snippet: str


class SearchProvider(Protocol):
    """A service that searches the web."""

    @property
    def name(self) -> str:
        """What the service is called."""
        ...

    async def search(self, query: str, limit: int, connect: Connect) -> list[SearchHit]:
        """Return at most `limit` hits, best first. Raises `WebError`."""
        ...


def search_provider_from_environment(
    environment: Mapping[str, str] = os.environ,
) -> SearchProvider | None:
    """Return the service that the environment names, None if it names none.

    `SEARXNG_URL` (an instance with JSON switched on), `BRAVE_API_KEY`, `TAVILY_API_KEY`, in this order. They
    are read once, here; no program inside a sandbox sees them.
    """
    if url := environment.get("SEARXNG_URL"):
        return SearxngSearch(url)
    if key := environment.get("BRAVE_API_KEY"):
        return BraveSearch(key)
    if key := environment.get("TAVILY_API_KEY"):
        return TavilySearch(key)
    return None


@dataclass(frozen=True)
class SearxngSearch:
    """An instance of SearXNG, the metasearch engine that people host themselves.

    Attributes:
        url: Where the instance is, without `/search`.
        tls: How it proves who it is; the common authorities by default.
    """

    url: str
    tls: ssl.SSLContext | None = None
    name: str = "SearXNG"

    async def search(self, query: str, limit: int, connect: Connect) -> list[SearchHit]:
        """Ask the instance; one that has not switched JSON on answers 403."""
        url = parse_url(f"{self.url.rstrip('/')}/search").copy_merge_params({"q": query, "format": "json"})
        reply = await request(connect, url, headers={"Accept": "application/json"}, tls=self.tls)
        return [hit.plain() for hit in _read(reply, _Results, self.name).results[:limit]]


@dataclass(frozen=True)
class BraveSearch:
    """The web search of Brave.

    Attributes:
        key: The subscription's token.
        url: Where the service is.
        tls: As for `SearxngSearch`.
    """

    key: str = field(repr=False)
    url: str = "https://api.search.brave.com/res/v1/web/search"
    tls: ssl.SSLContext | None = None
    name: str = "Brave Search"

    async def search(self, query: str, limit: int, connect: Connect) -> list[SearchHit]:
        """Ask the service."""
        parameters = {"q": query, "count": str(limit), "text_decorations": "false"}
        url = parse_url(self.url).copy_merge_params(parameters)
        headers = {"Accept": "application/json", "X-Subscription-Token": self.key}
        reply = await request(connect, url, headers=headers, tls=self.tls)
        return [hit.plain() for hit in _read(reply, _BraveAnswer, self.name).web.results[:limit]]


@dataclass(frozen=True)
class TavilySearch:
    """The search of Tavily, made for agents.

    Attributes:
        key: The API key.
        url: Where the service is.
        tls: As for `SearxngSearch`.
    """

    key: str = field(repr=False)
    url: str = "https://api.tavily.com/search"
    tls: ssl.SSLContext | None = None
    name: str = "Tavily"

    async def search(self, query: str, limit: int, connect: Connect) -> list[SearchHit]:
        """Ask the service."""
        reply = await request(
            connect,
            parse_url(self.url),
            method="POST",
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
            content=json.dumps({"query": query, "max_results": limit}).encode(),
            tls=self.tls,
        )
        return [hit.plain() for hit in _read(reply, _Results, self.name).results[:limit]]


class _Hit(BaseModel):
    """A hit as the services send it; the snippet is `content` or `description`."""

    url: str
    title: str | None = None
    content: str | None = None
    description: str | None = None

    def plain(self) -> SearchHit:
        return SearchHit(_plain(self.title), self.url, _plain(self.content or self.description))


class _Results(BaseModel):
    results: list[_Hit] = Field(default_factory=list[_Hit])


class _BraveAnswer(BaseModel):
    web: _Results = Field(default_factory=_Results)


Answer = TypeVar("Answer", bound=BaseModel)


def _read(reply: Reply, kind: type[Answer], name: str) -> Answer:
    try:
        return kind.model_validate_json(reply.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise WebError("http_error", f"{name} answers with something else than hits: {first}") from None


def _plain(text: str | None) -> str:
    """Return text without tags and line breaks."""
    return " ".join(unescape(_TAG.sub("", text or "")).split())
