"""A suite that any provider can run on itself: programs try to get out, the host looks whether they did.

Each check makes its own attempt and its own observation; none relies on what the provider says of itself.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from dsv4agent.sandboxes.masking import home_folders
from dsv4agent.sandboxes.protocol import Enforcement
from dsv4agent.sandboxes.scene import PATIENCE, SECRET, SECRET_VARIABLE, OpenSandbox, Scene, prepared_host
from dsv4agent.sandboxes.selfcheck_network import network_is_unreachable
from dsv4agent.sandboxes.selfcheck_policy import (
    limit_of_disk,
    limit_of_file_size,
    limit_of_memory,
    limit_of_open_files,
    limit_of_processes,
    limit_of_processor_time,
    repositories_are_read_only,
    secret_files_look_empty,
    system_secrets_stay_hidden,
)


@dataclass(frozen=True)
class CheckResult:
    """What one check found; `detail` says what got through if it did not pass.

    A check for a guarantee that the provider does not claim is `skipped`, with the provider's own reason:
    it is no failure and proves nothing.
    """

    name: str
    passed: bool
    detail: str = ""
    skipped: bool = False


Check = Callable[[Scene], Awaitable[str]]
"""Returns an empty string, or what got through."""


async def self_check(open_sandbox: OpenSandbox) -> list[CheckResult]:
    """Run all checks.

    Args:
        open_sandbox: Opens the sandbox under test for a policy without network.
    """
    results: list[CheckResult] = []
    with prepared_host() as make_scene:
        scene = await make_scene(open_sandbox)
        try:
            for name, check in CHECKS.items():
                guarantee = CLAIMS.get(name, "")
                if scene.sandbox.report.guarantees.get(guarantee) is Enforcement.NONE:
                    results.append(CheckResult(name, False, _reason(scene, guarantee), skipped=True))
                    continue
                try:
                    detail = await check(scene)
                except TimeoutError as error:
                    detail = str(error)
                results.append(CheckResult(name, not detail, detail))
        finally:
            await scene.sandbox.aclose()
        detail = await _daemons_gone()
        results.append(CheckResult("daemons_die_with_the_sandbox", not detail, detail))
    return results


async def _workspace_is_shared(scene: Scene) -> str:
    written = await scene.shell(f"echo from-shell > {scene.workspace}/shell.txt; pwd")
    await scene.sandbox.write_bytes(f"{scene.workspace}/new/file.txt", b"from-file")
    seen = await scene.shell(f"cat {scene.workspace}/new/file.txt")
    read = await scene.sandbox.read_bytes(f"{scene.workspace}/shell.txt")
    good = written.exit_code == 0 and seen.stdout == b"from-file" and read == b"from-shell\n"
    return "" if good else f"workspace not shared: {written} {seen} {read!r}"


async def _shell_writes_stay_inside(scene: Scene) -> str:
    attempts = [
        f"echo x > {scene.outside}/file",
        f"echo x > {scene.outside}/new",
        f"rm -f {scene.outside}/file",
        f"mv {scene.workspace}/shell.txt {scene.outside}/moved",
        f"truncate -s 0 {scene.outside}/file",
        f"cd {scene.workspace} && echo x > ../outside/dots",
        f"ln -s {scene.outside} {scene.workspace}/way && echo x > {scene.workspace}/way/linked",
        f"ln {scene.outside}/file {scene.workspace}/hard && echo x > {scene.workspace}/hard",
        f"echo x > /proc/self/root{scene.outside}/root",
        f"echo x > /proc/{os.getpid()}/root{scene.outside}/host-root",
        f"mkdir {scene.outside}/folder",
        f"mknod {scene.outside}/pipe p",
    ]
    for attempt in attempts:
        await scene.shell(attempt)
        if changed := _changed(scene):
            return f"`{attempt}` changed {changed}"
    return ""


async def _file_writes_stay_inside(scene: Scene) -> str:
    (scene.workspace / "file-way").symlink_to(scene.outside)
    (scene.workspace / "file-link").symlink_to(scene.outside / "file")
    paths = [
        f"{scene.outside}/file",
        f"{scene.outside}/new",
        f"{scene.workspace}/../outside/dots",
        f"{scene.workspace}/file-way/linked",
        f"{scene.workspace}/file-link",
        f"/proc/self/root{scene.outside}/root",
    ]
    for path in paths:
        try:
            await scene.sandbox.write_bytes(path, b"x")
        except OSError:
            pass
        else:
            return f"write_bytes({path!r}) raised nothing"
        if changed := _changed(scene):
            return f"write_bytes({path!r}) changed {changed}"
    for path in (f"{scene.outside}/file", f"{scene.workspace}/file-way/file"):
        try:
            await scene.sandbox.remove(path)
        except OSError:
            pass
        if changed := _changed(scene):
            return f"remove({path!r}) changed {changed}"
    return ""


async def _masked_files_stay_hidden(scene: Scene) -> str:
    secret = f"{scene.masked}/secret"
    (scene.workspace / "secret-link").symlink_to(secret)
    ways = [
        secret,
        f"{scene.workspace}/../masked/secret",
        f"{scene.workspace}/secret-link",
        f"/proc/self/root{secret}",
        f"/proc/{os.getpid()}/root{secret}",
        f"/proc/{os.getpid()}/cwd/../../../../../../../..{secret}",
    ]
    for way in ways:
        done = await scene.shell(f"cat {way}; ls {os.path.dirname(way)}")
        if SECRET.encode() in done.stdout or b"secret\n" in done.stdout.replace(b"secret-link\n", b""):
            return f"cat or ls of {way} worked"
        try:
            data = await scene.sandbox.read_bytes(way)
        except OSError:
            continue
        if SECRET.encode() in data:
            return f"read_bytes({way!r}) worked"
    try:
        if await scene.sandbox.list_dir(str(scene.masked)):
            return "list_dir of the masked folder worked"
    except OSError:
        pass
    return ""


async def _homes_stay_hidden(scene: Scene) -> str:
    for file in _files_in_homes()[:20]:
        if (await scene.shell(f"cat {shlex.quote(file)}")).stdout:
            return f"{file} was read"
    return ""


async def _environment_is_scrubbed(scene: Scene) -> str:
    script = f"env; cat /proc/{scene.victim.pid}/environ /proc/1/environ /proc/$PPID/environ 2>/dev/null"
    done = await scene.shell(script)
    return f"{SECRET_VARIABLE} is visible" if SECRET.encode() in done.stdout else ""


async def _host_processes_are_safe(scene: Scene) -> str:
    for number in ("TERM", "KILL"):
        await scene.shell(f"kill -{number} {scene.victim.pid}; kill -{number} -{scene.victim.pid}")
    await anyio.sleep(0.05)
    return "" if scene.victim.poll() is None else "a host process was killed"


async def _no_new_powers(scene: Scene) -> str:
    status = await scene.shell("cat /proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.stdout.decode().splitlines() if ":\t" in line)
    if fields.get("NoNewPrivs") != "1" or int(fields.get("CapEff", "1"), 16):
        return f"NoNewPrivs {fields.get('NoNewPrivs')}, CapEff {fields.get('CapEff')}"
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):
    if libc.unshare(flag) == 0:
        print("unshare", hex(flag))
if libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0:
    print("mount")
if libc.chroot(b"/") == 0:
    print("chroot")
"""
    done = await scene.python(code)
    return done.stdout.decode().strip() or ("" if done.exit_code == 0 else done.stderr.decode().strip())


async def _kernel_settings_are_read_only(scene: Scene) -> str:
    # Opened for writing and closed again: nothing changes even if it works.
    code = """
import os
def attempt(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        print(path)
    except OSError:
        pass
attempt("/proc/sysrq-trigger")
for top in ("/proc/sys", "/proc/irq", "/proc/bus", "/sys/kernel"):
    for folder, _, files in os.walk(top):
        for name in files:
            attempt(os.path.join(folder, name))
"""
    done = await scene.python(code)
    if done.exit_code:
        return done.stderr.decode("utf-8", "replace").strip()
    opened = done.stdout.decode().split()
    return f"{len(opened)} can be opened for writing, first {opened[0]}" if opened else ""


async def _special_files_are_refused(scene: Scene) -> str:
    os.mkfifo(scene.workspace / "fifo")
    for path in (f"{scene.workspace}/fifo", "/dev/zero", "/dev/null"):
        with anyio.move_on_after(PATIENCE) as limit:
            try:
                await scene.sandbox.read_bytes(path, 1)
            except OSError:
                pass
            else:
                return f"read_bytes({path!r}) worked"
        if limit.cancelled_caught:
            return f"read_bytes({path!r}) blocked"
    return ""


async def _timeout_ends_the_tree(scene: Scene) -> str:
    beat = scene.workspace / "beat"
    loop = f"trap '' TERM; while :; do echo . >> {beat}; sleep 0.02; done"
    started = time.monotonic()
    try:
        await scene.sandbox.run(["bash", "-c", f'({loop}) & setsid bash -c "{loop}" & wait'], timeout=0.3)
    except TimeoutError:
        pass
    else:
        return "no TimeoutError"
    if time.monotonic() - started > 5:
        return "took longer than timeout and grace"
    size = beat.stat().st_size
    await anyio.sleep(0.2)
    return "" if beat.stat().st_size == size else "a child survived"


async def _daemon_starts(scene: Scene) -> str:
    process = await scene.sandbox.spawn(
        ["bash", "-c", f"setsid bash -c '(exec -a {_daemon_name()} sleep 1000) & sleep 1000' & wait"]
    )
    for _ in range(100):
        if _daemons():
            return ""
        await anyio.sleep(0.02)
    return f"the daemon did not start: {await process.read_control()!r}"


CHECKS: Mapping[str, Check] = {
    "workspace_is_shared": _workspace_is_shared,
    "shell_writes_stay_inside": _shell_writes_stay_inside,
    "file_writes_stay_inside": _file_writes_stay_inside,
    "masked_files_stay_hidden": _masked_files_stay_hidden,
    "homes_stay_hidden": _homes_stay_hidden,
    "network_is_unreachable": network_is_unreachable,
    "environment_is_scrubbed": _environment_is_scrubbed,
    "host_processes_are_safe": _host_processes_are_safe,
    "no_new_powers": _no_new_powers,
    "kernel_settings_are_read_only": _kernel_settings_are_read_only,
    "special_files_are_refused": _special_files_are_refused,
    "repositories_are_read_only": repositories_are_read_only,
    "secret_files_look_empty": secret_files_look_empty,
    "system_secrets_stay_hidden": system_secrets_stay_hidden,
    "limit_of_memory": limit_of_memory,
    "limit_of_processes": limit_of_processes,
    "limit_of_processor_time": limit_of_processor_time,
    "limit_of_file_size": limit_of_file_size,
    "limit_of_open_files": limit_of_open_files,
    "limit_of_disk": limit_of_disk,
    "timeout_ends_the_tree": _timeout_ends_the_tree,
    "daemon_starts": _daemon_starts,
}
"""By name, in order; the last one prepares for the check made after the sandbox is closed."""


CLAIMS: Mapping[str, str] = {
    "repositories_are_read_only": "repositories",
    "secret_files_look_empty": "secrets",
    **dict.fromkeys((name for name in CHECKS if name.startswith("limit_")), "limits"),
}
"""The guarantee that a check is about, where a provider may do without it."""


def _reason(scene: Scene, guarantee: str) -> str:
    notes = [note for note in scene.sandbox.report.notes if note.startswith(f"{guarantee}: ")]
    return notes[0] if notes else f"{guarantee}: not claimed by {scene.sandbox.report.provider}"


def _files_in_homes() -> list[str]:
    """Return files that this user can read; those of others are the business of permissions."""
    homes = [Path(home) for home in home_folders() if os.access(home, os.R_OK | os.X_OK)]
    entries = (entry for home in homes for entry in sorted(home.iterdir()))
    return [
        str(entry)
        for entry in entries
        if entry.is_file() and os.access(entry, os.R_OK) and entry.stat().st_size
    ]


def _changed(scene: Scene) -> str:
    """Return what is different in the outside folder, or an empty string."""
    names = sorted(path.name for path in scene.outside.iterdir())
    if names != ["file", "socket"]:
        return f"the folder: {names}"
    return "" if (scene.outside / "file").read_bytes() == b"before" else "the file"


def _daemon_name() -> str:
    return f"dsv4agent-self-check-{os.getpid()}"


def _daemons() -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cmdline").read_bytes().startswith(_daemon_name().encode() + b"\0"):
                found.append(entry.name)
        except OSError:
            continue
    return found


async def _daemons_gone() -> str:
    for _ in range(100):
        if not _daemons():
            return ""
        await anyio.sleep(0.02)
    return "a daemon outlived the sandbox"
