import anyio
import anyio.lowlevel
import pytest

from dsv4agent.tools.settling import settle

pytestmark = pytest.mark.anyio


async def test_work_that_ends_in_time_is_not_cancelled() -> None:
    done: list[str] = []

    async def work() -> str:
        done.append("begun")
        await anyio.sleep(0.1)
        done.append("ended")
        return "result"

    with anyio.move_on_after(0.02):
        await settle(work, 30.0)
    assert done == ["begun", "ended"]
    assert await settle(work, 0.0) == "result"


async def test_work_that_takes_longer_is_cut() -> None:
    with anyio.move_on_after(0.02) as scope, anyio.fail_after(20):
        await settle(anyio.sleep_forever, 0.05)
    assert scope.cancelled_caught


async def test_a_failure_comes_as_it_is() -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        await settle(work, 1.0)
