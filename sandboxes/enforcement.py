"""From what a process inside a cage found possible to a report of what is enforced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dsv4agent.sandboxes.protocol import Enforcement, EnforcementReport, NetworkMode, Policy


@dataclass(frozen=True)
class Facts:
    """What a process inside the cage found when it tried what the policy forbids.

    Attributes:
        writable: Host folders outside the workspace in which it could make a file.
        readable: Hidden folders of the host that it could list.
        network: Whether a packet to a foreign address would find a route.
        capabilities: Its effective capabilities, as a bit set.
        seccomp: Whether a system-call filter is on.
        own_pids: Whether it has its own process namespace.
        open_repositories: `.git` folders and files that it could change.
        open_secrets: Files with secrets in the workspace that it could read.
        secrets: Names of the host's environment variables that it sees and should not.
    """

    writable: tuple[str, ...]
    readable: tuple[str, ...]
    network: bool
    capabilities: int
    seccomp: bool
    own_pids: bool
    secrets: tuple[str, ...]
    open_repositories: tuple[str, ...]
    open_secrets: tuple[str, ...]


def asked_for(policy: Policy) -> frozenset[str]:
    """Return the guarantees that a policy asks for; those that it switches off are no failure."""
    names = {"writes", "reads", "environment", "system_calls", "processes"}
    names |= {"network"} if policy.network.mode is not NetworkMode.ON else set()
    names |= {"secrets"} if policy.mask_env_files else set()
    names |= {"repositories"} if policy.protect_repositories else set()
    limits = policy.limits
    bounded = (limits.memory_bytes, limits.processes, limits.disk_bytes, limits.cpu_seconds)
    return frozenset(names | ({"limits"} if any(bounded) else set()))


def assess(
    provider: str, facts: Facts, policy: Policy, partial: Mapping[str, str], missing: Mapping[str, str]
) -> EnforcementReport:
    """Return the report for facts found in a running cage.

    Args:
        provider: Name of the provider.
        facts: What a process inside found.
        policy: The policy that should hold.
        partial: Guarantees known to hold in part only, with the reason.
        missing: Guarantees known not to hold, with the reason.
    """
    notes: list[str] = []
    guarantees: dict[str, Enforcement] = {}

    asked = asked_for(policy)

    def judge(name: str, holds: bool, reason: str = "") -> None:
        if name not in asked:
            word = "on" if name == "network" else "off"
            holds, reason = False, f"switched {word} by the policy"
        elif name in missing:
            holds, reason = False, missing[name]
        guarantees[name] = Enforcement.FULL if holds else Enforcement.NONE
        if not holds:
            notes.append(f"{name}: {reason}")
        elif name in partial:
            guarantees[name] = Enforcement.PARTIAL
            notes.append(f"{name}: {partial[name]}")

    judge("writes", not facts.writable, f"{', '.join(facts.writable)} can be written")
    judge("reads", not facts.readable, f"{', '.join(facts.readable)} can be read")
    judge("network", not facts.network, "foreign addresses can be reached")
    if policy.network.mode is NetworkMode.ALLOW_LIST and not facts.network:
        notes.append(f"network: only {', '.join(policy.network.hosts) or 'no host'}, through the proxy")
    judge("environment", not facts.secrets, f"the host's {', '.join(facts.secrets)} can be seen")
    judge("system_calls", facts.seccomp and not facts.capabilities, "no filter, or capabilities are left")
    judge("processes", facts.own_pids or "processes" in partial, "other processes can be seen and signalled")
    judge("secrets", not facts.open_secrets, f"{', '.join(facts.open_secrets)} can be read")
    judge("repositories", not facts.open_repositories, f"{', '.join(facts.open_repositories)} can be changed")
    judge("limits", True)
    return EnforcementReport(provider, guarantees, tuple(notes))
