"""One plain HTTP request and its response, read and written anew on the way through the proxy."""

from __future__ import annotations

import anyio
import h11

from dsv4agent.sandboxes.http_peer import BadRequest, Headers, HttpPeer, end_to_end


async def forward(
    program: HttpPeer, server: HttpPeer, request: h11.Request, host: bytes, path: bytes, idle: float
) -> str:
    """Pass a request and its response on, each at its own pace.

    Args:
        program: The program inside, which sent the head of the request.
        server: A fresh connection to the host, used for this request alone.
        request: The head.
        host: What `Host` says.
        path: Path and query.
        idle: Seconds without a byte in either direction after which the exchange ends.

    Returns:
        What failed on the host's side, or an empty string.

    Raises:
        BadRequest: The request's body is broken.
    """
    failure = broken = ""
    scope = anyio.CancelScope()

    def moved() -> None:
        scope.deadline = anyio.current_time() + idle

    async def upload() -> None:
        nonlocal broken
        try:
            await server.send(h11.Request(method=request.method, target=path, headers=_asked(request, host)))
            while True:
                event = await program.receive()
                moved()
                if isinstance(event, h11.Data):
                    await server.send(h11.Data(data=bytes(event.data)))
                elif isinstance(event, h11.EndOfMessage):
                    await server.send(h11.EndOfMessage())
                    return
                else:
                    raise ConnectionResetError("the request is incomplete")
                moved()
        except h11.ProtocolError as error:
            broken = f"the request's body is broken: {error}"
            scope.cancel()
        except OSError:
            pass  # The host may have answered before it had read everything.

    async def download() -> None:
        nonlocal failure
        try:
            while True:
                event = await server.receive()
                moved()
                if isinstance(event, h11.Response):
                    headers = _answered(event)
                    await program.send(
                        h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
                    )
                elif isinstance(event, h11.Data):
                    await program.send(h11.Data(data=bytes(event.data)))
                elif isinstance(event, h11.EndOfMessage):
                    await program.send(h11.EndOfMessage())
                    return
                elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                    failure = "the server ended the connection"
                    return
                moved()
        except h11.ProtocolError as error:
            failure = f"the server does not speak HTTP/1.1: {error}"
        except OSError as error:
            failure = f"the connection broke: {error}"

    moved()
    with scope:
        if program.state.they_are_waiting_for_100_continue:
            await program.send(h11.InformationalResponse(status_code=100, headers=[]))
        async with anyio.create_task_group() as group:
            group.start_soon(upload)
            await download()
            group.cancel_scope.cancel()
    if broken:
        raise BadRequest(broken)
    return failure or ("the server did not answer in time" if scope.cancelled_caught else "")


def _asked(request: h11.Request, host: bytes) -> Headers:
    headers = [(key, value) for key, value in end_to_end(request.headers) if key not in {b"host", b"expect"}]
    if _is_chunked(request):
        headers.append((b"transfer-encoding", b"chunked"))
    return [(b"host", host), *headers, (b"connection", b"close")]


def _answered(response: h11.Response) -> Headers:
    """Return the headers for the program; without a length h11 chooses chunks, or the connection's end."""
    headers = end_to_end(response.headers)
    if _is_chunked(response):
        headers = [(key, value) for key, value in headers if key != b"content-length"]
    return headers


def _is_chunked(message: h11.Request | h11.Response) -> bool:
    return any(key == b"transfer-encoding" for key, _ in message.headers)
