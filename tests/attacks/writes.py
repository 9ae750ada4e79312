"""Attacks on `writes`: changing a file outside the workspace, by every road the kernel knows."""
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import os

from tests.attacks.attack import Attack, changes, family
from tests.attacks.programs import c, py, sh
from tests.attacks.stage import Stage

_DECLARED = {"landlock": "declared partial: mode, owner and times of files outside are not covered"}


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
)
