"""Choosing a sandbox: the strongest that works, or an error; never less than was asked for."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Literal

from dsv4agent.sandboxes.bubblewrap import BubblewrapSandbox
from dsv4agent.sandboxes.caged import CagedSandbox
from dsv4agent.sandboxes.container import ContainerSandbox
from dsv4agent.sandboxes.errors import SandboxError, SandboxUnavailable
from dsv4agent.sandboxes.landlock import LandlockSandbox
from dsv4agent.sandboxes.protocol import EnforcementReport, Policy, Sandbox
from dsv4agent.sandboxes.unconfined import UnconfinedSandbox

ProviderName = Literal["auto", "bubblewrap", "landlock", "container", "none"]

_LADDER: tuple[type[CagedSandbox], ...] = (BubblewrapSandbox, LandlockSandbox, ContainerSandbox)
_PROVIDERS: dict[str, type[CagedSandbox]] = {
    provider.provider: provider for provider in (*_LADDER, UnconfinedSandbox)
}


@dataclass(frozen=True)
class ProviderStatus:
    """What a provider can do on this machine, tried and not guessed.

    Attributes:
        name: Its name.
        available: Whether a sandbox opened.
        report: What that sandbox enforces, if it opened.
        reason: Why it did not open and how to get it, if it did not.
    """

    name: str
    available: bool
    report: EnforcementReport | None = None
    reason: str = ""


async def choose_sandbox(policy: Policy, name: ProviderName = "auto") -> Sandbox:
    """Open a sandbox for a policy.

    Args:
        policy: What its processes may do.
        name: A provider, or `auto` for the first of bubblewrap, Landlock and a container that works.
            `none` confines nothing.

    Raises:
        SandboxUnavailable: The provider, or every one of the ladder, does not work here; says what to do
            about it.
        SandboxError: The policy cannot be meant (its workspace is missing, or is `/`).
    """
    if name != "auto":
        provider = _PROVIDERS.get(name)
        if provider is None:
            raise SandboxUnavailable(f"no sandbox is called {name}; use auto, {', '.join(_PROVIDERS)}")
        return await provider.open(policy)
    reasons: list[str] = []
    for provider in _LADDER:
        try:
            return await provider.open(policy)
        except SandboxUnavailable as error:
            reasons.append(f"{provider.provider}: {error}")
    raise SandboxUnavailable(
        "no sandbox works on this machine, and nothing runs without one unless `none` is asked for.\n"
        + "\n".join(reasons)
    )


async def probe() -> list[ProviderStatus]:
    """Open each confining provider in an empty workspace; report what it enforced or why it failed."""
    statuses: list[ProviderStatus] = []
    for provider in _LADDER:
        with tempfile.TemporaryDirectory(prefix="dsv4agent-probe-") as workspace:
            try:
                async with await provider.open(Policy(workspace)) as sandbox:
                    statuses.append(ProviderStatus(provider.provider, True, sandbox.report))
            except SandboxError as error:
                statuses.append(ProviderStatus(provider.provider, False, reason=str(error)))
    return statuses
