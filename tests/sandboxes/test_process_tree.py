import os
import subprocess
import time

from dsv4agent.sandboxes.process_tree import descendants, kill_tree, terminate_tree


def wait_for(depths: list[int], root: int) -> dict[int, int]:
    for _ in range(500):
        found = descendants(root)
        if sorted(found.values()) == depths:
            return found
        time.sleep(0.01)
    raise AssertionError(descendants(root))


def test_descendants_are_found_with_their_depth() -> None:
    with subprocess.Popen(["bash", "-c", "(sleep 60; true) & sleep 60; true"]) as root:
        found = wait_for([1, 1, 2], root.pid)
        assert root.pid not in found and os.getpid() not in found
        kill_tree(root.pid)


def test_kill_tree_ends_what_ignores_polite_signals_and_forks_on() -> None:
    script = "trap '' TERM; while :; do sleep 0.01 & wait $!; done"
    with subprocess.Popen(["bash", "-c", f"({script}) & ({script}) & {script}"]) as root:
        time.sleep(0.2)
        members = descendants(root.pid)
        assert len(members) >= 2
        kill_tree(root.pid)
        assert root.wait(5) == -9
    assert not [pid for pid in members if os.path.exists(f"/proc/{pid}") and not _zombie(pid)]


def test_terminate_spares_the_machinery() -> None:
    with subprocess.Popen(
        ["bash", "-c", "(sleep 60; echo survived); echo outer"], stdout=subprocess.PIPE
    ) as root:
        wait_for([1, 2], root.pid)
        terminate_tree(root.pid, machinery=2)
        assert root.communicate(timeout=5)[0] == b"survived\nouter\n"


def test_a_process_that_is_gone_is_no_error() -> None:
    with subprocess.Popen(["true"]) as root:
        root.wait()
    kill_tree(root.pid)
    assert descendants(root.pid) == {}


def _zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
