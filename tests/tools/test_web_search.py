import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dsv4agent.sandboxes import MemorySandbox, Network, Policy, Sandbox
from dsv4agent.tools import Status, ToolContext, ToolResult
from dsv4agent.tools.search_providers import (
    BraveSearch,
    SearchProvider,
    SearxngSearch,
    TavilySearch,
    search_provider_from_environment,
)
from dsv4agent.tools.web_search import WebSearchTool
from tests.tools.editor_desk import count_words
from tests.web_servers import Page, Seen, WebServer, serve

pytestmark = pytest.mark.anyio

FOUND = [
    {
        "url": f"https://example.org/{number}",
        "title": f"Page <b>{number}</b>",
        "content": "A &amp;\n B",
    }
    for number in range(1, 21)
]


def as_json(value: Any) -> Page:
    return Page(json.dumps(value).encode(), "application/json")


def searxng(request: Seen) -> Page:
    return as_json({"query": "q", "results": FOUND, "suggestions": []})


def brave(request: Seen) -> Page:
    if request.header("X-Subscription-Token") != "key-1":
        return Page(status=401)
    count = int(parse_qs(urlsplit(request.line.split()[1]).query)["count"][0])
    hits = [{"url": hit["url"], "title": hit["title"], "description": hit["content"]} for hit in FOUND]
    return as_json({"type": "search", "web": {"type": "search", "results": hits[:count]}})


def tavily(request: Seen) -> Page:
    if request.header("Authorization") != "Bearer key-2":
        return Page(status=401)
    return as_json({"results": FOUND[: json.loads(request.body)["max_results"]], "response_time": 0.1})


@pytest.fixture
def services() -> Iterator[WebServer]:
    with serve({}) as server:
        query = "q=how+do+tides+work%3F"
        server.pages[f"/search?{query}&format=json"] = searxng
        for count in (2, 5, 10):
            server.pages[f"/brave?{query}&count={count}&text_decorations=false"] = brave
        server.pages["/tavily"] = tavily
        yield server


@pytest.fixture
def sandbox(services: WebServer) -> Sandbox:
    return MemorySandbox(policy=Policy("/w", network=Network.only(f"127.0.0.1:{services.port}")))


async def search(
    provider: SearchProvider, sandbox: Sandbox, query: str = "how do tides work?", **arguments: int
) -> ToolResult:
    context = ToolContext(sandbox, count_words, 2000)
    return await WebSearchTool(provider)(context, {"query": query, **arguments})


PROVIDERS: dict[str, Callable[[str], SearchProvider]] = {
    "searxng": lambda base: SearxngSearch(base + "/"),
    "brave": lambda base: BraveSearch("key-1", f"{base}/brave"),
    "tavily": lambda base: TavilySearch("key-2", f"{base}/tavily"),
}


@pytest.fixture(params=sorted(PROVIDERS))
def provider(request: pytest.FixtureRequest, services: WebServer) -> SearchProvider:
    return PROVIDERS[request.param](f"http://127.0.0.1:{services.port}")


async def test_hits_are_listed_best_first(provider: SearchProvider, sandbox: Sandbox) -> None:
    result = await search(provider, sandbox, " how do\ntides work? ", limit=2)
    assert result.text == (
        "1. Page 1\n   https://example.org/1\n   A & B\n2. Page 2\n   https://example.org/2\n   A & B"
    )
    assert (result.status, result.code) == (Status.OK, None)


async def test_five_hits_are_the_default_and_ten_the_most(provider: SearchProvider, sandbox: Sandbox) -> None:
    assert (await search(provider, sandbox)).text.count("https://") == 5
    assert (await search(provider, sandbox, limit=10)).text.count("https://") == 10
    assert WebSearchTool(provider).parameters["properties"]["limit"]["maximum"] == 10


async def test_services_are_hosts_like_others(provider: SearchProvider, services: WebServer) -> None:
    result = await search(provider, MemorySandbox())
    assert (result.code, result.status) == ("network_denied", Status.DENIED)
    other = MemorySandbox(policy=Policy("/w", network=Network.only("example.org")))
    result = await search(provider, other)
    assert result.text.startswith(f"network_denied: 127.0.0.1:{services.port} is not in the allow list; ")
    assert f"ask the user to add 127.0.0.1:{services.port} to the allowed hosts" in result.text
    assert services.seen == []


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b'{"results": 3, "web": 3}', b'{"results": [{}], "web": []}']
)
async def test_answers_that_are_no_hits(
    provider: SearchProvider, services: WebServer, sandbox: Sandbox, answer: bytes
) -> None:
    for path in services.pages:
        services.pages[path] = Page(answer, "application/json")
    result = await search(provider, sandbox)
    assert result.text.startswith(f"http_error: {provider.name} answers with something else than hits: ")


async def test_nothing_found_is_no_error(
    provider: SearchProvider, services: WebServer, sandbox: Sandbox
) -> None:
    for path in services.pages:
        services.pages[path] = as_json({"results": [], "web": {"results": []}})
    result = await search(provider, sandbox)
    assert (result.text, result.status) == ("(no results) Use fewer or other words.", Status.OK)


async def test_a_wrong_key_is_an_error_that_does_not_show_it(services: WebServer, sandbox: Sandbox) -> None:
    base = f"http://127.0.0.1:{services.port}"
    for provider in (BraveSearch("wrong-key", f"{base}/brave"), TavilySearch("wrong-key", f"{base}/tavily")):
        result = await search(provider, sandbox)
        assert result.code == "http_error" and "401 Unauthorized" in result.text
        assert "wrong-key" not in result.text + repr(provider)


async def test_a_service_that_redirects_gets_no_key_elsewhere(services: WebServer, sandbox: Sandbox) -> None:
    base = f"http://127.0.0.1:{services.port}"
    for path in list(services.pages):
        services.pages[path] = Page(status=307, headers={"Location": f"{base}/elsewhere"})
    services.pages["/elsewhere"] = as_json({"web": {"results": []}})
    await search(BraveSearch("key-1", f"{base}/brave"), sandbox)
    await search(TavilySearch("key-2", f"{base}/tavily"), sandbox)
    elsewhere = [seen for seen in services.seen if seen.line.startswith("GET /elsewhere")]
    assert len(elsewhere) == 1 and elsewhere[0].header("X-Subscription-Token") is None
    assert not any("elsewhere" in seen.line for seen in services.seen if seen.line.startswith("POST"))


@pytest.mark.parametrize("query", ["", "  \n ", "x" * 401])
async def test_queries_that_cannot_be_meant(provider: SearchProvider, sandbox: Sandbox, query: str) -> None:
    assert (await search(provider, sandbox, query)).code == "invalid_arguments"


async def test_long_lists_fit_the_budget(services: WebServer, sandbox: Sandbox) -> None:
    long = [{**hit, "content": "word " * 300} for hit in FOUND]
    for path in services.pages:
        services.pages[path] = as_json({"results": long})
    provider = SearxngSearch(f"http://127.0.0.1:{services.port}")
    context = ToolContext(sandbox, count_words, 500)
    result = await WebSearchTool(provider)(context, {"query": "how do tides work?", "limit": 10})
    assert count_words(result.text) <= 500
    assert result.text.startswith("1. Page 1\n") and "word...\n2. Page 2" in result.text


def test_the_environment_names_the_service() -> None:
    assert search_provider_from_environment({}) is None
    assert search_provider_from_environment({"BRAVE_API_KEY": ""}) is None
    assert search_provider_from_environment({"TAVILY_API_KEY": "t"}) == TavilySearch("t")
    assert search_provider_from_environment({"BRAVE_API_KEY": "b", "TAVILY_API_KEY": "t"}) == BraveSearch("b")
    url = "http://127.0.0.1:8888"
    found = search_provider_from_environment({"SEARXNG_URL": url, "BRAVE_API_KEY": "b"})
    assert found == SearxngSearch(url)
