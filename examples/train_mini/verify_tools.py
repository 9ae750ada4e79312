"""Replays episodes with the real tools in a real sandbox and compares what they print, byte for byte.

`python -m examples.train_mini.verify_tools --episodes 500` prints counts and the first differences, and
exits with 1 if there are any. Only the seconds of a test run and addresses of objects may differ.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import anyio

from dsv4agent.sandboxes import Policy, ProviderName, choose_sandbox
from dsv4agent.tools import ToolContext, minimal_profile
from examples.train_mini.environment import OUTPUT_TOKENS, token_counter
from examples.train_mini.episodes import make_episode
from examples.train_mini.limits import COMMAND_SECONDS
from examples.train_mini.repository import write
from examples.train_mini.teacher import Call, Episode, Unteachable, teach

_SECONDS = re.compile(r"\bin \d+\.\d\ds$", re.M)
_SPILL = re.compile(r"full output: [^\]]*\]")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")


@dataclass(frozen=True)
class Difference:
    """A call whose real text is another one."""

    episode: int
    call: Call
    real: str


def normalized(text: str) -> str:
    """Return a tool's text without what varies between runs."""
    return _SPILL.sub("full output: PATH]", _ADDRESS.sub("0x", _SECONDS.sub("in 0.00s", text)))


async def replay(
    episode: Episode, number: int, folder: Path, sandbox_name: ProviderName
) -> tuple[Counter[str], list[Difference]]:
    """Run an episode's calls with real tools on a real repository.

    Args:
        episode: Taught in the workspace `folder`.
        number: For the report.
        folder: Where the repository is written; made here.
        sandbox_name: As `choose_sandbox` takes it.

    Returns:
        Calls by tool, and the differences.
    """
    await anyio.to_thread.run_sync(write, episode.repository, folder)
    tools = {tool.name: tool for tool in minimal_profile(COMMAND_SECONDS)}
    counts: Counter[str] = Counter()
    differences: list[Difference] = []
    policy = Policy(str(folder), env={"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    spill = folder.parent / "spill"
    spill.mkdir(exist_ok=True)
    async with await choose_sandbox(policy, sandbox_name) as sandbox:
        context = ToolContext(
            sandbox,
            count_tokens=token_counter(),
            max_output_tokens=OUTPUT_TOKENS,
            spill_dir=spill,
        )
        try:
            for turn in episode.turns:
                for call in turn.calls:
                    result = await tools[call.name](context, call.args)
                    counts[call.name] += 1
                    if normalized(result.text) != normalized(call.result):
                        differences.append(Difference(number, call, result.text))
                if differences:
                    break
        finally:
            for tool in tools.values():
                await tool.aclose()
    return counts, differences


def episode_in(folder: Path, rng: Random) -> Episode:
    """Return an episode whose workspace is a folder of this machine."""
    while True:
        drawn = make_episode(rng).repository
        try:
            return teach(replace(drawn, workspace=str(folder)), rng)
        except Unteachable:
            continue


async def _verify(count: int, seed: int, sandbox_name: ProviderName, shown: int) -> int:
    rng = Random(seed)
    calls: Counter[str] = Counter()
    differences: list[Difference] = []
    with tempfile.TemporaryDirectory(prefix="verify-") as base:
        for number in range(count):
            folder = Path(base, f"workspace{number}")
            counts, found = await replay(episode_in(folder, rng), number, folder, sandbox_name)
            calls += counts
            differences += found
            if (number + 1) % 25 == 0 or number + 1 == count:
                total = sum(calls.values())
                print(f"{number + 1} episodes, {total} calls, {len(differences)} differences", flush=True)
            await anyio.run_process(["rm", "-rf", str(folder)])
    for difference in differences[:shown]:
        print(f"--- episode {difference.episode}: {difference.call.name} {dict(difference.call.args)}")
        lines = difflib.unified_diff(
            normalized(difference.real).split("\n"),
            normalized(difference.call.result).split("\n"),
            "real",
            "simulated",
            lineterm="",
        )
        print("\n".join(lines))
    print(f"calls: {dict(calls)}; differences: {len(differences)}")
    return int(bool(differences))


def main() -> None:
    """Verify from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--show", type=int, default=5, help="differences to print")
    arguments = parser.parse_args()
    sys.exit(anyio.run(_verify, arguments.episodes, arguments.seed, arguments.sandbox, arguments.show))


if __name__ == "__main__":
    main()
