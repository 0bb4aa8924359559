"""Each call runs at most once, however often it is requested."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from moorage_sandbox.box.calls import AnsweredCalls, AnswerForgottenError
from sandbox.box.running import RunningBox
from support.waiting import HANG_SECONDS, block_until

APPEND: dict[str, Any] = {"session_id": "main", "exec_dir": "", "command": "sleep 0.3; echo ran >> runs; wc -l < runs"}


def test_the_same_key_at_the_same_time_runs_once(box: RunningBox) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: box.answer_to("shell_execute", call_key="1", **APPEND), range(8)))
    assert (box.workspace / "runs").read_text() == "ran\n"
    assert answers == [answers[0]] * 8
    assert answers[0]["result"]["output"] == "1"


def test_the_same_key_later_gets_the_kept_answer(box: RunningBox) -> None:
    first = box.answer_to("shell_execute", call_key="1", **APPEND)
    assert box.answer_to("shell_execute", call_key="1", **APPEND) == first
    assert box.answer_to("shell_execute", call_key="2", **APPEND)["result"]["output"] == "2"


def test_a_failure_is_kept_like_a_success(box: RunningBox) -> None:
    first = box.answer_to("read_file", call_key="1", filepath="later.txt")
    assert first["error"]["code"] == "not_found"
    (box.workspace / "later.txt").write_text("there now")
    assert box.answer_to("read_file", call_key="1", filepath="later.txt") == first


def test_a_call_goes_on_when_its_client_disconnects(box: RunningBox) -> None:
    request = {"op": "call", "key": "1", "function": "shell_execute", "args": APPEND, "timeout_seconds": 30}
    with box.connect() as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
    assert box.answer_to("shell_execute", call_key="1", **APPEND)["result"]["output"] == "1"


def test_a_call_for_a_box_that_has_been_restarted_does_not_run(box: RunningBox) -> None:
    request = {"op": "call", "key": "1", "boot_id": "earlier", "function": "shell_execute", "args": APPEND}
    answer, _ = box.send(json.dumps(request).encode() + b"\n")
    assert answer["error"]["code"] == "rebooted"
    assert answer["boot_id"] == box.boot_id()
    assert not (box.workspace / "runs").exists()
    request["boot_id"] = box.boot_id()
    assert box.send(json.dumps(request).encode() + b"\n")[0]["result"]["output"] == "1"


def test_calls_do_not_wait_for_each_other(box: RunningBox) -> None:
    slow = threading.Thread(target=box.run, args=["read line"], kwargs={"shell": "slow"})
    slow.start()
    block_until(lambda: "slow" in box.answer_to("shell_read_output", session_id="-")["error"]["message"], "it runs")
    assert box.output("echo quick", shell="quick") == "quick"
    box.call("shell_kill_process", session_id="slow")
    slow.join(HANG_SECONDS)


def test_a_dropped_answer_is_forgotten_and_never_run_again() -> None:
    ledger = AnsweredCalls(max_kept=2, max_kept_bytes=100)
    runs: list[str] = []

    def run(key: str, answer: bytes = b"answer") -> bytes:
        runs.append(key)
        return answer

    for key in ("1", "2", "3"):
        assert ledger.answer(key, lambda key=key: run(key)) == b"answer"  # type: ignore[misc]
    with pytest.raises(AnswerForgottenError):
        ledger.answer("1", lambda: run("1"))
    assert ledger.answer("3", lambda: run("3")) == b"answer"
    assert ledger.answer("4", lambda: run("4", b"x" * 101)) == b"x" * 101
    with pytest.raises(AnswerForgottenError):
        ledger.answer("3", lambda: run("3"))
    assert runs == ["1", "2", "3", "4"]
