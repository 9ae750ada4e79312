"""Attacks on `writes` by what is left behind: files that gain rights later, or that the cage itself takes up."""
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import os
import shutil
import sys
import venv
from dataclasses import replace
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Policy
from tests.attacks.attack import Attack, family, holds
from tests.attacks.programs import compiled, py, sh
from tests.attacks.stage import Stage

_DEVICES = (
    *("/dev/loop", "/dev/fuse", "/dev/mapper", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kvm", "/dev/vd"),
    *("/dev/sd", "/dev/nvme", "/dev/kmsg", "/dev/uinput", "/dev/vhost", "/dev/net", "/dev/btrfs"),
    "/dev/userfaultfd",
)


async def _set_user_id(stage: Stage) -> str:
    """See whether a program can leave a file that gives whoever starts it this user's rights."""
    await stage.run(
        py("""
os.chdir(T["WORKSPACE"])
for name in ("suid-a", "suid-b", "suid-c", "suid-d", "suid-e"):
    open(name, "w").close()
quietly(os.chmod, "suid-a", 0o4755)
quietly(os.fchmod, os.open("suid-b", os.O_RDWR), 0o4755)
quietly(syscall, 268, -100, b"suid-c", 0o4755)
quietly(syscall, 452, -100, b"suid-d", 0o4755, 0)
os.umask(0)
quietly(os.open, "suid-f", os.O_CREAT | os.O_WRONLY, 0o4755)
quietly(os.mknod, "suid-g", 0o104755)
quietly(syscall, 85, b"suid-h", 0o4755)
quietly(syscall, 2, b"suid-i", os.O_CREAT | os.O_WRONLY, 0o4755)
quietly(syscall, 437, -100, b"suid-j", struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, 0o4755, 0), 24)
quietly(syscall, 259, -100, b"suid-k", 0o104755, 0)
quietly(syscall, 133, b"suid-l", 0o104755, 0)
quietly(subprocess.run, ["install", "-m", "4755", "/bin/true", "suid-m"])
""")
    )
    found = [path.name for path in stage.workspace.glob("suid-*") if path.stat().st_mode & 0o4000]
    for path in stage.workspace.glob("suid-*"):
        path.unlink()
    return f"the workspace holds set-user-id files: {', '.join(sorted(found))}" if found else ""


async def _keeps_set_user_id(stage: Stage) -> str:
    """Let the file server rewrite a set-user-id program, from which the kernel would take the bit."""
    path = stage.workspace / "was-suid"
    path.write_bytes(b"before")
    path.chmod(0o4755)
    try:
        await stage.sandbox.write_bytes(str(path), b"after")
    except OSError:
        pass
    data, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()
    return "a rewritten program kept its set-user-id bit" if data == b"after" and mode & 0o4000 else ""


async def _file_capabilities(stage: Stage) -> str:
    await stage.run(
        py("""
path = T["WORKSPACE"] + "/capable"
put(path)
for revision in (struct.pack("<5I", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0),
                 struct.pack("<6I", 0x03000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0, 0)):
    quietly(os.setxattr, path, "security.capability", revision)
""")
    )
    path = stage.workspace / "capable"
    held = path.exists() and "security.capability" in os.listxattr(path)
    return "the workspace holds a file with capabilities" if held else ""


async def _device_nodes(stage: Stage) -> str:
    await stage.run(
        py("""
os.chdir(T["WORKSPACE"])
disk = os.stat("/").st_dev
quietly(os.mknod, "disk", 0o060666, disk)
quietly(os.mknod, "memory", 0o020666, os.makedev(1, 1))
quietly(os.mknod, "kernel-log", 0o020666, os.makedev(1, 11))
""")
    )
    made = [name for name in ("disk", "memory", "kernel-log") if (stage.workspace / name).exists()]
    for name in made:
        (stage.workspace / name).unlink()
    return f"device nodes were made: {', '.join(made)}" if made else ""


async def _replaced_writable_parent(stage: Stage) -> str:
    """Swap the parent of a writable folder for a link, so that the next program's mount follows it."""
    await stage.run(sh('cd "$WORKSPACE" && mv deep moved && ln -s "${OUTSIDE%/*}" deep'))
    await stage.run(sh('cd "$WORKSPACE/deep/outside" && echo x > new; echo x > file'))
    return stage.changed()


def _with_deep_folder(stage: Stage, policy: Policy) -> Policy:
    for name in ("deep", "moved"):
        path = stage.workspace / name
        path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
    (stage.workspace / "deep/outside").mkdir(parents=True)
    return replace(policy, writable=(str(stage.workspace / "deep/outside"),))


_PLACES = (
    "/etc/cron.d/attack",
    "/etc/profile.d/attack.sh",
    "/etc/ld.so.preload",
    "/etc/systemd/system/attack.service",
    "/usr/local/bin/attack",
    "/var/spool/cron/crontabs/attack",
    "~/.bash_login",
    "~/.config/autostart/attack.desktop",
    "~/.local/bin/attack",
    "~/.ssh/authorized_keys",
)


async def _places_of_programs(stage: Stage) -> str:
    """Look for files where the system or the user would start them."""
    places = [Path(place.replace("~", str(stage.host.home))) for place in _PLACES]
    fresh = [place for place in places if not place.exists()]
    script = "\n".join(f'mkdir -p "{place.parent}"; echo "# attack" > "{place}"' for place in fresh)
    await stage.run(sh(script + '\necho "* * * * * true" | crontab -; echo true | at now'))
    planted = [place for place in fresh if place.exists()]
    for place in planted:
        place.unlink()
    return f"planted {', '.join(map(str, planted))}" if planted else ""


async def _preloaded_machinery(stage: Stage) -> str:
    """Put a library into the workspace that the loader would take into what starts the cage."""
    source = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void attack(void) {
    chdir(getenv("OUTSIDE"));
    int file = open("new", O_WRONLY | O_CREAT, 0644);
    if (file >= 0) close(file);
}
"""
    library = stage.workspace / "preloaded.so"
    library.write_bytes(compiled(source, "-shared", "-fPIC"))
    await stage.run(sh("true"), env={"LD_PRELOAD": str(library)})
    return stage.changed()


async def _rewritten_interpreter(stage: Stage) -> str:
    """Let the product run from a virtual environment in the workspace, and let a program rewrite that."""
    script = r"""
import os, sys, anyio
from dsv4agent.sandboxes import Policy, choose_sandbox
space, out, provider = sys.argv[1:]
async def main():
    async with await choose_sandbox(Policy(space), provider) as sandbox:
        replace = (
            f'cd "{space}/.own/bin" && rm -f python && '
            f'printf "#!/bin/sh\\necho x > {out}/new\\n" > python && chmod +x python'
        )
        await sandbox.run(["sh", "-c", replace], timeout=8)
        try:
            await sandbox.run(["true"], timeout=8)
        except Exception:
            pass
anyio.run(main)
"""
    own = stage.workspace / ".own/bin"
    await anyio.to_thread.run_sync(lambda: _make_environment(own.parent))
    command = [
        str(own / "python"),
        "-c",
        script,
        str(stage.workspace),
        str(stage.host.outside),
        stage.provider,
    ]
    with anyio.move_on_after(20):
        await anyio.run_process(command, check=False, cwd=os.getcwd())
    return stage.changed()


def _make_environment(folder: os.PathLike[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    site = f"{os.fspath(folder)}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    paths = [os.getcwd(), *(path for path in sys.path if path.endswith("-packages"))]
    with open(f"{site}/own.pth", "w") as file:
        file.write("\n".join(paths) + "\n")


ATTACKS = family(
    "planted",
    "writes",
    Attack(
        "set_user_id",
        "Leaves a set-user-id program in the workspace for an accomplice outside, by twelve system calls.",
        "",
        _set_user_id,
        opens_uncaged=True,
    ),
    Attack(
        "kept_set_user_id",
        "Lets the file tools rewrite a set-user-id program, which must lose that bit.",
        "",
        _keeps_set_user_id,
    ),
    Attack("file_capabilities", "Gives a file in the workspace capabilities.", "", _file_capabilities),
    Attack("device_nodes", "Makes device nodes for the disk and for memory.", "", _device_nodes),
    Attack(
        "device_files",
        "Opens what could lay a file system over another: loop devices, device mapper, FUSE, disks, memory.",
        "",
        holds(
            py("""
for path in ("loop-control", "loop0", "fuse", "mapper/control", "mem", "kmem", "port", "kvm", "vda", "sda",
             "nvme0n1", "kmsg", "uinput", "vhost-net", "net/tun", "btrfs-control", "userfaultfd"):
    for mode in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY):
        quietly(os.open, "/dev/" + path, mode | os.O_NONBLOCK)
wait()
"""),
            *_DEVICES,
        ),
    ),
    Attack(
        "places_of_programs",
        "Plants programs where the system or the user starts them: cron, profile, autostart, units, keys.",
        "",
        _places_of_programs,
    ),
    Attack(
        "replaced_writable_parent",
        "Replaces the parent of a writable folder by a link, for the next program's mount to follow.",
        "",
        _replaced_writable_parent,
        policy=_with_deep_folder,
    ),
    Attack(
        "preloaded_machinery",
        "Names a library of the workspace in LD_PRELOAD: whatever starts the cage must not load it.",
        "",
        _preloaded_machinery,
        tools=("gcc",),
        opens_uncaged=True,
    ),
    Attack(
        "rewritten_interpreter",
        "Rewrites the interpreter of the running product where that lies in the workspace.",
        "",
        _rewritten_interpreter,
    ),
)
