"""Real HTTP and HTTPS servers on 127.0.0.1 for tests of the network, and names that lead to them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Page:
    """What a path answers."""

    body: bytes = b"hello\n"
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay: threading.Event | None = None


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class WebServer:
    """A running server."""

    port: int
    pages: dict[str, Page | Callable[[Seen], Page]]
    seen: list[Seen]


@contextmanager
def serve(
    pages: Mapping[str, Page | Callable[[Seen], Page]], tls: ssl.SSLContext | None = None
) -> Generator[WebServer]:
    """Serve pages by path (with the query) on a free port of 127.0.0.1."""
    known = dict(pages)
    seen: list[Seen] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            request = Seen(self.requestline, self.headers.items(), self._body())
            seen.append(request)
            page = known.get(self.path, Page(b"no such page\n", status=404))
            page = page(request) if callable(page) else page
            if page.delay is not None:
                page.delay.wait(20)
            self.send_response(page.status)
            for name, value in {"Content-Type": page.kind, **page.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            if self.command != "HEAD":
                try:
                    self.wfile.write(page.body)
                except OSError:
                    self.close_connection = True  # The client had enough.

        do_GET = do_HEAD = do_POST = do_PUT = answer

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # Clients that give up within a TLS greeting are part of the tests.

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        # The greeting is part of the first read, so that a client that sends none holds nobody else up.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield WebServer(server.server_address[1], known, seen)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for some names."""

    file: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


def make_certificate(folder: Path, *names: str) -> Certificate:
    """Make a certificate with openssl, or skip the test."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate = Certificate(folder / "certificate.pem", folder / "key.pem")
    alternatives = ",".join(f"DNS:{name}" for name in names)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split()
    command += ["-keyout", str(certificate.key), "-out", str(certificate.file)]
    command += ["-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate


class Names:
    """A resolver with a list of answers for each name; the last one stays. Counts the lookups."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.lookups: list[str] = []

    async def __call__(self, name: str, port: int) -> list[str]:
        self.lookups.append(name)
        found = self.answers.get(name)
        if found is None:
            raise OSError(f"{name} is unknown")
        return found.pop(0) if len(found) > 1 else found[0]


def loopback_is_public(address: IPv4Address | IPv6Address) -> str | None:
    """Judge 127.0.0.0/24 as the internet, so that servers of a test can stand for public ones."""
    return None if str(address).startswith("127.0.0.") else "a private address in this test"
