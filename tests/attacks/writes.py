"""Attacks on `writes`: changing a file outside the workspace, by every road the kernel knows."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from dataclasses import replace
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Policy
from tests.attacks.attack import Attack, changes, family, holds
from tests.attacks.programs import c, compiled, py, sh
from tests.attacks.stage import Stage

_DECLARED = {"landlock": "declared partial: mode, owner and times of files outside are not covered"}

_DEVICES = (
    *("/dev/loop", "/dev/fuse", "/dev/mapper", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kvm", "/dev/vd"),
    *("/dev/sd", "/dev/nvme", "/dev/kmsg", "/dev/uinput", "/dev/vhost", "/dev/net", "/dev/btrfs"),
    "/dev/userfaultfd",
)

_SWAP = c(r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
/* A folder and a link to the outside folder change places as fast as the kernel can. */
int main(void) {
    chdir(getenv("WORKSPACE"));
    mkdir("swap-a", 0755);
    symlink(getenv("OUTSIDE"), "swap-b");
    puts("ready"); fflush(stdout);
    time_t end = time(0) + 6;
    while (time(0) < end)
        syscall(SYS_renameat2, AT_FDCWD, "swap-a", AT_FDCWD, "swap-b", 2 /* RENAME_EXCHANGE */);
}
""")


async def _race(stage: Stage) -> str:
    """Write through the file tools' door while a program swaps a folder for a link to the outside."""
    async with stage.running(_SWAP):
        for number in range(150):
            try:
                await stage.sandbox.write_bytes(f"{stage.workspace}/swap-a/new-{number}", b"x")
            except OSError:
                pass
            try:
                await stage.sandbox.write_bytes(f"{stage.workspace}/swap-a/file", b"x")
            except OSError:
                pass
    return stage.changed()


async def _file_server(stage: Stage) -> str:
    """Ask the file server itself for writes outside, by many spellings."""
    out, space = stage.host.outside, stage.workspace
    for name, target in (("fs-way", out), ("fs-link", out / "file"), ("fs-root", "/proc/self/root")):
        if not (space / name).is_symlink():
            (space / name).symlink_to(target)
    for path in (
        f"{out}/file",
        f"{out}/new",
        f"{space}/../outside/new",
        f"{space}/fs-way/new",
        f"{space}/fs-link",
        f"{space}/fs-root{out}/new",
        f"/proc/self/cwd{out}/new",
        f"/proc/1/root{out}/new",
        f"/proc/{os.getpid()}/root{out}/new",
        f"/proc/{os.getpid()}/cwd/new",
        f"/dev/fd/0/../..{out}/new",
    ):
        try:
            await stage.sandbox.write_bytes(path, b"x")
        except OSError:
            pass
        if change := stage.changed():
            return f"{path}: {change}"
    return ""


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
    "writes",
    "writes",
    Attack(
        "absolute_path",
        "Writes, appends, makes, removes, cuts and renames by absolute paths.",
        "",
        changes(
            sh('echo x > "$OUTSIDE/file"'),
            sh('echo x >> "$OUTSIDE/file"'),
            sh('echo x > "$OUTSIDE/new"'),
            sh('rm -f "$OUTSIDE/file"'),
            sh('truncate -s 0 "$OUTSIDE/file"'),
            sh('mkdir "$OUTSIDE/folder"; mkfifo "$OUTSIDE/pipe"; ln -s x "$OUTSIDE/link"'),
            sh('mv "$OUTSIDE/file" "$OUTSIDE/renamed"'),
            sh('mv "$OUTSIDE/file" "$WORKSPACE/stolen"'),
            sh('echo x > "$WORKSPACE/moving"; mv "$WORKSPACE/moving" "$OUTSIDE/moved"'),
        ),
        opens_uncaged=True,
    ),
    Attack(
        "dots",
        "Climbs out of the workspace with `..`, also behind a link and through deleted folders.",
        "",
        changes(
            sh('cd "$WORKSPACE" && echo x > ../outside/new'),
            sh('cd "$WORKSPACE" && mkdir -p d/e && ln -sfn d/e way && echo x > way/../../../outside/new'),
            sh('cd "$WORKSPACE" && mkdir gone && cd gone && rmdir ../gone && echo x > ../../outside/new'),
            sh('cd "$WORKSPACE" && cd -P .. && cd -P outside && echo x > new'),
        ),
        opens_uncaged=True,
    ),
    Attack(
        "symbolic_link",
        "Writes through symbolic links to a file, to a folder, and through a chain of them.",
        "",
        changes(
            sh('cd "$WORKSPACE" && ln -sfn "$OUTSIDE/file" l && echo x > l'),
            sh('cd "$WORKSPACE" && ln -sfn "$OUTSIDE" m && echo x > m/new'),
            sh('cd "$WORKSPACE" && ln -sfn m n && ln -sfn n o && ln -sfn "$OUTSIDE" m && echo x > o/new'),
        ),
        opens_uncaged=True,
    ),
    Attack(
        "hard_link",
        "Makes hard links to a file outside, also by descriptor, and writes to them.",
        "",
        changes(
            sh('ln "$OUTSIDE/file" "$WORKSPACE/hard" && echo x > "$WORKSPACE/hard"'),
            py("""
source, target = T["OUTSIDE"] + "/file", T["WORKSPACE"] + "/hard-at"
descriptor = os.open(source, os.O_RDONLY)
quietly(os.link, f"/proc/self/fd/{descriptor}", target, follow_symlinks=True)
quietly(syscall, 265, descriptor, b"", -100, target.encode(), 0x1000)
quietly(put, target, flags=os.O_WRONLY)
"""),
        ),
        opens_uncaged=True,
    ),
    Attack(
        "proc_root_and_cwd",
        "Writes through /proc/PID/root, cwd and fd of itself, the first process and host processes.",
        "",
        changes(
            sh('echo x > "/proc/self/root$OUTSIDE/new"'),
            sh('for p in 1 $PPID "$HOST" "$VICTIM"; do echo x > "/proc/$p/root$OUTSIDE/new"; done'),
            sh(
                'for p in 1 $PPID "$HOST" "$VICTIM"; do (cd "/proc/$p/cwd" && echo x > ".$OUTSIDE/new"); done'
            ),
            sh('cd "$OUTSIDE" && echo x > /proc/self/cwd/new; echo x > "/dev/fd/../cwd/new"'),
        ),
        opens_uncaged=True,
    ),
    Attack(
        "reopened_descriptor",
        "Opens a file outside for reading and turns that into writing by /proc/self/fd and by the kernel.",
        "",
        changes(
            py("""
descriptor = os.open(T["OUTSIDE"] + "/file", os.O_RDONLY)
quietly(put, f"/proc/self/fd/{descriptor}", flags=os.O_WRONLY)
quietly(put, f"/proc/thread-self/fd/{descriptor}", flags=os.O_WRONLY | os.O_TRUNC)
path = os.open(T["OUTSIDE"] + "/file", os.O_PATH)
quietly(put, f"/proc/self/fd/{path}", flags=os.O_WRONLY)
quietly(os.write, descriptor, b"x")
quietly(os.ftruncate, descriptor, 0)
quietly(os.posix_fallocate, descriptor, 0, 100)
folder = os.open(T["OUTSIDE"], os.O_PATH | os.O_DIRECTORY)
quietly(os.open, "new", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
quietly(os.open, T["OUTSIDE"], os.O_TMPFILE | os.O_WRONLY)
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "anonymous_file_linked_out",
        "Makes a nameless file in the workspace and links it into the outside folder.",
        "",
        changes(
            py("""
descriptor = os.open(T["WORKSPACE"], os.O_TMPFILE | os.O_RDWR)
quietly(os.link, f"/proc/self/fd/{descriptor}", T["OUTSIDE"] + "/new", follow_symlinks=True)
quietly(syscall, 265, descriptor, b"", -100, (T["OUTSIDE"] + "/newer").encode(), 0x1000)
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "inherited_descriptors",
        "Tries every descriptor number as a folder to make a file in, and every one as a file to write.",
        "",
        changes(
            py("""
for number in range(3, 1024):
    try:
        os.close(os.open("../outside/new", os.O_WRONLY | os.O_CREAT, dir_fd=number))
        os.close(os.open("." + T["OUTSIDE"] + "/new", os.O_WRONLY | os.O_CREAT, dir_fd=number))
    except OSError:
        pass
for pid in os.listdir("/proc"):
    if pid.isdigit():
        for name in quietly(os.listdir, f"/proc/{pid}/fd") or ():
            try:
                os.close(os.open(f"/proc/{pid}/fd/{name}{T['OUTSIDE']}/new", os.O_WRONLY | os.O_CREAT))
            except OSError:
                pass
""")
        ),
    ),
    Attack(
        "mapped_file",
        "Maps a file outside for reading and makes the mapping writable.",
        "",
        changes(
            py("""
descriptor = os.open(T["OUTSIDE"] + "/file", os.O_RDONLY)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
address = libc.mmap(None, 4096, 1, 1, descriptor, 0)
if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 3) == 0:
    ctypes.memmove(address, b"x", 1)
quietly(put, "/proc/self/mem")
memory = os.open("/proc/self/mem", os.O_RDWR)
quietly(os.pwrite, memory, b"x", address)
""")
        ),
    ),
    Attack(
        "openat2",
        "Opens files outside with openat2, which a filter cannot look into.",
        "",
        changes(
            py("""
for path in ("/file", "/new"):
    how = struct.pack("QQQ", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, 0)
    quietly(syscall, 437, -100, (T["OUTSIDE"] + path).encode(), how, len(how))
""")
        ),
    ),
    Attack(
        "file_handle",
        "Opens a file outside by its handle, under which a mount or a rule cannot be seen.",
        "",
        changes(
            py("""
class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
handle, mount = Handle(128), ctypes.c_int()
target = (T["OUTSIDE"] + "/file").encode()
quietly(syscall, 303, -100, target, ctypes.byref(handle), ctypes.byref(mount), 0)
inode = os.stat(target).st_ino
if not handle.kind:
    handle.size, handle.kind = 8, 1
    ctypes.memmove(handle.data, struct.pack("II", inode, 0), 8)
base = os.open(T["WORKSPACE"], os.O_RDONLY)
descriptor = quietly(syscall, 304, base, ctypes.byref(handle), os.O_WRONLY)
if descriptor:
    os.write(descriptor, b"x")
""")
        ),
    ),
    Attack(
        "mount_tricks",
        "Binds the outside folder into the workspace, remounts it writable, and lays an overlay over it.",
        "",
        changes(
            sh(
                'cd "$WORKSPACE" && mkdir -p b u w m;'
                'mount --bind "$OUTSIDE" b && echo x > b/new;'
                'mount -o remount,rw,bind / && echo x > "$OUTSIDE/new";'
                'mount -o remount,rw / && echo x > "$OUTSIDE/new";'
                "unshare -rm sh -c 'mount --bind \"$OUTSIDE\" b && echo x > b/new';"
                "unshare -rm sh -c 'mount -o remount,rw,bind / && echo x > \"$OUTSIDE/new\"';"
                'umount -l "$WORKSPACE"'
            ),
            py("""
outside, space = T["OUTSIDE"].encode(), (T["WORKSPACE"] + "/b").encode()
os.makedirs(space, exist_ok=True)
libc.mount(outside, space, None, 4096, None)
libc.mount(None, b"/", None, 32 | 4096, None)
tree = quietly(syscall, 428, -100, outside, 1)
if tree:
    quietly(syscall, 442, tree, b"", 0x1000, struct.pack("QQQQ", 0, 1, 0, 0), 32)
    quietly(syscall, 429, tree, b"", -100, space, 4)
quietly(syscall, 442, -100, b"/", 0x8000, struct.pack("QQQQ", 0, 1, 0, 0), 32)
quietly(put, T["WORKSPACE"] + "/b/new")
quietly(put, T["OUTSIDE"] + "/new")
"""),
        ),
    ),
    Attack(
        "working_folder_of_a_parent",
        "Changes into the outside folder by descriptor and by a process that stands there.",
        "",
        changes(
            py("""
folder = os.open(T["OUTSIDE"], os.O_RDONLY)
quietly(os.fchdir, folder)
quietly(put, "new")
quietly(os.mkdir, "folder")
quietly(os.rename, "file", "renamed")
quietly(os.unlink, "file", dir_fd=folder)
quietly(os.symlink, "x", "link")
quietly(os.chroot, T["OUTSIDE"])
quietly(put, "/new")
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "exchange",
        "Swaps a file of the workspace with one outside in one rename.",
        "",
        changes(
            py("""
put(T["WORKSPACE"] + "/exchange")
for a, b in ((T["WORKSPACE"] + "/exchange", T["OUTSIDE"] + "/file"),
             (T["OUTSIDE"] + "/file", T["WORKSPACE"] + "/exchange")):
    quietly(syscall, 316, -100, a.encode(), -100, b.encode(), 2)
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "metadata",
        "Changes mode, times, owner and attributes of a file outside.",
        "",
        changes(
            sh('chmod 777 "$OUTSIDE/file"'),
            sh('touch -d 2000-01-01 "$OUTSIDE/file"; touch -d 2000-01-01 "$OUTSIDE"'),
            py("""
path = T["OUTSIDE"] + "/file"
quietly(os.setxattr, path, "user.attack", b"x")
quietly(os.chmod, path, 0o600)
quietly(os.utime, path, (1, 1))
descriptor = os.open(path, os.O_RDONLY)
quietly(os.fchmod, descriptor, 0o777)
quietly(os.setxattr, descriptor, "user.attack", b"x")
"""),
        ),
        exempt=_DECLARED,
        opens_uncaged=True,
    ),
    Attack(
        "overwritten_program",
        "Rewrites a program outside, also while it runs and by renaming over it.",
        "",
        changes(
            sh('cp /bin/true "$OUTSIDE/program"; cat /bin/true > "$OUTSIDE/program"'),
            sh('cp /bin/true "$WORKSPACE/p" && mv -f "$WORKSPACE/p" "$OUTSIDE/program"'),
            sh('install -m 755 /bin/true "$OUTSIDE/program"; sed -i s/x/y/ "$OUTSIDE/program"'),
        ),
        opens_uncaged=True,
    ),
    Attack(
        "anonymous_program",
        "Runs a program that lies in no file (memfd) and lets that write outside.",
        "",
        changes(
            py("""
memory = os.memfd_create("attack")
os.write(memory, b'#!/bin/sh\\necho x > "$OUTSIDE/new"; echo x > "$OUTSIDE/file"\\n')
subprocess.run([f"/proc/self/fd/{memory}"], pass_fds=[memory])
quietly(os.execve, memory, ["attack"], dict(os.environ))
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "race_on_links",
        "Swaps a folder and a link to the outside folder while the file tools write there.",
        "",
        _race,
        tools=("gcc",),
        opens_uncaged=True,
    ),
    Attack(
        "file_server",
        "Asks the file tools for paths outside: links, `..`, /proc of many processes.",
        "",
        _file_server,
        opens_uncaged=True,
    ),
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
        opens_uncaged=True,
    ),
)
