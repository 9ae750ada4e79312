"""Attacks by repositories: configuration that makes git, Python or an editor run programs outside."""
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anyio

from dsv4agent.cli.changes import workspace_changes
from dsv4agent.sandboxes import Policy
from tests.attacks.attack import Attack, Run, family
from tests.attacks.programs import Program, sh
from tests.attacks.stage import Stage

# What each setting runs: outside it would succeed, inside the cage it cannot.
_PAYLOAD = 'touch "$OUTSIDE/new"'
_ROOT = Path(__file__).parent.parent.parent


def fresh_repository(stage: Stage) -> Path:
    """Make a fresh repository with one commit as the workspace's own."""
    space = stage.workspace
    for name in (".git", ".gitattributes", ".gitmodules", "tracked", "module"):
        path = space / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    (space / "tracked").write_text("one\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(stage.host.home),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{role}_{part}": "a@b" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")},
    }
    for command in (("init", "-q"), ("add", "tracked"), ("commit", "-qm", "one")):
        subprocess.run(("git", *command), cwd=space, env=environment, check=True, stdin=subprocess.DEVNULL)
    (space / "tracked").write_text("two\n")
    return space


def _config(lines: str, attributes: str = "") -> Run:
    """Poison a repository's configuration, then let the product look at what changed."""

    async def run(stage: Stage) -> str:
        space = fresh_repository(stage)
        payload = space / "payload"
        payload.write_text(f"#!/bin/sh\nOUTSIDE={stage.host.outside}\n{_PAYLOAD}\nexit 1\n")
        payload.chmod(0o755)
        for hook in (
            "post-index-change",
            "pre-commit",
            "post-checkout",
            "fsmonitor-watchman",
            "reference-transaction",
        ):
            (space / ".git/hooks").mkdir(exist_ok=True)
            shutil.copy(payload, space / ".git/hooks" / hook)
        with (space / ".git/config").open("a") as file:
            file.write(lines.replace("PAYLOAD", str(payload)))
        if attributes:
            (space / ".gitattributes").write_text(attributes)
        before = os.environ.get("OUTSIDE")
        os.environ["OUTSIDE"] = str(stage.host.outside)
        try:
            with anyio.move_on_after(30) as scope:
                await workspace_changes(stage.sandbox)
        finally:
            os.environ.pop("OUTSIDE") if before is None else os.environ.update(OUTSIDE=before)
        return "the host waits for the repository's program" if scope.cancelled_caught else stage.changed()

    return run


async def _endless_diff(stage: Stage) -> str:
    """Let a repository's own diff program print without end into the host that collects it."""
    space = fresh_repository(stage)
    endless = space / "payload"
    # Bounded, should nothing else bound it: a few times of what a summary may hold.
    endless.write_text("#!/bin/sh\nhead -c 200000000 /dev/zero | tr '\\0' x\n")
    endless.chmod(0o755)
    with (space / ".git/config").open("a") as file:
        file.write(f"[diff]\n\texternal = {endless}\n")
    changes = await workspace_changes(stage.sandbox)
    size = len(changes.diff) if changes else 0
    return f"the host took {size >> 20} MiB of diff" if size > 8 << 20 else ""


async def _host_command(stage: Stage) -> str:
    """Run the command line in a workspace that plants programs and modules under the names it uses."""
    space = fresh_repository(stage)
    payload = f'open("{stage.host.outside}/new", "w").close()\n'
    planted: list[Path] = []
    for name in (
        "sitecustomize",
        "usercustomize",
        "conftest",
        "json",
        "torch",
        "rich",
        "git",
        "dsv4agent",
        "anyio",
    ):
        planted.append(space / f"{name}.py")
        planted[-1].write_text(payload)
    for name in ("git", "bwrap", "rg", "python", "sh", "bash", "chromium"):
        planted.append(space / name)
        planted[-1].write_text(f'#!/bin/sh\ntouch "{stage.host.outside}/new"\n')
        planted[-1].chmod(0o755)
    files = {
        ".envrc": f'touch "{stage.host.outside}/new"\n',
        "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-p conftest"\n',
        "pytest.ini": "[pytest]\naddopts = -p conftest\n",
        "setup.py": payload,
        ".python-version": "system\n",
        "pyvenv.cfg": f"home = {space}\n",
        ".editorconfig": "root = true\n",
        ".env": f"PYTHONSTARTUP={space}/conftest.py\nLD_PRELOAD={space}/x.so\n",
    }
    for name, text in files.items():
        planted.append(space / name)
        planted[-1].write_text(text)
    # As the installed script does: the folder of the caller is not on the path.
    start = f"import sys; sys.path[0] = {str(_ROOT)!r}; from dsv4agent.cli.main import run; run()"
    with anyio.move_on_after(60):
        await anyio.run_process([sys.executable, "-c", start, "doctor", "--json"], cwd=space, check=False)
    for path in planted:
        path.unlink(missing_ok=True)
    return stage.changed()


def _fingerprint(folder: Path) -> str:
    parts = hashlib.sha256()
    for path in (folder, *sorted(folder.rglob("*"))) if folder.exists() else ():
        parts.update(f"{path.relative_to(folder)} {path.lstat().st_mode}".encode())
        if path.is_file() and not path.is_symlink():
            parts.update(path.read_bytes())
    return parts.hexdigest()


def _protected(*programs: Program) -> Run:
    """Run programs against a protected repository; see whether its `.git` is still what it was."""

    async def run(stage: Stage) -> str:
        git = stage.workspace / "repository/.git"
        before = _fingerprint(git)
        for program in programs:
            await stage.run(program)
            if _fingerprint(git) != before:
                return "the repository's .git was changed"
        return ""

    return run


async def _by_file_tools(stage: Stage) -> str:
    git = stage.workspace / "repository/.git"
    before = _fingerprint(git)
    link = stage.workspace / "git-link"
    link.unlink(missing_ok=True)
    link.symlink_to(git)
    for path in (
        f"{git}/hooks/post-checkout",
        f"{git}/config",
        f"{link}/config",
        f"{git}/../.git/info/attributes",
    ):
        try:
            await stage.sandbox.write_bytes(path, b"x", mode=0o755)
        except OSError:
            continue
    return "the file tools changed .git" if _fingerprint(git) != before else ""


async def _moved_repository(stage: Stage) -> str:
    """Rename the folder of a repository, and change its `.git` there with the next program."""
    moved = stage.workspace / "moved-repository"
    shutil.rmtree(moved, ignore_errors=True)
    git = stage.workspace / "repository/.git"
    before = _fingerprint(git)
    await stage.run(sh('cd "$WORKSPACE" && mv repository moved-repository'))
    await stage.run(
        sh('cd "$WORKSPACE" && echo x >> moved-repository/.git/config; echo x >> repository/.git/config')
    )
    place = git if git.exists() else moved / ".git"
    return "a moved repository's .git was changed" if _fingerprint(place) != before else ""


async def _link_for_git(stage: Stage) -> str:
    """Make `.git` a link to a hidden folder: whatever mounts it read-only must not show that folder."""
    await stage.run(sh('mkdir -p "$WORKSPACE/bait" && ln -sfn "$HIDDEN" "$WORKSPACE/bait/.git"'))
    done = await stage.run(sh('echo alive; cat "$WORKSPACE/bait/.git/secret"; ls "$WORKSPACE/bait/.git/"'))
    shutil.rmtree(stage.workspace / "bait", ignore_errors=True)
    if b"alive" not in done.stdout:
        return f"a link named .git stops every program: {done.stderr[:80]!r}"
    return stage.leaked(done)


async def _swapped_git(stage: Stage) -> str:
    """Swap a `.git` folder for a link to a hidden one while other programs start."""
    swap = sh(
        'mkdir -p "$WORKSPACE/bait/.git" && cd "$WORKSPACE/bait" && git init -q . 2>/dev/null;'
        ' ln -sfn "$HIDDEN" way; echo ready; end=$((SECONDS+4));'
        " while [ $SECONDS -lt $end ]; do mv -T .git folder && cp -P way .git && rm -f .git && mv -T folder .git; done"
    )
    async with stage.running(swap):
        for _ in range(15):
            done = await stage.run(sh('cat "$WORKSPACE/bait/.git/secret"'))
            if leak := stage.leaked(done):
                return leak
    shutil.rmtree(stage.workspace / "bait", ignore_errors=True)
    return ""


def _with_repository(stage: Stage, policy: Policy) -> Policy:
    fresh_repository(stage)
    for name in ("repository", "moved-repository"):
        shutil.rmtree(stage.workspace / name, ignore_errors=True)
    inner = stage.workspace / "repository"
    inner.mkdir()
    shutil.copytree(stage.workspace / ".git", inner / ".git")
    return policy


ATTACKS = (
    *family(
        "repositories",
        "host",
        Attack(
            "fsmonitor", "Names a program in core.fsmonitor.", "", _config("[core]\n\tfsmonitor = PAYLOAD\n")
        ),
        Attack(
            "hooks",
            "Names a hooks folder, and fills the usual one.",
            "",
            _config("[core]\n\thooksPath = .git/hooks\n"),
        ),
        Attack(
            "pager",
            "Names a pager and an editor.",
            "",
            _config("[core]\n\tpager = PAYLOAD\n\teditor = PAYLOAD\n[pager]\n\tdiff = PAYLOAD\n"),
        ),
        Attack(
            "external_diff", "Names an external diff program.", "", _config("[diff]\n\texternal = PAYLOAD\n")
        ),
        Attack(
            "attribute_programs",
            "Names text converters, filters and diff drivers by attributes.",
            "",
            _config(
                '[diff "evil"]\n\ttextconv = PAYLOAD\n\tcommand = PAYLOAD\n'
                '[filter "evil"]\n\tclean = PAYLOAD\n\tsmudge = PAYLOAD\n\tprocess = PAYLOAD\n\trequired = true\n'
                '[merge "evil"]\n\tdriver = PAYLOAD\n',
                "* diff=evil filter=evil merge=evil\n",
            ),
        ),
        Attack(
            "remote_programs",
            "Names transports, credential helpers, signers and aliases.",
            "",
            _config(
                "[core]\n\tsshCommand = PAYLOAD\n\tgitProxy = PAYLOAD\n\taskPass = PAYLOAD\n\talternateRefsCommand = PAYLOAD\n"
                "[credential]\n\thelper = !PAYLOAD\n[gpg]\n\tprogram = PAYLOAD\n[commit]\n\tgpgSign = true\n"
                "[alias]\n\tdiff = !PAYLOAD\n\tls-files = !PAYLOAD\n[protocol]\n\tallow = always\n"
            ),
        ),
        Attack(
            "included_config",
            "Includes configuration from a file, and turns on that of the worktree.",
            "",
            _config(
                "[include]\n\tpath = ../evil\n[extensions]\n\tworktreeConfig = true\n[core]\n\tworktree = /\n\tfsmonitor = PAYLOAD\n"
            ),
        ),
        Attack("endless_diff", "Prints without end from a diff program.", "", _endless_diff, tools=("git",)),
        Attack(
            "planted_names",
            "Plants modules and programs under the names that the command line uses, and starts it there.",
            "",
            _host_command,
        ),
    ),
    *family(
        "git",
        "repositories",
        *(
            Attack(
                name,
                description,
                "",
                run,
                needs="repositories",
                policy=_with_repository,
                tools=("git",),
            )
            for name, description, run in (
                (
                    "hooks_and_config",
                    "Writes hooks, configuration, attributes and objects into .git.",
                    _protected(
                        sh('cd "$WORKSPACE/repository" && echo x > .git/hooks/post-checkout'),
                        sh(
                            'cd "$WORKSPACE/repository" && git config core.fsmonitor evil; echo x >> .git/config'
                        ),
                        sh(
                            'cd "$WORKSPACE/repository" && echo "* filter=x" > .git/info/attributes; touch .git/x'
                        ),
                        sh(
                            'cd "$WORKSPACE/repository" && git add . ; git commit -qam x; git gc; git checkout -b y'
                        ),
                        sh(
                            'cd "$WORKSPACE/repository" && chmod 777 .git/config; ln .git/config hard; echo x > hard'
                        ),
                    ),
                ),
                (
                    "replaced",
                    "Removes, renames and replaces .git.",
                    _protected(
                        sh(
                            'cd "$WORKSPACE/repository" && mv .git old; rm -rf .git; mkdir -p .git; git init -q'
                        ),
                        sh(
                            'cd "$WORKSPACE/repository" && umount -l .git; rmdir .git; echo "gitdir: /x" > .git'
                        ),
                    ),
                ),
                ("by_file_tools", "Changes .git through the file tools.", _by_file_tools),
                (
                    "moved_repository",
                    "Renames the folder above .git, for the next program.",
                    _moved_repository,
                ),
                ("link_for_git", "Makes .git a link to a hidden folder.", _link_for_git),
                (
                    "swapped_git",
                    "Swaps .git for a link to a hidden folder while programs start.",
                    _swapped_git,
                ),
            )
        ),
    ),
)
