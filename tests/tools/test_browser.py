"""The browser tool on real pages: Chromium runs inside bubblewrap, the site beside it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import playwright
import pytest

from dsv4agent.sandboxes import (
    Connection,
    Gate,
    MemorySandbox,
    Network,
    NetworkMode,
    Policy,
    ProgramsUnsupported,
    Sandbox,
    SandboxUnavailable,
    choose_sandbox,
)
from dsv4agent.sandboxes.bubblewrap import BubblewrapSandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.sandboxes.process_tree import descendants
from dsv4agent.tools import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.bash_jobs import shell_tools
from dsv4agent.tools.browser import BrowserTool, completed_url
from tests.tools.editor_desk import count_words
from tests.web_servers import Names, Page, loopback_is_public, serve

pytestmark = pytest.mark.anyio

SITE = Path(__file__).with_name("browser_site.py")
BUDGET = 1500


class Desk:
    """A browser tool on a sandbox; calls it, and finds refs in what came back last."""

    def __init__(self, sandbox: Sandbox, site: str, spill: Path, **settings: Any) -> None:
        self.tool = BrowserTool(**settings)
        self.site = site
        self.context = ToolContext(sandbox, count_words, BUDGET, spill)
        self.text = ""

    @property
    def workspace(self) -> Path:
        return Path(self.context.sandbox.policy.workspace)

    async def do(self, action: str, **arguments: Any) -> ToolResult:
        """Do one action; an address that begins with a slash is one of the site."""
        if arguments.get("url", "").startswith("/"):
            arguments["url"] = self.site + arguments["url"]
        result = await self.tool(self.context, {"action": action, **arguments})
        self.text = result.text
        return result

    async def show(self, action: str, **arguments: Any) -> str:
        """Do one action that must succeed and return its text."""
        result = await self.do(action, **arguments)
        assert (result.status, result.code) == (Status.OK, None), result.text
        return result.text

    def ref(self, element: str) -> str:
        """Return the ref of the first element that is shown as `role "name`."""
        found = re.search(rf"- {re.escape(element)}[^\n]*?\[ref=(e\d+)\]", self.text)
        assert found, f"no {element} in:\n{self.text}"
        return found[1]

    async def use(self, page: str, action: str, element: str, **arguments: Any) -> ToolResult:
        """Open a page and act on one of its elements."""
        await self.show("goto", url=page)
        return await self.do(action, ref=self.ref(element), **arguments)


def browsers() -> list[int]:
    """Return the processes of browsers below this process."""
    return [pid for pid in descendants(os.getpid()) if "chrom" in command_line(pid)]


def renderers() -> list[int]:
    return [pid for pid in browsers() if "--type=renderer" in command_line(pid)]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""  # It ended meanwhile.


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all, because most tests share one browser."""
    return "asyncio"


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the test site."""
    with subprocess.Popen([sys.executable, str(SITE)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


async def open_sandbox(folder: Path, provider: ProviderName = "bubblewrap", **policy: Any) -> Sandbox:
    (folder / "workspace").mkdir(exist_ok=True)
    network = policy.pop("network", Network(NetworkMode.ON))
    try:
        return await choose_sandbox(Policy(str(folder / "workspace"), network=network, **policy), provider)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def require_browser(desk: Desk) -> None:
    result = await desk.do("goto", url="about:blank")
    if result.code == "unavailable":
        pytest.skip(result.text)


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory, site: str) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp("browser")
    async with await open_sandbox(folder) as sandbox:
        desk = Desk(sandbox, site, folder / "spill", download_bytes=5 << 20)
        await require_browser(desk)
        yield desk
        await desk.tool.aclose()


@pytest.fixture(scope="module")
async def hurried(tmp_path_factory: pytest.TempPathFactory, site: str) -> AsyncIterator[Desk]:
    """A browser of its own that gives actions little time."""
    folder = tmp_path_factory.mktemp("hurried")
    async with await open_sandbox(folder) as sandbox:
        desk = Desk(sandbox, site, folder / "spill", timeout=3.0)
        await require_browser(desk)
        yield desk
        await desk.tool.aclose()


def test_schema_and_effects() -> None:
    tool = BrowserTool()
    jsonschema.Draft202012Validator.check_schema(dict(tool.parameters))
    assert next(iter(tool.parameters["properties"])) == "action"
    optional = set(tool.parameters["properties"]) - set(tool.parameters["required"])
    assert len(optional) <= 8
    for described in tool.parameters["properties"].values():
        assert len(described["description"]) <= 110
        assert described["description"].endswith(".")
    assert tool.effects is Effects.NETWORK


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ("http://example.org/a?b#c", "http://example.org/a?b#c"),
        ("example.org/a", "https://example.org/a"),
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:80/x", "http://127.0.0.1:80/x"),
        ("[::1]:8000/x", "http://[::1]:8000/x"),
        (" about:blank ", "about:blank"),
    ],
)
def test_addresses_are_completed(given: str, completed: str) -> None:
    assert completed_url(given) == (completed, "")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "chrome://crash",
        "view-source:http://127.0.0.1/",
        "devtools://devtools/bundled/inspector.html",
        "data:text/html,x",
        "javascript:alert(1)",
        "about:config",
        "blob:http://127.0.0.1/x",
        "http://",
        "http://[::1",
        "",
    ],
)
async def test_refused_addresses(desk: Desk, url: str) -> None:
    result = await desk.do("goto", url=url)
    assert (result.status, result.code) == (Status.DENIED, "refused_url")


@pytest.mark.parametrize(
    "arguments",
    [
        {"action": "goto"},
        {"action": "click"},
        {"action": "type", "ref": "e1"},
        {"action": "scroll"},
        {"action": "wait"},
        {"action": "wait", "number": 600},
        {"action": "wait", "number": -1},
        {"action": "switch_tab", "number": float("inf")},
        {"action": "scroll", "direction": "up", "number": float("nan")},
        {"action": "screenshot_path"},
        {"action": "goto", "url": "http://a\0b/"},
    ],
)
async def test_arguments_that_an_action_needs(desk: Desk, arguments: dict[str, Any]) -> None:
    result = await desk.tool(desk.context, arguments)
    assert (result.status, result.code) == (Status.ERROR, "invalid_arguments")


async def test_a_form_is_filled_and_submitted(desk: Desk) -> None:
    text = await desk.show("goto", url="/")
    assert text.startswith(f"url: {desk.site}/\ntitle: Home\n* tab 1 navigated\n- ")
    await desk.show("click", ref=desk.ref('link "The form"'))
    await desk.show("type", ref=desk.ref('textbox "Name"'), text="Ada")
    await desk.show("select", ref=desk.ref('combobox "Kind"'), text="Berry")
    text = await desk.show("click", ref=desk.ref('checkbox "Agree"'))
    assert re.search(r'textbox "Name" \[ref=e\d+\]: Ada', text)
    assert 'option "Berry" [selected]' in text
    assert 'checkbox "Agree" [checked]' in text
    text = await desk.show("click", ref=desk.ref('button "Send"'))
    assert "Received agree=on, kind=b, name=Ada" in text
    assert "title: Form" in await desk.show("back")
    assert "title: Sent" in await desk.show("forward")
    assert (await desk.do("forward")).code == "no_history"


async def test_what_an_element_cannot_take(desk: Desk) -> None:
    await desk.show("goto", url="/form")
    kind, agree = desk.ref('combobox "Kind"'), desk.ref('checkbox "Agree"')
    missing = await desk.do("select", ref=kind, text="Cherry")
    assert missing.text.startswith(f"not_found: {kind} has no option Cherry; it has: Apple, Berry")
    assert (await desk.do("select", ref=agree, text="Apple")).code == "not_editable"
    assert (await desk.do("type", ref=agree, text="Apple")).code == "not_editable"
    assert (await desk.do("press", key="Bogus")).code == "invalid_arguments"
    uploaded = await desk.use("/dialogs", "click", 'button "Upload"')
    assert "* the page asked for a file to upload; uploads are not possible" in uploaded.text
    assert (await desk.do("type", ref=desk.ref('button "Upload"'), text="/etc/passwd")).code == "not_editable"


async def test_a_ref_stays_with_its_element_and_goes_with_it(desk: Desk) -> None:
    await desk.show("goto", url="/scripted")
    await desk.show("wait", text="Vanish")
    counter, other = desk.ref('button "Count"'), desk.ref('button "Vanish"')
    await desk.show("click", ref=counter)
    text = await desk.show("click", ref=counter)
    assert f'button "Clicked 2 times" [active] [ref={counter}]' in text
    assert desk.ref('button "Vanish"') == other
    await desk.show("click", ref=other)
    gone = await desk.do("click", ref=other)
    assert gone.text.startswith(f"stale_ref: {other} is not on the page any more; take a new snapshot\nurl: ")
    assert desk.ref("button") == counter
    # The same page again has other elements, so it has other refs.
    await desk.show("goto", url="/scripted")
    await desk.show("wait", text="Vanish")
    assert desk.ref('button "Count"') not in {counter, other}
    assert (await desk.do("click", ref=counter)).code == "stale_ref"


async def test_elements_in_a_frame(desk: Desk) -> None:
    await desk.show("goto", url="/frames")
    name, send = desk.ref('textbox "Name"'), desk.ref('button "Send"')
    await desk.show("type", ref=name, text="inner")
    assert "Received kind=a, name=inner" in await desk.show("click", ref=send)
    assert (await desk.do("click", ref=send)).code == "stale_ref"


async def test_console_and_network_errors(desk: Desk) -> None:
    await desk.do("console")
    await desk.show("goto", url="/second")
    text = await desk.show("goto", url="/scripted")
    assert "* errors on the page: " in text
    await desk.show("wait", number=0.3)
    text = await desk.show("console")
    for line in (
        "log: rendered 1",
        "error: a bad thing",
        f"HTTP 404: GET {desk.site}/missing",
        "uncaught: nothing is not defined",
    ):
        assert f"\n{line}" in text
    assert (await desk.show("console")).endswith("\n(no messages)")


async def test_a_login_lasts(desk: Desk) -> None:
    assert "Who are you?" in await desk.show("goto", url="/secret")
    typed = await desk.use("/login", "type", 'textbox "Password"', text="right", submit=True)
    assert "title: Secret" in typed.text
    await desk.show("goto", url="/")
    assert "You are in" in await desk.show("goto", url="/secret")


async def test_downloads(desk: Desk) -> None:
    saved = await desk.use("/", "click", 'link "A file"')
    assert f"* download saved to {desk.workspace}/downloads/evil_name.txt (7 bytes)" in saved.text
    await desk.show("goto", url="/file")
    folder = desk.workspace / "downloads"
    assert sorted(os.listdir(folder)) == ["evil_name-1.txt", "evil_name.txt"]
    assert (folder / "evil_name.txt").read_text() == "content"
    large = await desk.use("/", "click", 'link "A large file"')
    assert '* download "large" failed: more than 5242880 bytes' in large.text
    assert len(os.listdir(folder)) == 2


async def test_alert_confirm_and_prompt(desk: Desk) -> None:
    alerted = await desk.use("/dialogs", "click", 'button "Alert"')
    assert '* alert "Mind the gap", accepted' in alerted.text
    assert "alerted" in alerted.text
    asked = await desk.show("click", ref=desk.ref('button "Confirm"'))
    assert asked.endswith('* open dialog: confirm "Delete all?"; answer it with accept or dismiss')
    blocked = await desk.do("snapshot")
    assert blocked.text.startswith("dialog_open: tab ")
    assert "confirmed false" in await desk.show("dismiss")
    await desk.show("click", ref=desk.ref('button "Confirm"'))
    assert "confirmed true" in await desk.show("accept")
    asked = await desk.show("click", ref=desk.ref('button "Prompt"'))
    assert 'prompt "Your name?", default "nobody"' in asked
    assert "prompted Grace" in await desk.show("accept", text="Grace")
    assert (await desk.do("accept")).code == "no_dialog"


async def test_a_tab_that_asks_for_ever_can_be_closed(desk: Desk) -> None:
    asked = await desk.use("/dialogs", "click", 'button "Insist"')
    assert 'open dialog: confirm "More?"' in asked.text
    assert 'open dialog: confirm "More?"' in await desk.show("accept")
    number = re.search(r"dialog_open: tab (\d+) ", (await desk.do("back")).text)
    assert number
    assert "url: about:blank" in await desk.show("close_tab", number=int(number[1]))
    assert "title: Form" in await desk.show("goto", url="/form")


async def test_permissions_are_denied(desk: Desk) -> None:
    assert "notifications denied" in (await desk.use("/dialogs", "click", 'button "Ask"')).text


async def test_tabs(desk: Desk) -> None:
    first = re.search(r"\n(\d+): ", await desk.show("tabs"))
    assert first
    opened = await desk.use("/", "click", 'link "New tab"')
    number = re.search(r"\* tab (\d+) opened and is now the current one", opened.text)
    assert number
    assert "title: Second" in opened.text
    listed = await desk.show("tabs")
    assert f"\n{first[1]}: {desk.site}/ Home\n{number[1]}: {desk.site}/second Second" in listed
    assert "title: Home" in await desk.show("switch_tab", number=int(first[1]))
    closed = await desk.show("close_tab", number=int(number[1]))
    assert "tabs" not in closed.split("- ")[0]
    missing = await desk.do("switch_tab", number=999)
    assert missing.text.startswith(f"not_found: there is no tab 999; open tabs: {first[1]}")


async def test_the_number_of_tabs_is_bounded(desk: Desk) -> None:
    many = await desk.use("/popups", "click", 'button "Many"')
    assert "* a new tab was refused: 10 are open; close one (3 times)" in many.text
    numbers = re.findall(r"^(\d+): ", await desk.show("tabs"), re.MULTILINE)
    assert len(numbers) == 10
    for number in numbers[1:]:
        await desk.show("close_tab", number=int(number))


async def test_a_page_larger_than_the_budget(desk: Desk) -> None:
    result = await desk.do("goto", url="/long")
    assert count_words(result.text) <= BUDGET
    assert "Row 0 of many" in result.text
    assert "Row 300 of many" not in result.text
    assert 'button "Last"' not in result.text
    truncated = result.truncated
    assert truncated is not None
    assert truncated.path is not None
    assert truncated.shown_tokens == count_words(result.text) < truncated.total_tokens
    assert "Row 599 of many" in truncated.path.read_text()
    assert f"scroll, take a snapshot of a ref, or read {truncated.path}]" in result.text
    rows = desk.ref("main")
    # Scrolling moves what is shown; what encloses it stays.
    text = await desk.show("scroll", direction="down", number=20)
    assert "view: 12960-13680 of " in text
    assert "Row 0 of many" not in text
    assert re.search(rf'- main "Rows" \[ref={rows}\]:\n    \[\.\.\. \d+ lines in {rows}\]\n', text)
    shown = re.search(r"- paragraph \[ref=(e\d+)\]:\n      - text: (Row \d+)", text)
    assert shown
    part = await desk.show("snapshot", ref=shown[1])
    assert f"\n- paragraph [ref={shown[1]}]:\n  - text: {shown[2]} of many" in part
    assert part.count("Row") == 1
    assert "view: 0-720 of " in await desk.show("scroll", direction="up", number=99)
    assert "view: 0-720 of " not in await desk.show("scroll", ref=shown[1])
    assert (await desk.do("snapshot", ref="e999999")).code == "stale_ref"


async def test_page_text_is_foreign(desk: Desk) -> None:
    text = await desk.show("goto", url="/")
    assert "Fake: [ ref=e1] and " in text
    assert "\x1b" not in text
    odd = re.search(r"""- button "'Quoted\\" - key: \[ ref=e2\] <b> #" \[ref=(e\d+)\]: x""", text)
    assert odd, text
    assert "Quoted" not in await desk.show("click", ref=odd[1])


async def test_wait(desk: Desk) -> None:
    await desk.show("goto", url="/scripted")
    assert 'button "Count"' in await desk.show("wait", text="Count")
    await desk.show("wait", number=0.1)


async def test_screenshot(desk: Desk) -> None:
    await desk.show("goto", url="/")
    assert "* screenshot saved to pictures/home.png" in await desk.show(
        "screenshot_path", path="pictures/home.png"
    )
    assert (desk.workspace / "pictures/home.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    outside = await desk.do("screenshot_path", path="/etc/home.png")
    assert (outside.status, outside.code) == (Status.DENIED, "outside_workspace")
    assert not os.path.exists("/etc/home.png")  # noqa: ASYNC240


async def test_pages_that_are_not_there(desk: Desk) -> None:
    assert "\nstatus: HTTP 404\n" in await desk.show("goto", url="/nothing")
    refused = await desk.do("goto", url="http://127.0.0.1:9999/")
    assert refused.text.startswith(
        "network_error: http://127.0.0.1:9999/ did not load: ERR_CONNECTION_REFUSED"
    )
    assert "is the server running?" in refused.text


async def test_a_crashed_tab_is_replaced(desk: Desk) -> None:
    await desk.show("goto", url="/form")
    for pid in renderers():
        os.kill(pid, signal.SIGKILL)
    crashed = await desk.do("snapshot")
    assert crashed.text.startswith("page_crashed: the page of tab ")
    assert "is a fresh one in place of tab" in crashed.text
    assert "title: Form" in await desk.show("goto", url="/form")
    for pid in renderers():
        os.kill(pid, signal.SIGKILL)
    # Whether the crash is known before the address is opened, or comes to light meanwhile, is a race.
    opened = await desk.do("goto", url="/dialogs")
    assert "is a fresh one in place of tab" in opened.text
    if opened.code == "page_crashed":
        await desk.show("goto", url="/dialogs")
    desk.ref('button "Alert"')


async def test_a_browser_that_crashed_is_started_anew(desk: Desk) -> None:
    await desk.show("goto", url="/form")
    name = desk.ref('textbox "Name"')
    for pid in browsers():
        os.kill(pid, signal.SIGKILL)
    while any("playwright" in command_line(pid) for pid in descendants(os.getpid())):  # noqa: ASYNC110
        await anyio.sleep(0.02)  # Its driver sees that and ends too.
    text = await desk.show("goto", url="/form")
    assert "* the browser was started anew; tabs, cookies and refs of the last are gone" in text
    assert desk.ref('textbox "Name"') != name
    assert "started anew" not in await desk.show("snapshot")


async def test_elements_that_cannot_be_used(hurried: Desk) -> None:
    off = await hurried.use("/covered", "click", 'button "Off"')
    assert (off.status, off.code) == (Status.ERROR, "not_ready")
    assert "it is hidden, disabled or moving" in off.text
    covered = await hurried.do("click", ref=hurried.ref('button "Under"'))
    assert covered.code == "not_ready"
    assert '<div id="cover"></div> intercepts pointer events' in covered.text


async def test_pages_without_end(hurried: Desk) -> None:
    endless = await hurried.do("goto", url="/endless")
    assert (endless.status, endless.code) == (Status.TIMEOUT, "timeout")
    assert endless.text.startswith("timeout: goto did not end within 3 s; go on with what is there\n")
    assert "More" in endless.text
    storm = await hurried.use("/dialogs", "click", 'button "Storm"')
    assert storm.text.startswith("timeout: the page opens alerts without end and was stopped")
    assert '* alert "again", accepted (20 times)' in storm.text
    spin = await hurried.use("/dialogs", "click", 'button "Spin"')
    assert spin.text.startswith("timeout: the page does not answer and was stopped")
    assert spin.status is Status.TIMEOUT
    await hurried.show("goto", url="/form")


async def test_closing_and_cancellation_leave_no_process(hurried: Desk) -> None:
    await hurried.show("goto", url="about:blank")
    before = set(browsers())
    await hurried.tool.aclose()
    others = set(browsers())
    assert others < before
    await hurried.show("goto", url="/dialogs")
    assert others < set(browsers())
    with anyio.move_on_after(0.3) as in_an_action:
        await hurried.do("click", ref=hurried.ref('button "Spin"'))
    assert in_an_action.cancelled_caught
    assert set(browsers()) == others
    with anyio.move_on_after(0.3) as while_it_starts:
        await hurried.do("goto", url="/endless")
    assert while_it_starts.cancelled_caught
    assert set(browsers()) == others


async def test_without_network_only_the_sandbox_is_reached(tmp_path: Path, site: str) -> None:
    async with await open_sandbox(tmp_path, network=Network()) as sandbox:
        desk = Desk(sandbox, site, tmp_path / "spill")
        await require_browser(desk)
        for url in ("https://example.org/", f"{site}/"):
            result = await desk.do("goto", url=url)
            assert result.code == "network_error"
        result = await desk.do("goto", url="example.org")
        assert "the sandbox has no network, only its own 127.0.0.1" in result.text
        await desk.tool.aclose()


async def test_a_server_that_bash_started_is_reached(tmp_path: Path) -> None:
    async with await open_sandbox(tmp_path, network=Network()) as sandbox:
        desk = Desk(sandbox, "", tmp_path / "spill")
        await require_browser(desk)
        bash, output, _ = shell_tools()
        (desk.workspace / "site.py").write_text(SITE.read_text())
        begin = {"command": "python3 -u site.py", "run_in_background": True}
        assert (await bash(desk.context, begin)).text.startswith("started job-1")
        port = ""
        with anyio.fail_after(20):
            while not port.isdigit():
                port = (await output(desk.context, {"job_id": "job-1"})).text.partition("\n")[0]
        desk.site = f"http://127.0.0.1:{port}"
        assert "Welcome" in await desk.show("goto", url="/")
        typed = await desk.use("/form", "type", 'textbox "Name"', text="Ada", submit=True)
        assert "Received kind=a, name=Ada" in typed.text
        await bash.aclose()
        gone = await desk.do("goto", url="/")
        assert gone.code == "network_error"
        assert "is the server running?" in gone.text
        await desk.tool.aclose()


async def test_with_an_allow_list_the_browser_goes_through_the_proxy(tmp_path: Path) -> None:
    page = Page(b"<title>Outside</title><h1>From outside</h1>", "text/html")
    (tmp_path / "workspace").mkdir()
    with serve({"/": page}) as web, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        down = f"down.test:{nobody.getsockname()[1]}"
        network = Network.only(f"good.test:{web.port}", down)
        names = Names(good_test=[["127.0.0.1"]], evil_test=[["127.0.0.1"]], down_test=[["127.0.0.1"]])
        seen: list[Connection] = []
        gate = Gate(network, resolve=names, judge=loopback_is_public)
        gate.on_connection = seen.append
        policy = Policy(str(tmp_path / "workspace"), network=network)
        try:
            sandbox = await BubblewrapSandbox.open(policy, gate=gate)
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        async with sandbox:
            desk = Desk(sandbox, f"http://good.test:{web.port}", tmp_path / "spill")
            await require_browser(desk)
            assert "From outside" in await desk.show("goto", url="/")
            for scheme in ("http", "https"):
                refused = await desk.do("goto", url=f"{scheme}://evil.test:{web.port}/")
                assert refused.code == "network_error"
                assert f"only these hosts may be reached: good.test:{web.port}, {down}" in refused.text
            unreachable = await desk.do("goto", url=f"http://{down}/")
            assert f"{down}/ did not load: the proxy does not reach it" in unreachable.text
            # Its own loopback never leads out to the server.
            loopback = await desk.do("goto", url=f"http://127.0.0.1:{web.port}/")
            assert loopback.code == "network_error"
            await desk.tool.aclose()
        pages = [seen for seen in web.seen if seen.line.startswith("GET / ")]
        assert [one.header("Host") for one in pages] == [f"good.test:{web.port}"]
        tried = {(one.host, one.port, one.allowed) for one in seen}
        assert {("good.test", web.port, True), ("evil.test", web.port, False)} <= tried
        assert {one.host for one in seen if one.allowed} <= {"good.test", "down.test"}


async def test_the_way_out_that_the_environment_names(tmp_path: Path, site: str) -> None:
    """The site stands in for a proxy: what is asked of it whole never looked for that host by itself."""
    async with await open_sandbox(tmp_path, env={"HTTP_PROXY": site}) as sandbox:
        desk = Desk(sandbox, site, tmp_path / "spill")
        await require_browser(desk)
        assert "title: Missing" in await desk.show("goto", url="http://host.invalid/")
        await desk.show("goto", url="/")
        assert "http://host.invalid/" in await desk.show("goto", url="/asked")
        await desk.tool.aclose()


async def test_what_is_missing_is_named(tmp_path: Path, site: str) -> None:
    before = set(browsers())
    async with await open_sandbox(tmp_path) as sandbox:
        desk = Desk(sandbox, site, tmp_path / "spill", executable="/nowhere/chromium")
        result = await desk.do("goto", url="/")
        assert (result.status, result.code) == (Status.ERROR, "unavailable")
        assert "/nowhere/chromium is not an executable file; install" in result.text
    package = str(Path(playwright.__file__).parent)
    async with await open_sandbox(tmp_path, masked=(package,)) as sandbox:
        tried = await sandbox.run([sys.executable, "-I", "-c", "import playwright.async_api"], timeout=30)
        if tried.exit_code == 0:
            pytest.skip("the package lies in a folder that is shown at a second place")
        desk = Desk(sandbox, site, tmp_path / "spill")
        result = await desk.do("goto", url="/")
        assert result.code == "unavailable"
        assert "install `dsv4agent[browser]` and the system package `chromium`" in result.text
    assert set(browsers()) <= before


async def test_a_sandbox_without_sockets(tmp_path: Path, site: str) -> None:
    async with await open_sandbox(tmp_path, "landlock", network=Network()) as sandbox:
        desk = Desk(sandbox, site, tmp_path / "spill")
        result = await desk.do("goto", url="/")
        assert (result.status, result.code) == (Status.ERROR, "sandbox_unavailable")
        assert "local sockets are refused" in result.text
        assert "use bubblewrap" in result.text


async def test_a_sandbox_without_programs() -> None:
    context = ToolContext(MemorySandbox(), count_words, BUDGET)
    with pytest.raises(ProgramsUnsupported):
        await BrowserTool()(context, {"action": "snapshot"})
