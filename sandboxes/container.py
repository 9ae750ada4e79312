"""The third choice: a container of Docker or Podman, made from an image of the user's."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from dsv4agent.sandboxes.bubblewrap import folders_to_pin, shared_memory
from dsv4agent.sandboxes.caged import CagedCommand, CagedSandbox
from dsv4agent.sandboxes.container_process import ContainerProcess
from dsv4agent.sandboxes.environment import scrubbed_environment
from dsv4agent.sandboxes.errors import SandboxUnavailable
from dsv4agent.sandboxes.gate import Gate
from dsv4agent.sandboxes.landlock import LAUNCHER_SOURCE
from dsv4agent.sandboxes.limits import human_size
from dsv4agent.sandboxes.masking import is_below
from dsv4agent.sandboxes.pipes import PipeProcess
from dsv4agent.sandboxes.protocol import NetworkMode, Policy
from dsv4agent.sandboxes.seccomp import seccomp_filter

IMAGE_VARIABLE = "DSV4AGENT_CONTAINER_IMAGE"
ENGINES = ("podman", "docker")
_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
_OWN_PROCESSES = 16
"""Room for the container's first process, the file server, and what ends programs."""
STARTING = 60.0
"""Seconds within which a container must run."""

# The first process of a container: adopts orphans, and ends, with everything else, when we do.
_FIRST = """
import os, select, sys
print("ready", flush=True)
while True:
    if select.select([0], [], [], 1.0)[0] and not os.read(0, 4096):
        sys.exit()
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class ContainerSandbox(CagedSandbox):
    """Runs programs in one long-lived container, which sees the writable folders of the host and no others.

    Programs, Python included, are those of the image. What may change repositories runs in a second
    container, made when it is first needed: mounts cannot differ between the programs of one.
    """

    provider = "container"
    machinery = 1
    server_python = "python3"
    counts_by_itself = True

    def __init__(self, policy: Policy, gate: Gate | None = None) -> None:
        super().__init__(policy, gate)
        self._containers: dict[bool, tuple[str, PipeProcess]] = {}
        self._retired: list[tuple[str, PipeProcess]] = []
        self._ended: dict[str, int] = {}

    def _prepare(self) -> None:
        if self._policy.network.mode is NetworkMode.ALLOW_LIST:
            raise SandboxUnavailable(
                "containers are on no network or on the host's, so hosts cannot be allowed one by one; "
                "use bubblewrap"
            )
        engine, image = find_engine(), os.environ.get(IMAGE_VARIABLE)
        assert engine and image, "checked by require()"
        self._engine, self._image = engine, image
        # Debugging is refused: programs share their process namespace with the file server.
        program = seccomp_filter(sockets=True, own_pid_namespace=False)
        self._filter = base64.b64encode(program).decode()
        self._empty = os.path.join(self._base, "empty")
        Path(self._empty).touch(0o444)
        for path in (self._scratch, self._policy.workspace, *self._policy.writable, *self._policy.readable):
            if set(path) & set(',"\n'):
                raise SandboxUnavailable(f"a container engine cannot mount {path!r}; rename it")

    @classmethod
    def require(cls) -> None:
        """Raise `SandboxUnavailable` without an engine that runs, or without the name of an image."""
        engine = find_engine()
        if engine is None:
            raise SandboxUnavailable(f"neither podman nor docker is installed; {cls.remedy()}")
        if not os.environ.get(IMAGE_VARIABLE):
            raise SandboxUnavailable(f"{IMAGE_VARIABLE} names no image; {cls.remedy()}")
        try:
            subprocess.run([engine, "info"], capture_output=True, check=True, timeout=STARTING)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or b""
            reason = said.decode("utf-8", "replace").strip() or str(error)
            raise SandboxUnavailable(f"{engine} does not run here: {reason}; {cls.remedy()}") from error

    @classmethod
    def remedy(cls) -> str:
        """Say how to get it."""
        return (
            f"install podman or docker, start its service, and set {IMAGE_VARIABLE} to an image with python3 "
            "and bash that it has (for example after `podman pull docker.io/library/python:3.12`)"
        )

    async def aclose(self) -> None:
        """End the containers and what runs in them."""
        await super().aclose()
        for name, process in (*self._retired, *self._containers.values()):
            # Its first process ends when nobody is there to write to it; the engine makes sure of it.
            process.close()
            with anyio.CancelScope(shield=True):
                await anyio.run_process([self._engine, "rm", "--force", name], check=False)
        self._retired.clear()
        self._containers.clear()

    def _renew(self) -> None:
        # What was mounted does not fit any more. Programs that run go on with it.
        self._retired += self._containers.values()
        self._containers.clear()

    async def _make_ready(self, *, repositories: bool) -> None:
        """Start a container if there is none yet.

        Raises:
            SandboxUnavailable: It does not start; says what the engine said.
        """
        if repositories in self._containers:
            return
        name = f"dsv4agent-{os.getpid()}-{os.urandom(6).hex()}"
        argv = (self._engine, *self._run_arguments(name, repositories=repositories))
        process = PipeProcess.start(
            (*argv, self._image, "-I", "-S", "-c", _FIRST),
            env=os.environ,
            machinery=1,
            judge=lambda _: None,
        )
        said = b""
        with anyio.move_on_after(STARTING):
            said = await process.read()
        if said != b"ready\n":
            complaint = b""
            with anyio.move_on_after(1.0):
                while more := await process.read_control():
                    complaint += more
            process.close()
            text = (complaint or said).decode("utf-8", "replace").strip()
            raise SandboxUnavailable(f"the container does not start: {text}; {self.remedy()}")
        self._containers[repositories] = (name, process)

    def _command(
        self, argv: Sequence[str], cwd: str, environment: Mapping[str, str], *, repositories: bool
    ) -> CagedCommand:
        name, _ = self._containers[repositories]
        token = os.urandom(16).hex()
        config = json.dumps({"landlock": None, "seccomp": self._filter, "cwd": cwd, "token": token})
        supervisor = (self.server_python, "-I", "-S", "-c", LAUNCHER_SOURCE, config)
        # Values stay off the command line, which others can see, unless they mean something to the engine.
        plain = {
            key: value
            for key, value in environment.items()
            if key not in os.environ and not key.startswith("LD_")
        }
        given = [key if key in plain else f"{key}={value}" for key, value in environment.items()]
        variables = [part for variable in given for part in ("--env", variable)]
        engine = (self._engine, "exec", "-i", *variables, name)
        return CagedCommand((*engine, *supervisor, *argv), env={**plain, **os.environ}, token=token)

    def _process(self, command: CagedCommand, *, control: bool) -> PipeProcess:
        engine = command.argv[0]
        name = command.argv[command.argv.index(self.server_python) - 1]
        return ContainerProcess.start_in(
            command.argv,
            env=command.env,
            judge=self._limit_behind,
            ended_by_memory=lambda: self._ended_by_memory(name),
            killer=(engine, "exec", name, self.server_python, "-I", "-S"),
            token=command.token,
        )

    async def _ended_by_memory(self, name: str) -> str | None:
        """Read the container's own counter, under both versions of control groups."""
        limit = self._policy.limits.memory_bytes
        argv = [self._engine, "exec", name, "/bin/sh", "-c", f"cat {' '.join(_COUNTERS)} 2>/dev/null"]
        said = (await anyio.run_process(argv, check=False)).stdout.decode("utf-8", "replace")
        counts = [int(line.split()[1]) for line in said.splitlines() if line.startswith("oom_kill ")]
        count = max(counts, default=0)
        grown, self._ended[name] = count > self._ended.get(name, 0), count
        return f"memory limit of {human_size(limit)}" if grown and limit else None

    def _home_and_temporary(self) -> tuple[str, str]:
        return "/tmp/home", "/tmp"

    def _environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        environment = scrubbed_environment(*self._home_and_temporary(), self._policy.env)
        if "PATH" not in (self._policy.env or {}):
            environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return environment | dict(extra or {})

    def _run_arguments(self, name: str, *, repositories: bool) -> list[str]:
        limits = self._policy.limits
        arguments = ["run", "-i", "--rm", "--pull", "never", "--name", name, "--hostname", "sandbox"]
        arguments += ["--entrypoint", self.server_python, "--read-only", "--cap-drop", "ALL"]
        arguments += ["--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
        arguments += ["--shm-size", str(shared_memory(self._policy)), "--workdir", "/"]
        arguments += ["--network", "host" if self._policy.network.mode is NetworkMode.ON else "none"]
        if os.path.basename(self._engine) == "podman":
            arguments.append("--read-only-tmpfs=false")
        arguments += _user(self._engine)
        if limits.memory_bytes:
            arguments += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
        if limits.processes:
            arguments += ["--pids-limit", str(limits.processes + _OWN_PROCESSES)]
        arguments += ["--ulimit", "core=0:0", "--ulimit", "nofile=8192:8192", "--ulimit", "nproc=4096:4096"]
        for destination, source in sorted(self._mounts(repositories=repositories).items()):
            arguments += ["--mount", f"type=bind,src={source[0]},dst={destination}{source[1]}"]
        return arguments

    def _mounts(self, *, repositories: bool) -> dict[str, tuple[str, str]]:
        """Return source and options by destination; the engine mounts outer ones first."""
        policy, protection = self._policy, self._protection
        writable = (policy.workspace, *policy.writable)
        mounts = {path: (path, ",readonly") for path in policy.readable if os.path.exists(path)}
        for path in policy.masked:
            if any(is_below(path, root) and path != root for root in writable) and os.path.exists(path):
                empty = os.path.join(self._base, "none")
                os.makedirs(empty, exist_ok=True)
                mounts[path] = (empty if os.path.isdir(path) else self._empty, ",readonly")
        mounts |= {path: (path, "") for path in writable} | {"/tmp": (self._scratch, "")}
        mounts |= {path: (self._empty, ",readonly") for path in protection.secrets if os.path.exists(path)}
        shared = "" if repositories else ",readonly"
        mounts |= {path: (path, shared) for path in protection.main_folders if os.path.exists(path)}
        if not repositories:
            mounts |= {path: (path, ",readonly") for path in protection.read_only if os.path.exists(path)}
            mounts |= {path: (path, "") for path in folders_to_pin(mounts, writable)}
        return mounts


def find_engine() -> str | None:
    """Return the path of the first engine that is installed."""
    return next(filter(None, map(shutil.which, ENGINES)), None)


def _user(engine: str) -> list[str]:
    """Return what makes files in the workspace belong to this user."""
    if os.geteuid() == 0:
        return []
    if os.path.basename(engine) == "podman":
        return ["--userns", "keep-id"]
    info = subprocess.run(
        [engine, "info", "--format", "{{.SecurityOptions}}"], capture_output=True, timeout=STARTING
    )
    return [] if b"rootless" in info.stdout else ["--user", f"{os.geteuid()}:{os.getegid()}"]
