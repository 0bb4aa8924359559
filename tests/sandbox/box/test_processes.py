"""The box collects the exit status of every process, and ends all of them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from sandbox.box.running import RunningBox, is_running, running_box
from support.waiting import HANG_SECONDS, block_until


def test_all_processes_end_with_the_box(box: RunningBox) -> None:
    script = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"
    (box.workspace / "daemon.py").write_text(script)
    background = int(box.output("sleep 600 & echo $!"))
    deaf = int(box.output("(trap '' TERM HUP INT; while :; do sleep 600; done) & echo $!", shell="two"))
    box.output("python3 daemon.py & disown; nohup setsid sleep 601 >/dev/null 2>&1 &", shell="two")
    box.run("sleep 602", shell="three", timeout=0.1)
    block_until(lambda: len(below(box.process.pid)) >= 9, "everything runs")
    pids = below(box.process.pid)
    assert {background, deaf} <= set(pids)
    assert box.stop() == 0
    assert [pid for pid in pids if is_running(pid)] == []


def test_orphans_are_collected_and_exit_codes_are_not_stolen(box: RunningBox) -> None:
    for _ in range(20):
        assert box.run("(sleep 0.01 & sleep 0.01 &); (exit 3)")["exit_code"] == 3
        (box.workspace / "a").write_text("a")
        assert len(box.call("search_in_file", filepath="a", regex="a")["matches"]) == 1
    block_until(lambda: zombies_of(box.process.pid) == [], "no zombie is left")


def test_as_the_first_process_of_a_container_it_ends_at_once_and_collects_orphans() -> None:
    bubblewrap = [str(shutil.which("bwrap")), "--dev-bind", "/", "/", "--unshare-pid", "--as-pid-1", "--proc", "/proc"]
    command = [*bubblewrap, "--die-with-parent", sys.executable, "-I", "-m", "moorage_sandbox.box"]
    with tempfile.TemporaryDirectory(prefix="mb") as path, running_box(Path(path), command=command) as box:
        assert box.output("cat /proc/1/comm").startswith("python")
        box.output("setsid sh -c 'sleep 0.05 & sleep 0.05 &' & disown")
        block_until(lambda: "Z" not in box.output("ps -eo stat= | tr -d '[:space:]'"), "no zombie is left")
        first = below(box.process.pid)[0]
        subprocess.run(["kill", "-TERM", str(first)], check=True)
        assert box.process.wait(HANG_SECONDS) == 0


def test_a_shell_killed_from_outside_is_noticed(box: RunningBox) -> None:
    pid = int(box.output("echo $$"))
    box.run("sleep 600", timeout=0.1)
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    result = box.call("shell_wait_process", session_id="main")
    assert (result["status"], result["exit_code"]) == ("exited", 128 + signal.SIGKILL)
    assert box.output("echo again") == "again"


def below(root: int) -> list[int]:
    """Ids of all processes below `root`."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in map(str.split, listing.splitlines())}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def zombies_of(pid: int) -> list[int]:
    return [child for child in below(pid) if not is_running(child)]
