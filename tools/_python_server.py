"""Runs code inside a cage, call after call, in one interpreter whose variables last.

Sent as text to an interpreter and run there with `requests`, a stream of JSON lines: `mark` and `code`, or
the mark of a code to `interrupt`. On descriptor 3 it says `ready` once, and answers each code by one JSON
line: its `mark`, whether it `raised`, and the argument of `sys.exit` if that was called (`exited`). What the
code prints goes to the standard output, with that of C libraries and of child processes, in order.
"""

from __future__ import annotations

import ast
import faulthandler
import fcntl
import json
import linecache
import os
import queue
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Coroutine, Iterable
from typing import Any

CALL = "<call {}>"
SERVER = "python_server"
"""Names of code as tracebacks show them: a call's, and this file's."""

_CO_COROUTINE = 0x80  # as in `inspect`, whose import would take longer than all others
_ANNOTATIONS = annotations.compiler_flag  # the one future feature that is not the rule yet


class Interpreter:
    """One namespace, the module `__main__` of the code, and its event loop."""

    def __init__(self) -> None:
        self._main = types.ModuleType("__main__")
        self._main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = self._main
        self._flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._calls = 0
        self._pid = os.getpid()
        self._loop: Any = None
        self._busy = False
        self._interrupted = False
        self._unwanted = ""
        signal.signal(signal.SIGINT, self._on_interrupt)

    def run(self, mark: str, code: str) -> dict[str, Any]:
        """Run one call's code and print its traceback, if any, with the code's own frames only."""
        reply: dict[str, Any] = {"mark": mark, "raised": False, "exited": None}
        self._interrupted = False
        try:
            self._busy = True
            if self._unwanted == mark:
                raise KeyboardInterrupt
            self._execute(code)
        except SystemExit as error:
            self._busy = False
            reply["exited"] = "" if error.code is None else str(error.code)
        except BaseException as error:
            self._busy = False
            reply["raised"] = True
            _print_error(error)
        finally:
            self._busy = False
        if self._interrupted:
            self._interrupt_group()  # A child may have been forked after the first signal.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # the code may have put anything there
                pass
        if os.getpid() != self._pid:
            os._exit(int(reply["raised"]))  # A forked child came to the end of the code that forked it.
        return reply

    def interrupt(self, mark: str) -> None:
        """Raise KeyboardInterrupt in the code and interrupt its child processes, as Ctrl-C would."""
        self._unwanted = mark  # seen by `run` if it has not begun
        if self._busy:
            self._interrupt_group()
            # A system call of the main thread returns only if the signal comes to that thread.
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)

    def _interrupt_group(self) -> None:
        if os.getpgrp() == self._pid:
            os.killpg(0, signal.SIGINT)

    def _on_interrupt(self, *_: object) -> None:
        if self._busy and not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt

    def _execute(self, code: str) -> None:
        self._calls += 1
        name = CALL.format(self._calls)
        # Without a time of change the lines are never looked for on disk.
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        tree = compile(code, name, "exec", self._flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        last: list[ast.stmt] = []
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last.append(tree.body.pop())
        parts: list[types.CodeType] = []
        for node, mode in ((tree, "exec"), (ast.Interactive(last), "single")):
            if node.body:
                parts.append(compile(node, name, mode, self._flags, dont_inherit=True))
                self._flags |= parts[-1].co_flags & _ANNOTATIONS
        if any(part.co_flags & _CO_COROUTINE for part in parts):
            self._run_in_loop(self._await(parts))
        else:
            for part in parts:
                exec(part, self._main.__dict__)

    async def _await(self, parts: list[types.CodeType]) -> None:
        """Run all parts in the event loop, so that those that do not await can start tasks."""
        for part in parts:
            result = eval(part, self._main.__dict__)
            if part.co_flags & _CO_COROUTINE:
                await result

    def _run_in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        import asyncio  # only if needed: it would double the time that the interpreter takes to start

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise


def serve(requests: Iterable[bytes]) -> None:
    """Answer requests until their end, which ends this process."""
    # Out of the way of code that closes all low descriptors, and not for child processes.
    replies = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 200)
    os.close(3)
    os.write(replies, b"ready\n")
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    _unbuffer_c_output()
    faulthandler.enable()
    try:
        os.setpgid(
            0, 0
        )  # A group of its own, so that an interruption reaches the code and its children only.
    except PermissionError:
        pass  # It leads a session, and so has one.
    # Said of every fork from Python 3.12 on because of the thread below, which no child misses.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    sys.argv = [""]
    interpreter = Interpreter()
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, waiting, interpreter), daemon=True).start()
    while True:
        request = waiting.get()
        reply = interpreter.run(request["mark"], request["code"])
        os.write(replies, json.dumps(reply).encode() + b"\n")


def _receive(
    requests: Iterable[bytes], waiting: queue.SimpleQueue[dict[str, Any]], interpreter: Interpreter
) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for line in requests:
        request: dict[str, Any] = json.loads(line)
        if "interrupt" in request:
            interpreter.interrupt(request["interrupt"])
        else:
            waiting.put(request)
    os._exit(0)


def _print_error(error: BaseException) -> None:
    """Print a traceback from the code's own frames on, whatever the code made of `sys.stderr`."""
    place = error.__traceback__
    while place is not None and not place.tb_frame.f_code.co_filename.startswith("<call "):
        place = place.tb_next
    if isinstance(error, SyntaxError) and error.text is None and error.filename and error.lineno:
        error.text = linecache.getline(error.filename, error.lineno)  # left out if the parser saw no error
    report = traceback.TracebackException(type(error), error, place)
    text = "".join(_without_server(report).format())
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(2, data) :]


def _without_server(report: traceback.TracebackException) -> traceback.TracebackException:
    """Leave out the frame of the handler that interrupts the code."""
    one: traceback.TracebackException | None = report
    while one is not None:
        one.stack[:] = [frame for frame in one.stack if frame.filename != SERVER]
        one = one.__cause__ or one.__context__
    return report


def _unbuffer_c_output() -> None:
    """Make C's own standard output unbuffered, or it would come late and out of order."""
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 2, 0)  # 2 is _IONBF
    except (ImportError, OSError, ValueError, AttributeError):
        pass  # Then it comes when the library thinks fit.


if __name__ == SERVER:
    serve(globals()["requests"])
