"""What an attack is: a way out, the guarantee it would break, and how the host sees that it worked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from dsv4agent.sandboxes import Policy
from tests.attacks.programs import Program
from tests.attacks.stage import Stage

Run = Callable[[Stage], Awaitable[str]]
"""Attempts it, looks from the host, and returns what got through, or an empty string."""

PROVIDERS = ("bubblewrap", "landlock")


@dataclass(frozen=True)
class Attack:
    """One way out.

    Attributes:
        name: `family.case`.
        description: What the program does, in one line.
        guarantee: Key of the enforcement report that it would break, or `host` for the runtime's own code.
        run: The attempt with the host's observation.
        exempt: Providers to which it does not apply, with the reason.
        needs: A guarantee without whose key in the report it does not apply, or `allow_list`.
        tools: Host programs it is made with.
        policy: Changes the stage's policy; such an attack has a sandbox of its own.
        alone: Whether it needs a sandbox of its own, because it may leave the shared one in a bad state.
        opens_uncaged: Whether it must succeed where nothing confines it, which shows that it is a real one.
    """

    name: str
    description: str
    guarantee: str
    run: Run
    exempt: Mapping[str, str] = field(default_factory=dict[str, str])
    needs: str = ""
    tools: tuple[str, ...] = ()
    policy: Callable[[Stage, Policy], Policy] | None = None
    alone: bool = False
    opens_uncaged: bool = False


def family(name: str, guarantee: str, *attacks: Attack) -> tuple[Attack, ...]:
    """Return attacks with the family's name before theirs, and its guarantee where they name none."""
    return tuple(
        replace(attack, name=f"{name}.{attack.name}", guarantee=attack.guarantee or guarantee)
        for attack in attacks
    )


def changes(*programs: Program) -> Run:
    """Run programs and see whether the outside folder changed."""

    async def run(stage: Stage) -> str:
        for program in programs:
            await stage.run(program)
            if change := stage.changed():
                return change
        return ""

    return run


def shows(*programs: Program) -> Run:
    """Run programs and see whether their output holds one of the host's secrets."""

    async def run(stage: Stage) -> str:
        for program in programs:
            if leak := stage.leaked(await stage.run(program)):
                return leak
        return ""

    return run


def reaches(*programs: Program) -> Run:
    """Run programs and see whether somebody came to one of the host's sockets."""

    async def run(stage: Stage) -> str:
        for program in programs:
            await stage.run(program)
            if visit := await stage.visited():
                return visit
        return ""

    return run


def holds(program: Program, *kinds: str) -> Run:
    """Run a program that opens something and waits; see whether it holds a descriptor of such a kind.

    Args:
        program: Prints a line when it has done what it can, and sleeps.
        kinds: What the links in `/proc/PID/fd` begin with, such as `anon_inode:[io_uring]`.
    """

    async def run(stage: Stage) -> str:
        async with stage.running(program) as processes:
            held = [link for process in processes for link in process.descriptors()]
            return next((f"it holds {link}" for link in held if link.startswith(kinds)), "")

    return run
