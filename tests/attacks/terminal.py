"""Attacks on the user's terminal: what a program prints or names must arrive as text that steers nothing."""
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout

from rich.console import Console

from dsv4agent.cli.changes import workspace_changes
from dsv4agent.cli.listings import session_table, write_json
from dsv4agent.cli.views import JsonView, TextView
from dsv4agent.cli.work import show_changes
from dsv4agent.tools import BashTool, StrReplaceEditor, ToolContext
from dsv4agent.transcript import (
    Event,
    ReasoningDelta,
    SessionSummary,
    SessionWarning,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolOutput,
    UserMessage,
)
from tests.attacks.attack import Attack, Run, family
from tests.attacks.programs import Program, py
from tests.attacks.repositories import fresh_repository
from tests.attacks.stage import Stage

# Rich's own colours may stay: the console writes them, the program does not. Nothing else steers.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STEERING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # C0 but tab and newline, DEL, C1
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks and overrides of direction
    "|[\u2028\u2029]"  # line and paragraph separators
    "|[\U000e0000-\U000e007f]"  # tags, which show nothing and say something
    "|[\ud800-\udfff]"
)


def _steers(text: str) -> str:
    found = _STEERING.search(_COLOUR.sub("", text))
    return f"{found[0]!r} reached the terminal" if found else ""


async def _shown(stage: Stage, program: Program) -> str:
    """Run a program with the bash tool and show it live and afterwards, as text and as JSON."""
    (stage.workspace / "terminal.py").write_text(program.argv()[-1])
    tool, pieces = BashTool(timeout=5), list[str]()

    async def live(text: str) -> None:
        pieces.append(text)

    context = ToolContext(stage.sandbox, lambda text: len(text.encode("utf-8", "replace")), 4000, None, live)
    command = "python3 -I -S terminal.py 2>&1"
    try:
        result = await tool(context, {"command": command})
    finally:
        await tool.aclose()
    texts = [*pieces, result.text]
    return _on_screen([ToolOutput(call_id="1", text=text) for text in pieces]) or _on_screen(_events(texts))


def _events(texts: list[str]) -> list[Event]:
    found: list[Event] = []
    for text in texts:
        found += [
            ToolCallStarted(call_id="2", name=f"bash{text[:20]}", arguments=json.dumps({"command": text})),
            ToolCallFinished(call_id="2", name="bash", status="error", text=text),
            TextDelta(text=text),
            ReasoningDelta(text=text),
            SessionWarning(code="x", message=text),
            UserMessage(text=text, origin="runtime"),
        ]
    return found


def _on_screen(events: list[Event]) -> str:
    screen, lines = io.StringIO(), io.StringIO()
    view = TextView(Console(file=screen, force_terminal=True, width=100))
    with redirect_stdout(lines):
        for event in events:
            view.show(event)
            JsonView().show(event)
    for line in lines.getvalue().splitlines():
        json.loads(line)
    return _steers(screen.getvalue()) or _steers(lines.getvalue().replace("\n", ""))


def _prints(source: str) -> Run:
    async def run(stage: Stage) -> str:
        return await _shown(stage, py("out = sys.stdout.buffer\n" + source))

    return run


_BAD_NAMES = r"""
os.chdir(T["WORKSPACE"])
os.makedirs("names", exist_ok=True)
for name in (b"\x1b]0;title\x07", b"a\x9bb", b"\xc2\x9b31m", b"\xe2\x80\xaetxt.exe", b"new\nline", b"\xff\xfe",
             b"[red]markup[", b"\xe2\x81\xa6x", b"\x1b[2J", b"\\[link=http:x]y"):
    quietly(put, b"names/" + name)
"""


async def _names(stage: Stage) -> str:
    """Show files whose names steer: in the editor's listing, in the summary of changes, in the diff."""
    space = fresh_repository(stage)
    await stage.run(py(_BAD_NAMES + 'put("tracked", b"\\x1b]52;c;eA==\\x07\\xc2\\x9b2J\\xe2\\x80\\xae\\n")'))
    context = ToolContext(stage.sandbox, lambda text: len(text.encode("utf-8", "replace")), 4000)
    listing = await StrReplaceEditor()(context, {"command": "view", "path": "names"})
    changes = await workspace_changes(stage.sandbox)
    screen = io.StringIO()
    show_changes(Console(file=screen, force_terminal=True, width=100), changes)
    for path in (space / "names").iterdir():
        path.unlink()
    return _on_screen(_events([listing.text])) or _steers(screen.getvalue())


async def _listing(_: Stage) -> str:
    """Show a stored session whose task and model were chosen to steer."""
    evil = "\x1b]0;x\x07\x9b2J\u202e \\[link=http://evil.test]here[/link] [bold]x[/bold]"
    summary = SessionSummary("1", 0.0, task=evil, workspace=evil, model=evil, stop_reason=evil)
    screen, lines = io.StringIO(), io.StringIO()
    Console(file=screen, force_terminal=True, width=300).print(session_table([summary]))
    with redirect_stdout(lines):
        write_json({"task": evil})
    if "]8;" in screen.getvalue() or "here[/link]" not in screen.getvalue():
        return "a task's text was taken for markup"
    return _steers(screen.getvalue()) or _steers(lines.getvalue().rstrip("\n"))


ATTACKS = family(
    "terminal",
    "host",
    *(
        Attack(name, description, "", _prints(source))
        for name, description, source in (
            (
                "title",
                "Sets the window's title and icon.",
                r'out.write(b"\x1b]0;evil\x07\x1b]2;evil\x1b\\\x1bkevil\x1b\\")',
            ),
            (
                "clipboard",
                "Writes the clipboard (OSC 52).",
                r'out.write(b"\x1b]52;c;ZXZpbA==\x07\x1b]52;p;?\x1b\\")',
            ),
            (
                "hyperlink",
                "Prints hyperlinks (OSC 8) that lead elsewhere.",
                r'out.write(b"\x1b]8;;http://evil.test\x1b\\bank\x1b]8;;\x1b\\")',
            ),
            (
                "cursor",
                "Moves the cursor over earlier lines and clears the screen.",
                r'out.write(b"\x1b[2J\x1b[H\x1b[1A\x1b[2K\x1b7\x1b8\x1bc\x1b[?1049h\x1b[5n\x1b[6n\x1b[c")',
            ),
            (
                "bracketed_paste",
                "Ends and starts bracketed paste, and asks for reports.",
                r'out.write(b"\x1b[200~rm -rf\n\x1b[201~\x1b[?2004l\x1b[21t\x1bP$q q\x1b\\\x1b[?1000h\x1b[?9001h")',
            ),
            (
                "c1_controls",
                "Uses C1 controls in UTF-8, which need no escape.",
                r'out.write(b"\xc2\x9b2J\xc2\x9d0;evil\xc2\x9c\xc2\x90q\xc2\x9c\xc2\x85\xc2\x8d")',
            ),
            (
                "raw_c1_bytes",
                "Uses C1 controls as single bytes.",
                r'out.write(b"\x9b2J\x9d0;evil\x9c\x90q\x9c\x85")',
            ),
            (
                "direction",
                "Overrides the direction of text so that it reads otherwise.",
                r'out.write("a\u202eexe.txt\u2066b\u2069\u200f\u061c\u200e\u2028c\u2029d".encode())',
            ),
            (
                "invisible_tags",
                "Prints invisible tag characters.",
                r'out.write("ok\U000e0041\U000e0042".encode())',
            ),
            (
                "split_sequences",
                "Prints sequences byte by byte, with pauses, and cut at the end.",
                r"""
for byte in b"\x1b]52;c;ZXZpbA==\x07\x1b[2J\xc2\x9b2J\x1b\x1b[[2J\x1b]0;a\x1b[2Jb\x07\x1b[\x1b[31m2J\x1b":
    out.write(bytes((byte,)))
    out.flush()
    time.sleep(0.004)
""",
            ),
            (
                "nested_sequences",
                "Hides sequences in each other, so that removing one leaves another.",
                r'out.write(b"\x1b\x1b[31m[2J\x1b[\x1b]0;a\x072J\x1b]0;\x1b]0;a\x07b\x07\x1b\x00[2J\x1b\r[2J\xc2\x1b[m\x9b2J")',
            ),
            (
                "long_sequences",
                "Prints sequences longer than what is held back of an unfinished one.",
                r'out.write(b"\x1b]0;" + b"a" * 5000 + b"\x07" + b"\x1b[" + b"1;" * 5000 + b"H" + b"\x1bP" + b"q" * 70000 + b"\x1b\\")',
            ),
            (
                "redrawn_lines",
                "Uses backspaces, carriage returns, form feeds and bells to rewrite lines.",
                r'out.write(b"rm -rf /\r" + b"ls      \x08\x08\x0b\x0c\x07\x0e\x0f\x05\x1a\x7f\n")',
            ),
        )
    ),
    Attack(
        "names", "Names files with sequences, line ends, overrides and markup.", "", _names, tools=("git",)
    ),
    Attack("listing", "Puts sequences and markup into what the list of sessions shows.", "", _listing),
)
