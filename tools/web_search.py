"""The `web_search` tool: titles, addresses and snippets from a search service, under the network policy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dsv4agent.tools.base import Effects, ToolContext, ToolResult
from dsv4agent.tools.file_view import cut_start
from dsv4agent.tools.search_providers import SearchHit, SearchProvider
from dsv4agent.tools.web_client import WebError
from dsv4agent.tools.web_fetch import failed

DEFAULT_LIMIT = 5
MOST_HITS = 10
_QUERY_LENGTH = 400
_SNIPPET_LENGTH = 400


class WebSearchTool:
    """Asks one service; where none is set up there is no tool, instead of one that always fails.

    Args:
        provider: The service.
    """

    name = "web_search"
    description = "Search the web and return titles, URLs and snippets; read a page with web_fetch."
    effects = Effects.NETWORK

    def __init__(self, provider: SearchProvider) -> None:
        self._provider = provider
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["query"],
            "properties": {
                "query": {"type": "string", "description": "What to search for."},
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MOST_HITS,
                    "description": f"Number of results, {DEFAULT_LIMIT} if left out.",
                },
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Search for `args["query"]`."""
        started = time.monotonic()
        query = " ".join(args["query"].split())
        if not query or len(query) > _QUERY_LENGTH:
            return failed("invalid_arguments", f"the query must have 1 to {_QUERY_LENGTH} characters")
        try:
            hits = await self._provider.search(
                query, args.get("limit", DEFAULT_LIMIT), ctx.sandbox.gate.connect
            )
        except WebError as error:
            return failed(error.code, error.reason)
        text = "\n".join(_shown(number, hit) for number, hit in enumerate(hits, 1))
        if not hits:
            text = "(no results) Use fewer or other words."
        return ToolResult(text=cut_start(ctx, text), duration_ms=1000 * (time.monotonic() - started))

    async def aclose(self) -> None:
        """Release nothing: no connection outlives its call."""


def _shown(number: int, hit: SearchHit) -> str:
    lines = [f"{number}. {hit.title or '(no title)'}", f"   {hit.url}"]
    if hit.snippet:
        cut = len(hit.snippet) > _SNIPPET_LENGTH
        lines.append(f"   {hit.snippet[:_SNIPPET_LENGTH].rstrip()}{'...' if cut else ''}")
    return "\n".join(lines)
