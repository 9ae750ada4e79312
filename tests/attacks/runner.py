"""Opening stages and judging attacks."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self, cast

from dsv4agent.sandboxes import Enforcement, Network, Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from tests.attacks.attack import Attack
from tests.attacks.host import prepared
from tests.attacks.programs import sh
from tests.attacks.stage import Stage

ALLOWED = "allowed.test"


class Outcome(StrEnum):
    """How an attack ended."""

    HELD = "held"
    BROKEN = "BROKEN"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Verdict:
    """One attack on one provider; `detail` says what got through, or why it does not apply."""

    attack: str
    provider: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0


class Theatre:
    """One prepared host with one shared sandbox for a provider; attacks that need it get their own."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self._stack = AsyncExitStack()
        self._shared: Stage | None = None
        self._unavailable = ""

    async def __aenter__(self) -> Self:
        self._make = self._stack.enter_context(prepared())
        try:
            self._shared = await self._open(lambda policy: policy)
        except SandboxUnavailable as error:
            self._unavailable = str(error)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._shared is not None:
            await self._shared.sandbox.aclose()
        await self._stack.aclose()

    async def judge(self, attack: Attack) -> Verdict:
        """Run an attack and say how it ended."""
        reason = await self._inapplicable(attack)
        if reason:
            return Verdict(attack.name, self.provider, Outcome.NOT_APPLICABLE, reason)
        started = time.monotonic()
        try:
            async with self._stage(attack) as stage:
                detail = await attack.run(stage)
        except SandboxUnavailable as error:
            # A policy that a provider refuses to enforce lets nothing run, so nothing gets out.
            return Verdict(attack.name, self.provider, Outcome.NOT_APPLICABLE, str(error))
        outcome = Outcome.BROKEN if detail else Outcome.HELD
        return Verdict(attack.name, self.provider, outcome, detail, round(time.monotonic() - started, 2))

    async def _inapplicable(self, attack: Attack) -> str:
        if self._shared is None:
            return self._unavailable
        if self.provider == "none" and not attack.opens_uncaged:
            return "without a cage it proves nothing, or does harm"
        if self.provider in attack.exempt:
            return attack.exempt[self.provider]
        missing = [tool for tool in attack.tools if shutil.which(tool) is None]
        if missing:
            return f"{', '.join(missing)} is not installed"
        if attack.needs == "allow_list":
            return "" if await self._has_proxy() else "this sandbox has no network by allow list"
        promised = self._shared.sandbox.report.guarantees.get(attack.needs, Enforcement.NONE)
        if attack.needs and promised is Enforcement.NONE:
            return f"this sandbox does not promise {attack.needs}"
        return ""

    async def _has_proxy(self) -> bool:
        try:
            stage = await self._open(lambda policy: _with_network(policy))
        except (SandboxUnavailable, NotImplementedError):
            return False
        async with stage.sandbox:
            return bool((await stage.run(sh('printf %s "$HTTP_PROXY"'))).stdout)

    @asynccontextmanager
    async def _stage(self, attack: Attack) -> AsyncGenerator[Stage]:
        shared = self._shared
        assert shared is not None, "asked before"
        if attack.policy is None and not attack.alone:
            yield shared
            return
        change = attack.policy
        try:
            own = await self._open(lambda policy: change(shared, policy) if change else policy)
            async with own.sandbox:
                yield own
        finally:
            # What it made there (a `.env`, a repository) would change what later sandboxes protect.
            shared.host.clear_workspace()

    async def _open(self, change: Callable[[Policy], Policy]) -> Stage:
        async def open_sandbox(policy: Policy) -> Sandbox:
            return await choose_sandbox(policy, cast("ProviderName", self.provider))

        async def open_changed(policy: Policy) -> Sandbox:
            return await open_sandbox(change(policy))

        sandbox, host = await self._make(open_changed)
        return Stage(self.provider, host, sandbox, open_sandbox)


def _with_network(policy: Policy) -> Policy:
    return Policy(policy.workspace, masked=policy.masked, network=Network.only(ALLOWED))
