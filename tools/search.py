"""Runs the search program inside the sandbox, for the tools that find files and lines."""

from __future__ import annotations

import json
import posixpath
import sys
from pathlib import Path
from typing import Any

from dsv4agent.tools.base import ToolContext
from dsv4agent.tools.file_view import displayed_name
from dsv4agent.tools.refusal import Refusal, os_refusal, require_path, require_text

DEFAULT_TIMEOUT = 30.0

# The sources arrive on stdin, so that they need not be readable (nor be at all) inside the sandbox.
_BOOT = """
import json, sys, types
sources = json.loads(sys.stdin.buffer.readline())
for name, source in sources:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
json.dump(module.answer(json.load(sys.stdin.buffer)), sys.stdout)
"""
_MODULES = ("globbing", "gitignore", "search_program")


async def search(ctx: ToolContext, shown: str, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """Return the search program's answer.

    Args:
        ctx: The call's context.
        shown: The folder or file to search, as the model wrote it.
        request: What the program needs besides `root` and `top`.
        timeout: Seconds that it may take.

    Raises:
        Refusal: The path or a pattern is of no use, or the search took too long.
    """
    require_path(shown)
    require_text(pattern=request.get("pattern"), glob=request.get("glob"))
    top = ctx.sandbox.policy.workspace
    root = posixpath.join(top, shown)
    if ".." not in root.split("/"):
        root = posixpath.normpath(root)
    message = "\n".join((json.dumps(_sources()), json.dumps({**request, "root": root, "top": top})))
    try:
        done = await ctx.sandbox.run(
            (sys.executable, "-I", "-S", "-c", _BOOT), input=message.encode(), timeout=timeout
        )
    except TimeoutError:
        raise Refusal(
            "timeout", f"the search took longer than {timeout:g} s; narrow the path, glob or pattern"
        ) from None
    if done.exit_code != 0:
        complaint = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise Refusal("io_error", f"the search ended with {done.exit_code}: {complaint}; narrow the path")
    reply: dict[str, Any] = json.loads(done.stdout)
    if "errno" in reply:
        raise os_refusal(OSError(reply["errno"], reply["message"]), shown)
    if "invalid" in reply:
        raise Refusal("invalid_arguments", reply["invalid"])
    return reply


def shown_path(ctx: ToolContext, path: str) -> str:
    """Return an absolute path as the model sees it: below the workspace relative, in one line."""
    return displayed_name(path.removeprefix(posixpath.join(ctx.sandbox.policy.workspace, "")))


def _sources() -> list[tuple[str, str]]:
    folder = Path(__file__).parent
    return [
        (f"dsv4agent.tools.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES
    ]
