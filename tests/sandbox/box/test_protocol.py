"""The protocol of the box's socket, for every kind of request."""

from __future__ import annotations

import inspect
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from moorage_sandbox.box.arguments import SIGNATURES
from moorage_sandbox.box.browser.browser import Browser
from moorage_sandbox.box.files.functions import Files
from moorage_sandbox.box.shell.named_shells import Shells
from sandbox.box.running import Refused, RunningBox, running_box
from support.waiting import HANG_SECONDS


def test_a_box_has_one_boot_id_and_the_next_has_another(box: RunningBox) -> None:
    first = box.boot_id()
    assert box.boot_id() == first
    with tempfile.TemporaryDirectory(prefix="mb") as path, running_box(Path(path)) as other:
        assert other.boot_id() != first


def test_only_user_and_group_may_connect(shared_box: RunningBox) -> None:
    assert stat.S_IMODE(os.stat(shared_box.socket_path).st_mode) == 0o660


CALL: dict[str, Any] = {"op": "call", "key": "k", "function": "shell_read_output", "args": {"session_id": "a"}}
BAD_REQUESTS: dict[str, Any] = {
    "no JSON": b"what?",
    "deep JSON": b"[" * 100_000,
    "no object": [1],
    "no operation": {},
    "unknown operation": {"op": "reboot"},
    "operation of a wrong type": {"op": ["ping"]},
    "call without a key": CALL | {"key": None},
    "call with an empty key": CALL | {"key": ""},
    "call with a number as key": CALL | {"key": 17},
    "call without arguments": CALL | {"args": None},
    "call with a list of arguments": CALL | {"args": []},
    "time limit of nothing": CALL | {"timeout_seconds": 0},
    "time limit of a day": CALL | {"timeout_seconds": 86400},
    "time limit that is true": CALL | {"timeout_seconds": True},
    "write without a size": {"op": "file_write", "path": "a"},
    "write of less than nothing": {"op": "file_write", "path": "a", "size": -1},
    "read of nothing": {"op": "file_read"},
    "read of an empty path": {"op": "file_read", "path": ""},
    "read of a path with NUL": {"op": "file_read", "path": "a\0b"},
    "view of a number": {"op": "shell_view", "name": 1},
    "a line that never ends": b"x" * (5 * 1024 * 1024),
}


@pytest.mark.parametrize("request_line", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused_and_the_box_keeps_serving(shared_box: RunningBox, request_line: Any) -> None:
    line = request_line if isinstance(request_line, bytes) else json.dumps(request_line).encode()
    answer, _ = shared_box.send(line + b"\n")
    assert (answer["ok"], answer["error"]["code"]) == (False, "invalid")
    assert shared_box.boot_id()


BAD_ARGUMENTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "missing": ("shell_execute", {"session_id": "a", "command": "ls"}, "'exec_dir'"),
    "unknown": ("shell_read_output", {"session_id": "a", "lines": 3}, "'lines'"),
    "number for a string": ("shell_read_output", {"session_id": 1}, "a string"),
    "string for a number": ("read_file", {"filepath": "a", "start_line": "1"}, "a whole number"),
    "true for a number": ("read_file", {"filepath": "a", "start_line": True}, "a whole number"),
    "string for a flag": ("write_file", {"filepath": "a", "content": "", "append": "yes"}, "true or false"),
    "below the range": ("read_file", {"filepath": "a", "start_line": -1}, "'start_line' must be from 0"),
    "too long": ("shell_read_output", {"session_id": "a" * 65}, "1 to 64 characters"),
    "empty name": ("shell_read_output", {"session_id": ""}, "1 to 64 characters"),
    "NUL": ("shell_execute", {"session_id": "a", "exec_dir": "", "command": "echo \0"}, "NUL"),
    "half a surrogate pair": ("write_file", {"filepath": "a", "content": "\ud800"}, "surrogate"),
}


@pytest.mark.parametrize(("function", "args", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_named(shared_box: RunningBox, function: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as refused:
        shared_box.call(function, **args)
    assert refused.value.code == "invalid"
    assert message in refused.value.message


def test_null_stands_for_an_optional_argument_left_out(box: RunningBox) -> None:
    box.call("write_file", filepath="a.txt", content="x", append=None, trailing_newline=None)
    assert box.call("read_file", filepath="a.txt", start_line=None, max_length=None)["content"] == "x"


def test_an_unknown_function_is_refused(shared_box: RunningBox) -> None:
    with pytest.raises(Refused) as refused:
        shared_box.call("make_coffee")
    assert refused.value.code == "unknown_function"


@pytest.mark.parametrize("function", SIGNATURES)
def test_each_function_takes_exactly_the_parameters_of_its_signature(function: str) -> None:
    part = Shells if function.startswith("shell_") else Browser if function.startswith("browser_") else Files
    parameters = list(inspect.signature(getattr(part, function)).parameters.values())[2:]
    assert {it.name: it.default is it.empty for it in parameters} == {
        name: param.required for name, param in SIGNATURES[function].items()
    }


def test_a_result_that_is_too_large_to_send_is_refused(box: RunningBox) -> None:
    # Each of these characters takes six bytes in JSON.
    folder = box.workspace.joinpath(*["\x01" * 250] * 13)
    folder.mkdir(parents=True)
    for n in range(1000):
        (folder / f"{n:03}").touch()
    with pytest.raises(Refused) as refused:
        box.call("find_files", dir_path=".", glob_pattern="**/*")
    assert refused.value.code == "too_large"


def test_it_needs_neither_site_packages_nor_slow_modules_to_start() -> None:
    root = str(Path(sys.modules["moorage_sandbox"].__path__[0]).parent)
    script = "import sys; sys.path.insert(0, sys.argv[1]); import moorage_sandbox.box.__main__; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, root],
        check=True,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    slow = {"asyncio", "http", "subprocess", "dataclasses", "inspect", "pydantic", "ctypes", "urllib"}
    slow.add("moorage_sandbox.box.browser")
    assert slow.isdisjoint(run.stdout.split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_removes_the_socket(box: RunningBox, number: signal.Signals) -> None:
    box.boot_id()
    box.process.send_signal(number)
    assert box.process.wait(HANG_SECONDS) == 0
    assert not box.socket_path.exists()


def test_a_socket_left_by_a_killed_box_does_not_stop_the_next(box: RunningBox) -> None:
    box.boot_id()
    box.process.kill()
    box.process.wait()
    box.socket_path.with_name("box.sock.new").touch()
    directory = box.socket_path.parent
    with running_box(directory) as another:
        another.process.poll()
