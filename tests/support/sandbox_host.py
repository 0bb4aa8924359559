"""A real sandbox host, as root or as an ordinary user, and commands that run inside its sandboxes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
from websockets.sync.client import connect

from moorage_sandbox.messages import CallResponse
from moorage_sandbox.protocol import Scope
from support.gate import Keys
from support.ordinary_user import ORDINARY_UID, as_ordinary_user, own_tun
from support.waiting import HANG_SECONDS, block_until
from support.worker import WORKER

UID_COUNT = 4_000
COMMAND_SECONDS = 60

ACCOUNTS = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]

UID_BASE = 6_000_000 + WORKER * UID_COUNT


@dataclass
class Inside:
    """One sandbox as the runner sees it: through its gate, with a signed token."""

    host: SandboxHost
    session_id: str
    url: str
    uid: str
    boot_id: str = ""

    def bind(self) -> None:
        self.boot_id = self._post("/v1/bind", Scope.BIND, {})["box_boot_id"]

    def call(self, function: str, args: dict[str, Any], *, key: str | None = None) -> CallResponse:
        body = {"function": function, "args": args, "timeout_seconds": COMMAND_SECONDS}
        return CallResponse.model_validate(self._post(f"/v1/calls/{key or uuid4()}", Scope.CALL, body))

    def run(self, command: str, *, shell: str = "main", key: str | None = None) -> str:
        """Run a command and return its output, whatever its exit code is. The shell stays open for the next command."""
        args = {"session_id": shell, "exec_dir": "/home/ubuntu", "command": command}
        response = self.call("shell_execute", args, key=key)
        assert response.outcome == "succeeded", response
        assert response.result["status"] == "exited", response.result
        return str(response.result["output"])

    def python(self, code: str) -> str:
        return self.run(f"python3 - <<'END_OF_CODE'\n{code}\nEND_OF_CODE")

    def rfb_greeting(self) -> bytes:
        """The first bytes of an RFB server, through the gate's WebSocket."""
        url = self.url.replace("http", "ws", 1) + "/v1/vnc"
        with connect(url, additional_headers=self.headers(Scope.VNC), subprotocols=None, proxy=None) as socket:
            greeting = socket.recv(timeout=COMMAND_SECONDS)
        assert isinstance(greeting, bytes)
        return greeting

    def headers(self, scope: Scope) -> dict[str, str]:
        token = self.host.keys.signer("runner").token(
            sandbox_uid=self.uid, session_id=self.session_id, epoch=1, scope=scope
        )
        return {"Authorization": f"Bearer {token}"}

    def _post(self, path: str, scope: Scope, body: dict[str, Any]) -> dict[str, Any]:
        timeout = httpx.Timeout(HANG_SECONDS)
        response = httpx.post(self.url + path, json=body, headers=self.headers(scope), timeout=timeout, trust_env=False)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@dataclass
class SandboxHost:
    """A host that a test can kill and start again with the same data."""

    account: str
    directory: Path
    keys: Keys
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    root_tun: bool = False
    """Whether the root's host finds a network tap that only root may open, as on a machine without udev."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "host.sock"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def name(self) -> str:
        """The name in its runtime directory and in its control groups."""
        return hashlib.sha256(str(self.data).encode()).hexdigest()[:10]

    @property
    def runtime(self) -> Path:
        return Path(f"/run/moorage-{self.name}") if self.account == "root" else self.data / "run"

    def groups(self) -> list[Path]:
        """The control groups of its sandboxes."""
        command = ["find", "/sys/fs/cgroup", "-maxdepth", "5", "-name", f"moorage-{self.name}-*"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return [Path(line) for line in found.splitlines()]

    @property
    def log(self) -> Path:
        return self.directory / "host.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def spawn(self) -> subprocess.Popen[bytes]:
        command = [
            "moorage_sandbox.host",
            f"--socket={self.socket}",
            f"--data-dir={self.data}",
            f"--trust-file={self.keys.trust_file}",
            f"--uid-base={UID_BASE}",
            f"--uid-count={UID_COUNT}",
            *self.options,
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
        if self.account == "ordinary" and os.geteuid() == 0:
            command, environment = as_ordinary_user(command, self.directory)
        else:
            command = ["/usr/bin/setpriv", "--pdeathsig=KILL", sys.executable, "-m", *command]
            if self.root_tun:
                script = f'{own_tun(mode="0600")}exec "$@"'
                command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", *command]
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**environment, **self.environment},
                start_new_session=True,
            )

    def start(self) -> None:
        process = self.process = self.spawn()

        def answers() -> bool:
            assert process.poll() is None, f"The host ended:\n{self.log.read_text()}"
            with socket.socket(socket.AF_UNIX) as attempt:  # httpx leaks a socket that does not connect
                return attempt.connect_ex(str(self.socket)) == 0

        block_until(answers, "the host answers")
        assert self.request("GET", "/healthz").status_code == 200

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=HANG_SECONDS)

    def uids(self) -> set[int]:
        """The user ids of its sandboxes, and its own user id when only the tests use that id."""
        if self.account == "root":
            return set(range(UID_BASE, UID_BASE + UID_COUNT))
        return {ORDINARY_UID} if os.geteuid() == 0 else set()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def request(self, method: str, path: str) -> httpx.Response:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://host", timeout=HANG_SECONDS
        ) as client:
            return client.request(method, path)

    def put(self, session_id: str | None = None) -> Inside:
        """Create a sandbox, or find the existing one, and bind it to its session."""
        session_id = session_id or str(uuid4())
        response = self.request("PUT", f"/v1/sandboxes/{session_id}")
        assert response.status_code == 200, f"{response.text}\n{self.log.read_text()}"
        record = response.json()
        inside = Inside(self, session_id, record["url"], record["uid"])
        inside.bind()
        return inside

    def read_sandbox(self, session_id: str) -> dict[str, Any]:
        """The state of a sandbox as the host reports it."""
        response = self.request("GET", f"/v1/sandboxes/{session_id}")
        assert response.status_code == 200, response.text
        record: dict[str, Any] = response.json()
        return record

    def stored_directory(self, inside: Inside) -> Path:
        """A sandbox's directory below the data directory."""
        return self.data / "sandboxes" / inside.session_id

    def runtime_directory(self, inside: Inside) -> Path:
        """Where a sandbox's sockets are."""
        return self.runtime / f"s{json.loads((self.stored_directory(inside) / 'meta.json').read_text())['slot']}"

    def gate_of(self, inside: Inside) -> psutil.Process:
        port = int(inside.url.rpartition(":")[2])
        [gate] = [process for process in self.descendants() if process.pid != self.pid and is_listening(process, port)]
        return gate

    def box_of(self, inside: Inside) -> psutil.Process:
        pythons = self.processes_of(inside, "python3")
        [box] = [process for process in pythons if "moorage_sandbox.box" in " ".join(process.cmdline())]
        return box

    def processes_of(self, inside: Inside, name: str) -> list[psutil.Process]:
        """The processes with this name in the bubblewraps of the sandbox."""
        directory = str(self.runtime_directory(inside))
        found = []
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):
                if process.name() == name and any(directory in " ".join(one.cmdline()) for one in process.parents()):
                    found.append(process)
        return found


def still_running(processes: Iterable[psutil.Process]) -> dict[str, int]:
    """The ids of the running processes by name. Zombies do not count."""
    found = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.name()] = process.pid
    return found


def is_listening(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp4")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


@contextmanager
def sandbox_host(account: str, *options: str, environment: dict[str, str] | None = None) -> Iterator[SandboxHost]:
    """A directory and keys for a host that is not started yet. The host is stopped at the end of the block."""
    directory = Path(tempfile.mkdtemp(prefix="mo-"))
    host = SandboxHost(account, directory, Keys.create(directory), list(options), environment or {})
    if account == "ordinary" and os.geteuid() == 0:
        os.chown(directory, ORDINARY_UID, ORDINARY_UID)
        os.chown(host.keys.trust_file, ORDINARY_UID, ORDINARY_UID)
    try:
        yield host
    finally:
        if host.process is not None and host.process.poll() is None:
            try:
                host.stop()
            except subprocess.TimeoutExpired:
                host.kill()
        # A killed host leaves these for its successor, and here there is no successor.
        shutil.rmtree(host.runtime, ignore_errors=True)
        for group in host.groups():
            with suppress(OSError):
                group.rmdir()
        shutil.rmtree(directory)
