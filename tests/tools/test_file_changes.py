"""Several files that change all or not at all, over a real cage and real files."""

from collections.abc import AsyncIterator

import pytest

from dsv4agent.tools.file_changes import FileChanges, PlannedFile
from dsv4agent.tools.refusal import Refusal
from tests.tools.real_desk import RealDesk, folder, link, open_desk

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealDesk]:
    async with open_desk(tmp_path_factory.mktemp("changes")) as desk:
        yield desk


class Plan:
    """Changes to files by their names in the workspace."""

    def __init__(self, desk: RealDesk) -> None:
        self.changes = FileChanges(desk.sandbox)
        self.workspace = desk.workspace

    async def file(self, name: str) -> PlannedFile:
        return await self.changes.file(str(self.workspace / name), name)

    async def refusal(self) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.changes.write()
        return caught.value


async def test_all_is_written(desk: RealDesk) -> None:
    desk.fill({"a": "1", "b": "2", "same": "3"})
    before = (desk.workspace / "same").stat().st_ino
    plan = Plan(desk)
    (await plan.file("a")).put(b"new")
    (await plan.file("b")).take_away()
    (await plan.file("same")).put(b"3")
    (await plan.file("c/d")).put(b"made", 0o700)
    (await plan.file("never")).take_away()
    assert desk.contents() == {"a": b"1", "b": b"2", "same": b"3"}
    await plan.changes.write()
    assert desk.contents() == {"a": b"new", "same": b"3", "c/d": b"made"}
    assert (desk.workspace / "c/d").stat().st_mode & 0o777 == 0o700
    assert (desk.workspace / "same").stat().st_ino == before


async def test_a_file_is_read_once_and_seen_as_planned(desk: RealDesk) -> None:
    desk.fill({"a": "1"})
    plan = Plan(desk)
    (await plan.file("a")).put(b"2")
    assert (await plan.file("a")).data == b"2"
    (await plan.file("a")).take_away()
    assert not (await plan.file("a")).exists
    assert not (await plan.file("new")).exists


@pytest.mark.parametrize("change", ["changed", "removed", "made", "a folder"])
async def test_a_change_by_another_stops_all(desk: RealDesk, change: str) -> None:
    desk.fill({"a": "1", "b": "2"})
    plan = Plan(desk)
    (await plan.file("a")).put(b"new")
    (await plan.file("b")).put(b"new")
    (await plan.file("c")).put(b"new")
    other = desk.workspace / ("c" if change in {"made", "a folder"} else "b")
    if change == "removed":
        other.unlink()
    elif change == "a folder":
        other.mkdir()
    else:
        other.write_text("by another")
    left = desk.contents()
    refusal = await plan.refusal()
    assert refusal.code == "stale_file"
    assert refusal.reason == (
        f"{other.name} changed while the patch was applied; view it again; no file was changed"
    )
    assert desk.contents() == left


async def test_removals_come_last_and_are_put_back(desk: RealDesk) -> None:
    desk.fill({"a": "1", "b": "2", "l": link("/etc/hosts")})
    plan = Plan(desk)
    (await plan.file("a")).take_away()
    (await plan.file("b")).put(b"new")
    (await plan.file("l")).put(b"x")
    assert (await plan.refusal()).code == "permission_denied"
    (desk.workspace / "l").unlink()
    assert desk.contents() == {"a": b"1", "b": b"2"}
    plan = Plan(desk)
    (await plan.file("a")).take_away()
    (await plan.file("b")).take_away()
    (desk.workspace / "b").write_text("by another")
    assert (await plan.refusal()).code == "stale_file"
    assert desk.contents() == {"a": b"1", "b": b"by another"}


async def test_what_is_no_file_is_refused_when_read(desk: RealDesk) -> None:
    desk.fill({"d": folder, "loop": link("loop"), "big": b"x" * (9 << 20)})
    codes: dict[str, str] = {}
    for name in ("d", "loop", "big"):
        with pytest.raises(Refusal) as caught:
            await Plan(desk).file(name)
        codes[name] = caught.value.code
    assert codes == {"d": "not_a_file", "loop": "not_found", "big": "too_large"}
