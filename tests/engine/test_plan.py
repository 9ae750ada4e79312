from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.engine.cache import sizes
from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.errors import ModelTooLarge
from dsv4agent.engine.weights import mini_config
from dsv4agent.engine.weights.known_shapes import KNOWN, known_config
from dsv4agent.engine.weights.plan import MemoryPlan, Part, plan_memory
from dsv4agent.engine.weights.reader import CheckpointReader
from dsv4agent.engine.weights.sizes import expert_bytes, weight_sizes

GIB = 2**30
FLASH, PRO = known_config("flash"), known_config("pro")


def plan(config: ModelConfig = FLASH, **changes: Any) -> MemoryPlan:
    """Plan for a card of 139 GiB, a host of 120 GiB and 128 K tokens, with `changes`."""
    arguments: dict[str, Any] = {"gpu_bytes": 139 * GIB, "host_bytes": 120 * GIB, "context": 131072}
    return plan_memory(config, **{**arguments, **changes})


def refusal(config: ModelConfig = FLASH, **changes: Any) -> ModelTooLarge:
    with pytest.raises(ModelTooLarge) as caught:
        plan(config, **changes)
    return caught.value


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("flash", 159_609_485_896),
        ("flash-0731", 166_878_536_440),
        ("pro", 864_704_792_696),
        ("pro-0813", 892_727_580_904),
    ],
)
def test_stored_bytes_are_those_of_the_published_checkpoints(name: str, total: int) -> None:
    assert sum(size.stored for size in weight_sizes(known_config(name)).values()) == total


def test_stored_bytes_are_those_of_the_bundled_files() -> None:
    folder = Path(str(files("dsv4agent"))) / "assets" / "mini"
    entries = CheckpointReader(folder).entries.values()
    config = ModelConfig.from_file(folder)
    stored = sum(size.stored for size in weight_sizes(config).values())
    assert stored == sum(entry.stop - entry.start for entry in entries)


@pytest.mark.parametrize(
    ("part", "flash", "pro"),
    [
        (Part.EXPERTS, 137.063, 765.598),
        (Part.ATTENTION, 4.284, 17.038),
        (Part.COMPRESSORS, 0.490, 1.252),
        (Part.INDEXERS, 0.256, 0.582),
        (Part.SHARED, 1.008, 3.753),
        (Part.ROUTERS, 0.101, 0.330),
        (Part.HYPER_CONNECTIONS, 0.126, 0.313),
        (Part.EMBEDDING, 0.986, 1.726),
        (Part.HEAD, 0.986, 1.726),
    ],
)
def test_parts_take_what_the_specification_says(part: Part, flash: float, pro: float) -> None:
    for config, expected in ((FLASH, flash), (PRO, pro)):
        assert weight_sizes(config)[part].stored / GIB == pytest.approx(expected, abs=6e-4)


def test_layouts_cost_only_where_they_must() -> None:
    """Exact float32 mixes take half as much again, tables of expert ids half as much; the rest is alike."""
    for part, size in weight_sizes(FLASH).items():
        kept = size.split + size.copied
        ratio = {Part.HYPER_CONNECTIONS: 1.5, Part.ROUTERS: 0.906}.get(part, 1.0)
        assert kept / size.stored == pytest.approx(ratio, rel=0.02)
    assert expert_bytes(FLASH) == 13_369_344
    assert expert_bytes(PRO) == 35_094_528


@pytest.mark.parametrize(("config", "active", "megabytes"), [(FLASH, 11.22e9, 68), (PRO, 39.67e9, 108)])
def test_a_token_reads_what_the_specification_says(
    config: ModelConfig, active: float, megabytes: int
) -> None:
    token = plan(config, gpu_bytes=2000 * GIB).bytes_per_token()
    assert token.pcie == 0
    assert token.active == pytest.approx(active, rel=0.01)
    assert token.state / 1e6 == pytest.approx(megabytes, abs=0.5)
    assert token.floor_ms(4.8e12, 5e10) == pytest.approx((active + megabytes * 1e6) / 4.8e9, rel=0.01)


def test_state_takes_what_the_specification_says() -> None:
    assert sizes.row_bytes(FLASH) == 584
    assert sizes.index_row_bytes(FLASH) == 68
    assert sizes.page_bytes(FLASH) / sizes.PAGE_TOKENS == 3514.25
    assert sizes.page_bytes(PRO) / sizes.PAGE_TOKENS == 5031.4375
    read = [sizes.read_bytes(FLASH, context) / 1e6 for context in (8192, 131072, 1048576)]
    assert read == pytest.approx([13, 68, 480], abs=0.7)
    assert plan(context=1 << 20).part(Part.PAGES).gpu / GIB == pytest.approx(3.431, abs=0.002)
    assert plan(context=257).part(Part.PAGES).gpu == 2 * sizes.page_bytes(FLASH)


def test_one_card_of_150_gigabytes_holds_nearly_all_of_flash() -> None:
    """Key-value pages, state and workspace of 3.5 GB in all; scales of 4 bits, the embedding on the host."""
    state = sizes.sequence_bytes(FLASH, chunk=4096, drafter=True) + 512 * sizes.page_bytes(FLASH)
    card: dict[str, Any] = {"gpu_bytes": int(149.6e9), "reserve": 0, "workspace": int(3.5e9) - state}
    packed = plan(**card, packed_scales=True)
    assert packed.scale_saving == pytest.approx(4.33e9, rel=0.01)
    assert packed.resident_share == pytest.approx(0.969, rel=0.01)
    assert packed.part(Part.EXPERTS).host == pytest.approx(4.4e9, rel=0.05)
    assert packed.bytes_per_token(0.969).pcie == pytest.approx(107e6, rel=0.06)
    drafting = plan(known_config("flash-0731"), **card, packed_scales=True, drafter=True)
    assert drafting.resident_share == pytest.approx(0.895, rel=0.01)


def test_experts_of_all_layers_are_resident_alike() -> None:
    one = plan(FLASH, drafter=True)
    assert len(one.resident) == 44
    assert max(one.resident) - min(one.resident) <= 1
    assert sum(one.resident) * one.expert_bytes == sum(
        one.part(part).gpu for part in (Part.EXPERTS, Part.DRAFTER_EXPERTS)
    )
    assert one.gpu_bytes <= one.gpu_available < one.gpu_bytes + one.expert_bytes


def test_the_drafter_is_loaded_only_if_asked_for() -> None:
    room: dict[str, Any] = {"gpu_bytes": 300 * GIB}
    bare, drafting = plan(**room), plan(**room, drafter=True)
    assert bare.part(Part.DRAFTER).gpu == bare.part(Part.DRAFTER_EXPERTS).gpu == 0
    more = sum(drafting.part(part).stored for part in (Part.DRAFTER, Part.DRAFTER_EXPERTS))
    assert more / GIB == pytest.approx(3.347, abs=0.001)
    assert not plan(ModelConfig.from_dict(mini_config()), context=4096, drafter=True).drafter


def test_the_embedding_moves_to_the_host_only_where_experts_gain() -> None:
    assert plan(gpu_bytes=160 * GIB).part(Part.EMBEDDING).host == 0
    moved = plan()
    assert moved.part(Part.EMBEDDING).host == moved.part(Part.EMBEDDING).stored
    assert moved.bytes_per_token(1.0).pcie == 2 * FLASH.hidden_size


def test_gpus_divide_experts_and_heads_and_copy_the_rest() -> None:
    one, two = plan(gpu_bytes=300 * GIB), plan(gpu_bytes=300 * GIB, gpus=2)
    for part in (Part.EXPERTS, Part.SHARED, Part.HEAD):
        assert two.part(part).gpu * 2 == one.part(part).gpu
    for part in (Part.COMPRESSORS, Part.INDEXERS, Part.HYPER_CONNECTIONS, Part.ROUTERS, Part.PAGES):
        assert two.part(part).gpu == one.part(part).gpu
    # Both read the narrow projections to queries and rows whole.
    narrow = 43 * (1024 + 512) * 4096
    assert two.part(Part.ATTENTION).gpu * 2 - one.part(Part.ATTENTION).gpu == pytest.approx(narrow, rel=1e-3)
    eight = plan(PRO, gpus=8, host_bytes=0)
    assert eight.resident_share == 1.0
    assert eight.part(Part.EXPERTS).gpu / GIB == pytest.approx(95.7, abs=0.01)


@given(
    name=st.sampled_from(sorted(KNOWN)),
    gpu=st.integers(0, 320),
    host=st.integers(0, 900),
    gpus=st.sampled_from([1, 2, 4, 8]),
    context=st.integers(1, 1 << 20),
    sequences=st.integers(1, 32),
    drafter=st.booleans(),
    packed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_plan_fits_and_loses_no_expert(
    name: str, gpu: int, host: int, gpus: int, context: int, sequences: int, drafter: bool, packed: bool
) -> None:
    config = known_config(name)
    try:
        made = plan(
            config,
            gpu_bytes=gpu * GIB,
            host_bytes=host * GIB,
            gpus=gpus,
            context=context,
            sequences=sequences,
            drafter=drafter,
            packed_scales=packed,
        )
    except ModelTooLarge as error:
        assert error.needed_bytes > error.available_bytes
        assert error.part in set(Part)
        return
    assert made.gpu_bytes <= gpu * GIB
    assert made.host_bytes <= host * GIB
    parts = [made.part(part) for part in (Part.EXPERTS, Part.DRAFTER_EXPERTS)]
    held = sum(gpus * part.gpu + part.host for part in parts)
    assert held == len(made.resident) * config.n_routed_experts * made.expert_bytes
    assert max(made.resident) <= config.n_routed_experts
    assert max(made.resident) - min(made.resident) <= gpus


def test_too_little_memory_names_the_part_and_remedies_that_hold() -> None:
    error = refusal(sequences=64, context=1 << 20)
    assert error.part == Part.PAGES
    context, sequences = (
        int(re.findall(pattern, str(error))[0])
        for pattern in (r"a context of (\d+) tokens", r"at most (\d+) sequences")
    )
    assert context < 1 << 20
    plan(sequences=64, context=context)
    assert refusal(sequences=64, context=2 * context).part
    plan(sequences=sequences, context=1 << 20)
    assert refusal(sequences=2 * sequences, context=1 << 20).part
    # Every GPU would hold all pages.
    assert "GPUs of this size" not in str(error)


def test_too_little_host_memory_says_how_much_is_enough() -> None:
    error = refusal(PRO)
    assert error.part == Part.EXPERTS
    assert "8 GPUs of this size" in str(error)
    assert plan(PRO, host_bytes=error.needed_bytes).host_bytes == error.needed_bytes
    assert refusal(PRO, host_bytes=error.needed_bytes - 1).needed_bytes == error.needed_bytes


def test_the_drafter_is_a_remedy_only_where_its_absence_is_enough() -> None:
    needed = plan().host_bytes
    assert "no drafter" in str(refusal(host_bytes=needed, drafter=True))
    assert "no drafter" not in str(refusal(host_bytes=needed - GIB, drafter=True))


def test_where_one_change_is_not_enough_all_together_are_named() -> None:
    text = str(refusal(gpu_bytes=10 * GIB, sequences=4, context=1 << 20))
    found = re.search(r"one sequence of (\d+) tokens, ([\d.]+) GiB of host memory", text)
    assert found
    plan(gpu_bytes=10 * GIB, host_bytes=int((float(found[2]) + 0.05) * GIB), context=int(found[1]))
    assert refusal(gpu_bytes=4 * GIB).part == Part.ATTENTION
    assert "a larger GPU" in str(refusal(gpu_bytes=4 * GIB))


@pytest.mark.parametrize(
    "changes",
    [{"gpus": 3}, {"gpus": 16}, {"gpus": 0}, {"context": 0}, {"context": 1 << 21}, {"gpu_bytes": -1}],
)
def test_numbers_without_meaning_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"GPUs cannot divide|must be at least 1|positions"):
        plan(**changes)


def test_lines_and_json_say_the_same() -> None:
    made = plan()
    lines = made.describe()
    total, gpu, host = (float(figure) for figure in re.findall(r"\d+\.\d", lines[0]))
    assert gpu == pytest.approx(made.gpu_bytes / GIB, abs=0.05)
    assert host == pytest.approx(made.host_bytes / GIB, abs=0.05)
    assert total == pytest.approx(gpu + host, abs=0.15)
    data = json.loads(json.dumps(asdict(made)))
    for part in data["parts"]:
        [line] = [line for line in lines if line.startswith(f"{part['part']:26}")]
        columns = [part[name] / GIB for name in ("stored", "gpu", "host") if part[name]]
        assert [float(cell) for cell in line[26:].split()] == pytest.approx(columns, abs=0.006)
    serial, overlapped = (made.bytes_per_token().floor_ms(4e12, 5e10, overlapped=x) for x in (False, True))
    assert serial > overlapped > made.bytes_per_token(1.0).floor_ms(4e12, 5e10)
