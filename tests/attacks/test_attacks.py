import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.attack import PROVIDERS, Attack
from tests.attacks.runner import Outcome, Theatre
from tests.attacks.suite import ATTACKS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
async def test_attack_is_held(theatre: Theatre, attack: Attack) -> None:
    verdict = await theatre.judge(attack)
    if verdict.outcome is Outcome.NOT_APPLICABLE:
        pytest.skip(verdict.detail)
    assert verdict.outcome is Outcome.HELD, f"{attack.description} {verdict.detail}"


@pytest.mark.parametrize(
    "attack", [pytest.param(attack, id=name) for name, attack in ATTACKS.items() if attack.opens_uncaged]
)
async def test_attack_succeeds_without_a_cage(open_theatre: Theatre, attack: Attack) -> None:
    """An attack that nothing lets through shows nothing."""
    if attack.needs:
        pytest.skip("`none` promises nothing of this kind")
    verdict = await open_theatre.judge(attack)
    if verdict.outcome is Outcome.NOT_APPLICABLE:
        pytest.skip(verdict.detail)
    assert verdict.outcome is Outcome.BROKEN


def test_attacks_are_described() -> None:
    assert len(ATTACKS) >= 100
    for name, attack in ATTACKS.items():
        assert attack.name == name
        assert attack.description.endswith("."), name
        assert len(attack.description) <= 110, name
        assert attack.exempt.keys() <= set(PROVIDERS), name


def test_the_command_reports_by_name() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.attacks",
        "--provider",
        "none",
        "writes.dots",
        "planted.device_nodes",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["BROKEN", "none", "writes.dots:"]
    assert lines[1].split()[:4] == ["not", "applicable", "none", "planted.device_nodes:"]
    assert lines[2] == "0 held, 1 BROKEN, 1 not applicable"
