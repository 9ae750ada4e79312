"""Attacks on `reads` and `secrets`: credentials, masked folders, `.env` files, what only root may read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dsv4agent.sandboxes import Policy
from tests.attacks.attack import Attack, family, shows
from tests.attacks.host import HOME_SECRETS
from tests.attacks.programs import py, sh
from tests.attacks.stage import Stage

_SECRET_ENV = b"secret-of-the-env-file"


async def _root_only(stage: Stage) -> str:
    """Compare what programs show of files that only root may read with what the host finds there."""
    for path in _private_files():
        done = await stage.run(sh(f'cat "{path}"'))
        if done.stdout and done.stdout == path.read_bytes():
            return f"{path} was read"
    return ""


def _private_files() -> Iterable[Path]:
    """Yield files of the system that hold secrets and are closed to other users but not to this one."""
    for path in (
        *(Path("/etc", name) for name in ("shadow", "gshadow", "shadow-", "sudoers", "security/opasswd")),
        *sorted(Path("/etc/ssh").glob("ssh_host_*_key")),
        *sorted(Path("/etc/ssl/private").glob("*.key")),
    ):
        try:
            if path.stat().st_mode & 0o004 == 0 and os.access(path, os.R_OK) and path.stat().st_size:
                yield path
        except OSError:
            continue


async def _kernel_memory(stage: Stage) -> str:
    """Read kernel memory and page tables of the machine: the host knows what an ELF core begins with."""
    done = await stage.run(
        py("""
for path in ("/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/vda", "/dev/sda", "/dev/nvme0n1"):
    quietly(lambda: os.write(1, os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 64) + b"!"))
""")
    )
    return f"kernel memory or a disk was read: {done.stdout[:16]!r}" if done.stdout else ""


async def _kernel_log(stage: Stage) -> str:
    """Read the kernel's messages, which tell addresses and devices."""
    done = await stage.run(
        py("""
quietly(lambda: os.write(1, os.read(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), 64)))
quietly(lambda: os.write(1, os.read(os.open("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK), 64)))
buffer = ctypes.create_string_buffer(4096)
count = quietly(syscall, 103, 3, buffer, 4096)
if count:
    os.write(1, buffer.raw[:count])
""")
    )
    return "the kernel's log was read" if done.stdout else ""


async def _kernel_addresses(stage: Stage) -> str:
    done = await stage.run(sh("grep -m1 -v '^0* ' /proc/kallsyms; grep -m1 -v ' 0x0* *$' /proc/modules"))
    return (
        f"kernel addresses are shown: {done.stdout[:60]!r}"
        if b" 0x" in done.stdout or (done.stdout and not done.stdout.startswith(b"0" * 16))
        else ""
    )


async def _env_files(stage: Stage) -> str:
    """Read `.env` files by name, by link, by copy and by archive."""
    shows_it = await stage.run(
        sh(
            'cd "$WORKSPACE/app"; cat .env .env.local ./.env sub/../.env; ln .env linked; cat linked;'
            "cp .env copied; cat copied; tar c . ; mv .env moved; cat moved; ln -s .env soft; cat soft;"
            "git -C .. grep --no-index -h secret-of; dd if=.env; cat /proc/self/root$PWD/.env;"
            "mv ../app ../app2; cat ../app2/.env"
        )
    )
    more = await stage.run(sh('cat "$WORKSPACE/app2/.env" "$WORKSPACE/app/.env"'))
    try:
        data = await stage.sandbox.read_bytes(f"{stage.workspace}/app/.env")
    except OSError:
        data = b""
    found = [output for output in (shows_it.stdout, more.stdout, data) if _SECRET_ENV in output]
    return "a .env file of the workspace was read" if found else ""


async def _env_file_later(stage: Stage) -> str:
    """Let the user write a `.env` while the sandbox is open, and read it from the next program."""
    (stage.workspace / "app/later").mkdir()
    (stage.workspace / "app/later/.env").write_bytes(b"TOKEN=" + _SECRET_ENV)
    done = await stage.run(sh('cat "$WORKSPACE/app/later/.env"'))
    return "a .env file written later was read" if _SECRET_ENV in done.stdout else ""


async def _env_file_is_a_link(stage: Stage) -> str:
    """Make `.env` a link that leads nowhere, or to a secret: neither may show nor stop anything."""
    await stage.run(
        sh(
            'mkdir -p "$WORKSPACE/links/a" "$WORKSPACE/links/b" && cd "$WORKSPACE/links" &&'
            ' ln -s /nowhere/at/all a/.env && ln -s "$HIDDEN/secret" b/.env'
        )
    )
    done = await stage.run(sh('echo alive; cat "$WORKSPACE"/links/*/.env'))
    shutil.rmtree(stage.workspace / "links", ignore_errors=True)
    if b"alive" not in done.stdout:
        return f"a dangling .env link stops every program: {done.stderr[:80]!r}"
    return stage.leaked(done)


async def _example_stays(stage: Stage) -> str:
    done = await stage.run(sh('cat "$WORKSPACE/app/.env.example"'))
    return "" if done.stdout == b"TOKEN=" else f".env.example should be readable: {done}"


async def _moved_mask(stage: Stage) -> str:
    """Rename the folder above a masked one: the next program's mask would hide an empty place."""
    first = await stage.run(sh('cd "$WORKSPACE"; cat keys/private/secret; mv keys moved-keys'))
    second = await stage.run(
        sh('cd "$WORKSPACE"; cat moved-keys/private/secret keys/private/secret; ls -R keys moved-keys')
    )
    return stage.leaked(first, second)


def _with_keys(stage: Stage, policy: Policy) -> Policy:
    private = stage.workspace / "keys/private"
    for name in ("keys", "moved-keys"):
        shutil.rmtree(stage.workspace / name, ignore_errors=True)
    private.mkdir(parents=True)
    (private / "secret").write_bytes(stage.host.secrets["the masked folder"])
    return replace(policy, masked=(*policy.masked, str(private)))


def _with_env_files(stage: Stage, policy: Policy) -> Policy:
    for name in ("app", "app2"):
        shutil.rmtree(stage.workspace / name, ignore_errors=True)
    folder = stage.workspace / "app"
    (folder / "sub").mkdir(parents=True)
    for name in (".env", ".env.local"):
        (folder / name).write_bytes(b"TOKEN=" + _SECRET_ENV)
    (folder / ".env.example").write_bytes(b"TOKEN=")
    return policy


async def _file_tools(stage: Stage) -> str:
    """Ask the file tools for secrets by many spellings."""
    hidden = f"{stage.host.scene.masked}/secret"
    key = f"{stage.host.home}/.ssh/id_ed25519"
    link = stage.workspace / "to-secret"
    if not link.is_symlink():
        link.symlink_to(hidden)
    for target in (hidden, key):
        for path in (
            target,
            str(link),
            f"{stage.workspace}/../masked/secret",
            f"/proc/self/root{target}",
            f"/proc/1/root{target}",
            f"/proc/{os.getpid()}/root{target}",
            f"/proc/{stage.host.victim.pid}/root{target}",
            f"/proc/{os.getpid()}/cwd{target}",
        ):
            try:
                if leak := stage.leaked(await stage.sandbox.read_bytes(path)):
                    return f"{path}: {leak}"
            except OSError:
                continue
    for folder in (stage.host.scene.masked, stage.host.home, stage.host.home / ".ssh"):
        try:
            if await stage.sandbox.list_dir(str(folder)):
                return f"the file tools list {folder}"
        except OSError:
            continue
    return ""


ATTACKS = family(
    "reads",
    "reads",
    *(
        Attack(
            f"home_{name.strip('.').replace('/', '_').replace('.', '_')}",
            f"Reads ~/{name} by path and by /proc/self/root.",
            "",
            shows(
                sh(f'cat "$HOST_HOME/{name}" "/proc/self/root$HOST_HOME/{name}"; tar c "$HOST_HOME/{name}"')
            ),
            opens_uncaged=True,
        )
        for name in HOME_SECRETS
    ),
    Attack(
        "masked_folder",
        "Reads a masked folder by path, `..`, links, and the roots of other processes.",
        "",
        shows(
            sh(
                'cat "$HIDDEN/secret" "$WORKSPACE/../masked/secret"; ln -sfn "$HIDDEN" "$WORKSPACE/h";'
                'cat "$WORKSPACE/h/secret"; for p in self 1 $PPID "$HOST" "$VICTIM"; do'
                ' cat "/proc/$p/root$HIDDEN/secret" "/proc/$p/cwd$HIDDEN/secret"; done;'
                'tar c "$HIDDEN"; find "$HIDDEN" -type f -exec cat {} +; cd "$HIDDEN" && cat *'
            )
        ),
        opens_uncaged=True,
    ),
    Attack(
        "masked_folder_uncovered",
        "Unmounts what covers a masked folder, moves it away, renames it and its parents.",
        "",
        shows(
            sh(
                'umount -l "$HIDDEN"; unshare -rm umount -l "$HIDDEN"; cat "$HIDDEN/secret";'
                'mv "$HIDDEN" "$HIDDEN.moved"; mv "${HIDDEN%/*}" "${HIDDEN%/*}.moved"; rmdir "$HIDDEN";'
                'cat "$HIDDEN/secret" "$HIDDEN.moved/secret"; mount --bind / "$WORKSPACE/b";'
                'cat "$WORKSPACE/b$HIDDEN/secret"'
            )
        ),
    ),
    Attack(
        "masked_by_descriptor",
        "Opens a masked file by openat2, by handle, by O_PATH and by execution.",
        "",
        shows(
            py("""
secret = T["HIDDEN"] + "/secret"
def pour(descriptor):
    if descriptor:
        os.write(1, os.read(descriptor, 1000))
pour(quietly(syscall, 437, -100, secret.encode(), bytes(24), 24))
path = quietly(os.open, secret, os.O_PATH)
if path:
    quietly(show, f"/proc/self/fd/{path}")
class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
base = os.open("/usr", os.O_RDONLY)
for inode in range(2, 40):
    handle = Handle(8, 1)
    ctypes.memmove(handle.data, struct.pack("II", inode, 0), 8)
    folder = quietly(syscall, 304, base, ctypes.byref(handle), os.O_RDONLY)
    if folder:
        pour(quietly(os.open, secret.lstrip("/"), os.O_RDONLY, dir_fd=folder))
quietly(show, f"/proc/self/cwd/../masked/secret")
quietly(subprocess.run, ["bash", secret])
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "moved_mask",
        "Renames the folder above a masked one inside the workspace, then reads from the next program.",
        "",
        _moved_mask,
        policy=_with_keys,
        opens_uncaged=True,
    ),
    Attack(
        "file_tools",
        "Asks the file tools for hidden files by many paths.",
        "",
        _file_tools,
        opens_uncaged=True,
    ),
    Attack(
        "root_only_files",
        "Reads what only root may read: shadow, sudoers, host keys.",
        "secrets",
        _root_only,
        needs="secrets",
    ),
    Attack(
        "env_files",
        "Reads `.env` files by name, link, copy, move, archive and grep.",
        "secrets",
        _env_files,
        needs="secrets",
        policy=_with_env_files,
        opens_uncaged=True,
    ),
    Attack(
        "env_file_written_later",
        "Reads a `.env` that came while the sandbox was open.",
        "secrets",
        _env_file_later,
        needs="secrets",
        policy=_with_env_files,
        exempt={
            "bubblewrap": "files are hidden that were there at opening; later ones may be the programs' own",
            "landlock": "its rules are made when the sandbox opens, and only allow",
        },
        opens_uncaged=True,
    ),
    Attack(
        "env_file_as_link",
        "Makes `.env` a dangling link, or one to a secret.",
        "secrets",
        _env_file_is_a_link,
        needs="secrets",
        policy=_with_env_files,
    ),
    Attack(
        "env_example_stays_readable",
        "The counter-check: `.env.example` is no secret and must stay readable.",
        "secrets",
        _example_stays,
        policy=_with_env_files,
    ),
    Attack("kernel_memory", "Reads kernel memory and whole disks.", "", _kernel_memory),
    Attack("kernel_log", "Reads the kernel's messages.", "system_calls", _kernel_log),
    Attack("kernel_addresses", "Reads addresses of kernel symbols.", "system_calls", _kernel_addresses),
)
