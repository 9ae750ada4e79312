"""HTTP for tools: every connection, also that of each redirect, goes through the sandbox's gate."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus

import anyio
import httpcore
import httpx
from anyio.abc import SocketStream

from dsv4agent.sandboxes import NetworkDenied
from dsv4agent.sandboxes.hosts import normalised_host
from dsv4agent.tools.gate_backend import GateBackend

Connect = Callable[[str, int], Awaitable[SocketStream]]
"""Connects to a host and port under the sandbox's network policy: `Gate.connect`."""

MOST_BYTES = 5 << 20
REDIRECTS = 5
PATIENCE = 30.0
"""Seconds for a request with all its redirects."""

USER_AGENT = "dsv4agent"
_REDIRECTING = frozenset({301, 302, 303, 307, 308})


class WebError(Exception):
    """Raised when a request fails in a way that a model can act on.

    Attributes:
        code: `network_denied`, `not_found`, `http_error`, `timeout`, `too_large`, `invalid_arguments`.
        reason: What happened, and the next useful step.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Reply:
    """The response to a request.

    Attributes:
        url: The URL that answered, after redirects.
        headers: By name in lower case; of several with one name, the last.
        body: Without content encoding.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes


def parse_url(text: str) -> httpx.URL:
    """Return a URL that can be requested.

    Raises:
        WebError: It cannot.
    """
    try:
        url = httpx.URL(text.strip())
        if url.host:
            normalised_host(url.host)
        if not 0 < (url.port or 1) < 65536:
            raise ValueError("no such port")
    except (httpx.InvalidURL, ValueError) as error:
        raise WebError("invalid_arguments", f"{text[:200]!r} is not a URL ({error})") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise WebError(
            "invalid_arguments", f"{text[:200]!r} does not begin with http:// or https:// and a host"
        )
    if url.userinfo:
        raise WebError(
            "invalid_arguments", "a URL with a user name or password is not requested; leave it out"
        )
    return url.copy_with(fragment=None)


async def request(
    connect: Connect,
    url: httpx.URL,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """Send a request, following redirects of a GET, without cookies or stored credentials.

    Args:
        connect: Makes the connections.
        url: From `parse_url`.
        method: `GET` or `POST`.
        headers: Sent to the first host only.
        content: Body.
        tls: How servers prove who they are; the common authorities by default.

    Raises:
        WebError: There is no response with status 200 to 299, of at most `MOST_BYTES`, in `PATIENCE` seconds.
    """
    pool = httpcore.AsyncConnectionPool(
        ssl_context=tls or _common_authorities(), network_backend=GateBackend(connect)
    )
    try:
        with anyio.fail_after(PATIENCE):
            async with pool:
                for _ in range(REDIRECTS + 1):
                    reply = await _exchange(pool, url, method, headers or {}, content)
                    if isinstance(reply, Reply):
                        return reply
                    if method != "GET":
                        raise WebError("http_error", f"{url} redirects to {reply} instead of answering")
                    url, headers = parse_url(str(reply)), {}
                raise WebError("http_error", f"more than {REDIRECTS} redirects, the last one to {url}")
    except NetworkDenied as denied:
        raise WebError("network_denied", _denied(denied, url.host)) from None
    except (TimeoutError, httpcore.TimeoutException) as error:
        reason = str(error) or f"{url} did not answer in full within {PATIENCE:g} s"
        raise WebError("timeout", reason) from None
    except ssl.SSLError as error:
        raise WebError("http_error", f"no safe connection to {url.host}: {error.reason or error}") from None
    except (OSError, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise WebError("http_error", f"{url} cannot be reached: {_said(error)}") from None


@cache
def _common_authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context()


async def _exchange(
    pool: httpcore.AsyncConnectionPool,
    url: httpx.URL,
    method: str,
    headers: Mapping[str, str],
    content: bytes,
) -> Reply | httpx.URL:
    """Send one request; return the response, or where it redirects to."""
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path or b"/"
    )
    sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **headers}
    async with pool.stream(method, target, headers=list(sent.items()), content=content) as response:
        received = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
        }
        if response.status in _REDIRECTING and "location" in received:
            try:
                return url.join(received["location"])
            except httpx.InvalidURL:
                raise WebError("http_error", f"{url} redirects to nonsense") from None
        if not 200 <= response.status < 300:
            raise _status_error(url, response.status, received)
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise _too_large(url)
    return Reply(str(url), received, _decoded(url, bytes(body), received.get("content-encoding", "")))


def _decoded(url: httpx.URL, body: bytes, encoding: str) -> bytes:
    """Undo the content encoding, never to more than the limit."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"} or not body:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise WebError(
            "http_error", f"{url} answers in the encoding {encoding[:20]!r}, which was not asked for"
        )
    try:
        # 32 more than the window's size: zlib finds out which of both headers there is.
        decoder = zlib.decompressobj(32 + zlib.MAX_WBITS)
        plain = decoder.decompress(body, MOST_BYTES + 1)
    except zlib.error as error:
        raise WebError("http_error", f"{url} answers with broken {encoding} data: {error}") from None
    if len(plain) > MOST_BYTES:
        raise _too_large(url)
    if not decoder.eof:
        raise WebError("http_error", f"{url} answers with {encoding} data that break off")
    return plain


def _too_large(url: httpx.URL) -> WebError:
    return WebError(
        "too_large", f"{url} has more than {MOST_BYTES >> 20} MB; look for a smaller page or part"
    )


def _status_error(url: httpx.URL, status: int, headers: Mapping[str, str]) -> WebError:
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    if status in {404, 410}:
        return WebError("not_found", f"{url} answers {phrase}; check the address, or search for the page")
    advice = ""
    if status in {401, 403, 407}:
        advice = "; the page is not open to everybody, use another source"
    elif status in {429, 503} and "retry-after" in headers:
        advice = f"; try again after {headers['retry-after'][:40]} (seconds or date)"
    elif status >= 500:
        advice = "; try again later or use another source"
    return WebError("http_error", f"{url} answers {phrase}{advice}")


def _denied(denied: NetworkDenied, host: str) -> str:
    advice = "use another source"
    if normalised_host(host) in {"localhost", "127.0.0.1", "::1"}:
        advice = "a server that runs inside the sandbox is reached from the shell, with curl"
    if denied.rule is not None:
        advice += f", or ask the user to add {denied.rule} to the allowed hosts"
    return f"{denied.reason}; {advice}"


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
