"""All attacks, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.attacks import (
    allow_list,
    kernel,
    network,
    processes,
    reads,
    repositories,
    resources,
    terminal,
    tools,
    writes,
)
from tests.attacks.attack import Attack

_FAMILIES = (writes, reads, processes, kernel, network, allow_list, resources, repositories, tools, terminal)

ATTACKS: Mapping[str, Attack] = {attack.name: attack for family in _FAMILIES for attack in family.ATTACKS}
