"""All attacks, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.attacks import (
    allow_list,
    kernel,
    namespaces,
    network,
    planted,
    processes,
    reads,
    repositories,
    resources,
    survivors,
    terminal,
    tools,
    writes,
)
from tests.attacks.attack import Attack

_FAMILIES = (
    writes,
    planted,
    reads,
    processes,
    kernel,
    namespaces,
    network,
    allow_list,
    resources,
    survivors,
    repositories,
    tools,
    terminal,
)

ATTACKS: Mapping[str, Attack] = {attack.name: attack for family in _FAMILIES for attack in family.ATTACKS}
