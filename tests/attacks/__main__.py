"""Run the attacks: `python -m tests.attacks [--provider P] [--json] [CASE...]`; exits 0 if none succeeded."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import anyio

from tests.attacks.attack import PROVIDERS, Attack
from tests.attacks.runner import Outcome, Theatre, Verdict
from tests.attacks.suite import ATTACKS


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 if no attack succeeded, 1 if one did, 2 if none could be made."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description="Attack the sandboxes.")
    parser.add_argument("--provider", choices=(*PROVIDERS, "none"), help="default: both that confine")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("case", nargs="*", help="a case, or a family: `writes.hard_link`, `writes`")
    options = parser.parse_args(arguments)
    chosen = [attack for attack in ATTACKS.values() if _is_chosen(attack, options.case)]
    if not chosen:
        parser.error(f"no case is called {' or '.join(options.case)}")
    providers: Sequence[str] = (options.provider,) if options.provider else PROVIDERS
    verdicts: list[Verdict] = []
    for provider in providers:
        verdicts += anyio.run(_attack, provider, chosen, options.json)
    counts = {outcome: sum(verdict.outcome is outcome for verdict in verdicts) for outcome in Outcome}
    if not options.json:
        print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if counts[Outcome.NOT_APPLICABLE] == len(verdicts):
        return 2
    return 1 if counts[Outcome.BROKEN] else 0


async def _attack(provider: str, attacks: Sequence[Attack], as_json: bool) -> list[Verdict]:
    verdicts: list[Verdict] = []
    async with Theatre(provider) as theatre:
        for attack in attacks:
            verdict = await theatre.judge(attack)
            verdicts.append(verdict)
            detail = f" ({verdict.detail})" if verdict.detail else ""
            line = f"{verdict.outcome:>14}  {provider:<10}  {attack.name}: {attack.description}{detail}"
            if as_json:
                line = json.dumps({**asdict(verdict), "guarantee": attack.guarantee})
            print(line, flush=True)
    return verdicts


def _is_chosen(attack: Attack, names: Sequence[str]) -> bool:
    return not names or any(attack.name == name or attack.name.startswith(f"{name}.") for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
