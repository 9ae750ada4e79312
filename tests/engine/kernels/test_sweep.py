from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from dsv4agent.engine.kernels import attention_tuning, sweep, tuning
from dsv4agent.engine.kernels.sweep import PlanRow, summary, try_group
from dsv4agent.engine.kernels.sweep_plans import Candidate, Group, groups
from tests.engine.kernels import test_attention_trial, test_trial

SMALL = replace(test_trial.SMALL, tokens=(2, 40)), replace(test_attention_trial.SMALL, decode=(2,))
GROUPS = list(groups(*SMALL))


def name_of(group: Group) -> str:
    return f"{group.case.kernel} {group.case.shape}"


def once(runs: Sequence[Callable[[], object]]) -> float:
    runs[0]()
    return 1e-6 * len(runs)


def test_without_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert sweep.main([]) == 2
    assert capsys.readouterr().out == "needs a CUDA device\n"


@pytest.mark.parametrize("group", GROUPS, ids=name_of)
def test_every_candidate_is_new_and_leaves_no_trace(group: Group) -> None:
    names = [candidate.name for candidate in group.candidates]
    assert names[0] == "in use" and len(set(names)) == len(names) > 1
    before = (
        dict(vars(tuning)),
        dict(vars(attention_tuning)),
        dict(tuning.LINEAR_PLANS),
        dict(tuning.EXPERT_PLANS),
    )
    for candidate in group.candidates:
        with candidate.use():
            pass
    assert before == (
        dict(vars(tuning)),
        dict(vars(attention_tuning)),
        tuning.LINEAR_PLANS,
        tuning.EXPERT_PLANS,
    )


@pytest.mark.parametrize(
    "kernel", ["experts", "linear wq_a+wkv", "linear wo_a", "write+read streams", "select_entries"]
)
def test_some_candidates_at_a_small_size(generator: torch.Generator, kernel: str) -> None:
    group = next(group for group in GROUPS if group.case.kernel == kernel)
    first, last = group.candidates[0], group.candidates[-1]
    rows = list(try_group("small", Group(group.case, (first, last)), generator, 5e-7, {}, once))
    assert [row.failure for row in rows] == ["", ""]
    assert all(row.passed and row.micros and row.share for row in rows)
    assert len(list(summary(rows))) == 3


def test_failures_are_reported(generator: torch.Generator) -> None:
    group = next(group for group in GROUPS if group.case.kernel == "experts")
    first, second, third, *_ = group.candidates

    def broken(runs: Sequence[Callable[[], object]]) -> float:
        raise RuntimeError("no such\nresource")

    chosen = Group(group.case, (first, second))
    rows = list(try_group("small", chosen, generator, 1.0, {1: "does not compile"}, broken))
    assert [row.failure for row in rows] == ["RuntimeError: no such resource", "does not compile"]
    assert [line.split()[0] for line in summary(rows)] == ["small", "failed", "failed"]
    del third


def test_a_plan_that_changes_bits_does_not_pass() -> None:
    row = PlanRow("small", "experts", "2", "in use", 0.0, True, 2.0, 0.5)
    other = replace(row, plan="rows=64", error=1e-3, passed=False, micros=1.0)
    assert "best 2.00" in next(iter(summary([row, other])))
    assert isinstance(GROUPS[0].candidates[0], Candidate)
