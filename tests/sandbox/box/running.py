"""Runs a real box in its own process, and sends requests to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.waiting import HANG_SECONDS, block_until

COMMAND = [sys.executable, "-I", "-m", "moorage_sandbox.box"]


class Refused(Exception):
    """An answer with `"ok": false`."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["error"]["message"])
        self.code: str = answer["error"]["code"]
        self.message: str = answer["error"]["message"]


class RunningBox:
    def __init__(self, process: subprocess.Popen[bytes], socket_path: Path, home: Path) -> None:
        self.process = process
        self.socket_path = socket_path
        self.home = home
        self.workspace = home / "workspace"
        self._calls = 0

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(2 * HANG_SECONDS)
        connection.connect(str(self.socket_path))
        return connection

    def send(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        """One connection: send `data`, and what comes back as a line and the bytes after it."""
        with self.connect() as connection:
            try:
                connection.sendall(data)
            except BrokenPipeError:
                # The box refused the request before everything was sent. Its answer can still be read.
                connection.shutdown(socket.SHUT_WR)
            received = bytearray()
            while block := connection.recv(1 << 20):
                received += block
        line, _, body = bytes(received).partition(b"\n")
        return json.loads(line), body

    def ask(self, body: bytes = b"", **request: Any) -> tuple[dict[str, Any], bytes]:
        """An operation that is expected to succeed."""
        answer, content = self.send(json.dumps(request).encode() + b"\n" + body)
        if not answer["ok"]:
            raise Refused(answer)
        return answer, content

    def answer_to(
        self, function: str, *, call_key: str = "", timeout: float = HANG_SECONDS, **args: Any
    ) -> dict[str, Any]:
        """The whole answer of a call, whose key is new unless given."""
        self._calls += 1
        request = {
            "op": "call",
            "key": call_key or f"test-{self._calls}",
            "function": function,
            "args": args,
            "timeout_seconds": timeout,
        }
        return self.send(json.dumps(request).encode() + b"\n")[0]

    def call(self, function: str, *, timeout: float = HANG_SECONDS, **args: Any) -> dict[str, Any]:
        answer = self.answer_to(function, timeout=timeout, **args)
        if not answer["ok"]:
            raise Refused(answer)
        result: dict[str, Any] = answer["result"]
        return result

    def run(
        self, command: str, *, shell: str = "main", directory: str = "", timeout: float = HANG_SECONDS
    ) -> dict[str, Any]:
        return self.call("shell_execute", timeout=timeout, session_id=shell, exec_dir=directory, command=command)

    def output(self, command: str, *, shell: str = "main", directory: str = "") -> str:
        """What a command printed that ended well."""
        result = self.run(command, shell=shell, directory=directory)
        assert (result["status"], result["exit_code"]) == ("exited", 0), result
        return str(result["output"])

    def wait_for_output(self, text: str, *, shell: str = "main") -> None:
        """Wait until the command that runs in the shell has printed `text`."""
        block_until(lambda: text in self.call("shell_read_output", session_id=shell)["output"], f"it prints {text!r}")

    def boot_id(self) -> str:
        return str(self.ask(op="ping")[0]["boot_id"])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(HANG_SECONDS)


@contextmanager
def running_box(directory: Path, *, display: str = ":0", command: list[str] | None = None) -> Iterator[RunningBox]:
    """Run a box whose home and socket are in `directory`. At the end, it and all its descendants are killed."""
    home, socket_path = directory / "home", directory / "box.sock"
    home.mkdir(exist_ok=True)
    arguments = ["--socket", str(socket_path), "--home", str(home), "--display", display]
    process = subprocess.Popen([*(command or COMMAND), *arguments], stdin=subprocess.DEVNULL)
    box = RunningBox(process, socket_path, home)
    try:
        block_until(lambda: socket_path.exists() or process.poll() is not None, "the box listens")
        yield box
    finally:
        if process.poll() is None:
            box.stop()


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def processes_with(text: str) -> list[int]:
    """The ids of running processes whose command line contains `text`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command_line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if text.encode() in command_line and is_running(int(entry)):
                found.append(int(entry))
    return found


def memory_of(box: RunningBox) -> int:
    """Bytes of memory that the box itself uses."""
    status = Path(f"/proc/{box.process.pid}/statm").read_text()
    return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")
