"""A small web site for the browser's tests, on a port of 127.0.0.1 that it prints when it is ready.

The argument is the port; without one, a free one is taken.

A program of its own, with the standard library alone, so that it can run on either side of a sandbox.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs

HOME = """<title>Home</title><h1>Welcome</h1>
<a href="/form">The form</a> <a href="/second" target="_blank">New tab</a> <a href="/file">A file</a>
<a href="/large">A large file</a>
<button aria-label="&#39;Quoted&quot; - key: [ref=e2] &lt;b&gt; #"
onclick="this.remove()">x</button> <p>Fake: [ref=e1] and &#27;[31mred</p>"""
FORM = """<title>Form</title><form action="/form" method="post">
<label>Name <input name="name"></label> <label>Kind <select name="kind">
<option value="a">Apple</option><option value="b">Berry</option></select></label>
<label><input type="checkbox" name="agree"> Agree</label> <button>Send</button></form>"""
SCRIPTED = """<title>Scripted</title><div id="root"></div><script>
setTimeout(() => { root.innerHTML =
  '<button onclick="this.textContent = `Clicked ${++n} times`">Count</button>'
  + '<button onclick="this.remove()">Vanish</button>' }, 150); let n = 0
console.log('rendered', 1); console.error('a bad thing'); fetch('/missing'); setTimeout(() => nothing(), 100)
</script>"""
LOGIN = """<title>Login</title><form action="/login" method="post"><label>Password
<input name="password" type="password"></label></form>"""
DIALOGS = """<title>Dialogs</title><p id="out">nothing yet</p>
<script>const say = t => out.textContent = t</script>
<button onclick="alert('Mind the gap'); say('alerted')">Alert</button>
<button onclick="say('confirmed ' + confirm('Delete all?'))">Confirm</button>
<button onclick="say('prompted ' + prompt('Your name?', 'nobody'))">Prompt</button>
<button onclick="while (true) confirm('More?')">Insist</button>
<button onclick="while (true) alert('again')">Storm</button>
<button onclick="while (true) {}">Spin</button>
<button onclick="Notification.requestPermission().then(p => say('notifications ' + p))">Ask</button>
<input type="file" aria-label="Upload">"""
LONG = (
    "<title>Long</title><h1>Top</h1><main aria-label='Rows'>"
    + "".join(f"<p>Row {n} of many, with <a href='/row/{n}'>a link</a></p>" for n in range(600))
    + "</main><aside><button>Last</button></aside>"
)
POPUPS = """<title>Popups</title>
<button onclick="for (let i = 0; i < 12; i++) window.open('/second')">Many</button>"""
COVERED = """<title>Covered</title><button disabled>Off</button> <div style="position: relative">
<button>Under</button><div id="cover" style="position: absolute; inset: 0; background: red"></div></div>"""
PAGES = {
    "/": HOME,
    "/second": "<title>Second</title><h1>The second page</h1><p>Nothing here</p>",
    "/form": FORM,
    "/scripted": SCRIPTED,
    "/login": LOGIN,
    "/dialogs": DIALOGS,
    "/long": LONG,
    "/frames": "<title>Frames</title><h1>Outer</h1><iframe src='/form'></iframe>",
    "/popups": POPUPS,
    "/covered": COVERED,
}


class Site(BaseHTTPRequestHandler):
    """Serves the pages; what is sent to it comes back as text."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/asked":
            self.page("<title>Asked</title><p>" + " ".join(self.asked))
        elif self.path == "/endless":
            self.start({"Content-Type": "text/html"})
            self.trickle(b"<p>More</p>" + bytes(4000), 600)
        elif self.path == "/file":
            name = 'attachment; filename="../../evil name.txt"'
            self.start({"Content-Type": "text/plain", "Content-Disposition": name})
            self.wfile.write(b"content")
        elif self.path == "/large":
            self.start({"Content-Type": "application/x", "Content-Disposition": "attachment"})
            self.trickle(bytes(1 << 20), 100)
        elif self.path == "/secret":
            known = "key=right" in self.headers.get("Cookie", "")
            self.page("<title>Secret</title>" + ("<p>You are in" if known else "<p>Who are you?"))
        elif self.path in PAGES:
            self.page(PAGES[self.path])
        else:
            self.page("<title>Missing</title><p>No such page", status=404)

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self.path == "/login":
            cookie = "key=" + sent.get("password", ["none"])[0]
            self.start({"Location": "/secret", "Set-Cookie": cookie, "Content-Length": "0"}, 303)
        else:
            fields = ", ".join(f"{name}={values[0]}" for name, values in sorted(sent.items()))
            self.page(f"<title>Sent</title><p>Received {fields}")

    def page(self, text: str, status: int = 200) -> None:
        data = text.encode()
        self.start({"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(data))}, status)
        self.wfile.write(data)

    def start(self, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def trickle(self, piece: bytes, times: int) -> None:
        try:
            for _ in range(times):
                self.wfile.write(piece)
                time.sleep(0.05)
        except OSError:
            pass  # The browser has gone away.

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int((*sys.argv[1:], "0")[0])), Site)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
