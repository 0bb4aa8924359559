"""A real gate process for tests, its keys, and a fake box that can misbehave on request."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moorage_sandbox.client import GateClient, TokenSigner
from moorage_sandbox.protocol import API_SCOPES, RUNNER_SCOPES, Scope
from support.waiting import HANG_SECONDS


@dataclass
class Keys:
    """Key pairs by id, and the trust file with the public keys that the gate trusts."""

    trust_file: Path
    private: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    trusted: dict[str, frozenset[Scope]] = field(default_factory=dict)

    @classmethod
    def create(cls, directory: Path) -> Keys:
        keys = cls(directory / "trust.json")
        keys.trust("api", API_SCOPES)
        keys.trust("runner", RUNNER_SCOPES)
        return keys

    def trust(self, key_id: str, scopes: frozenset[Scope]) -> None:
        self.private.setdefault(key_id, Ed25519PrivateKey.generate())
        self.trusted[key_id] = scopes
        self._write()

    def distrust(self, key_id: str) -> None:
        del self.trusted[key_id]
        self._write()

    def signer(self, key_id: str) -> TokenSigner:
        key = self.private.setdefault(key_id, Ed25519PrivateKey.generate())
        return TokenSigner(key, key_id=key_id, issuer=key_id)

    def _write(self) -> None:
        entries = {
            key_id: {"public_key": public_pem(self.private[key_id]), "scopes": sorted(scopes)}
            for key_id, scopes in self.trusted.items()
        }
        staged = self.trust_file.with_suffix(".new")
        staged.write_text(json.dumps({"keys": entries}))
        staged.rename(self.trust_file)


def public_pem(key: Ed25519PrivateKey) -> str:
    encoded = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded.decode()


@dataclass
class Gate:
    """A gate that a test can kill and start again on the same port, as the sandbox host does."""

    directory: Path
    keys: Keys
    box_socket: Path
    uid: str = field(default_factory=lambda: str(uuid4()))
    rfb_socket: Path | None = None
    process: asyncio.subprocess.Process | None = None
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=64))

    @property
    def url(self) -> str:
        address, port = self.listener.getsockname()
        return f"http://{address}:{port}"

    async def start(self) -> None:
        number = self.listener.fileno()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "moorage_sandbox.gate",
            "--listen-fd",
            str(number),
            "--box-socket",
            str(self.box_socket),
            "--rfb-socket",
            str(self.rfb_socket or self.directory / "rfb.sock"),
            "--state-dir",
            str(self.directory / "state"),
            "--trust-file",
            str(self.keys.trust_file),
            "--sandbox-uid",
            self.uid,
            pass_fds=[number],
        )
        async with httpx.AsyncClient(base_url=self.url, timeout=HANG_SECONDS) as client:
            (await client.get("/healthz")).raise_for_status()

    async def kill(self) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        if self.process is not None:
            await self.kill()
        self.listener.close()

    def client(self, *, key: str = "runner", session: str = "s1", epoch: int = 1, uid: str | None = None) -> GateClient:
        return GateClient(
            self.url, signer=self.keys.signer(key), sandbox_uid=uid or self.uid, session_id=session, epoch=epoch
        )


@dataclass
class FakeBox:
    """Speaks the box's protocol and counts the calls that it really ran. `reboot` makes it a new box."""

    socket: Path
    boot_id: str = field(default_factory=lambda: uuid4().hex)
    ran: list[str] = field(default_factory=list)
    """The keys of the calls that ran, in order."""
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Calls of the function `slow` answer once this is set."""
    vanish: bool = False
    """Close the connection instead of answering the next call, after it ran."""
    files: dict[str, bytes] = field(default_factory=dict)
    skills: dict[str, Any] = field(default_factory=dict)
    server: asyncio.Server | None = None

    async def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self._serve, str(self.socket), limit=2**24)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        self.socket.unlink(missing_ok=True)

    async def reboot(self) -> None:
        await self.stop()
        self.boot_id = uuid4().hex
        self.answers.clear()
        self.vanish = False
        await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            answer, body = await self._answer(request, reader)
            if answer is not None:
                writer.write(json.dumps(answer).encode() + b"\n" + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer(
        self, request: dict[str, Any], reader: asyncio.StreamReader
    ) -> tuple[dict[str, Any] | None, bytes]:
        match request["op"]:
            case "ping":
                return {"ok": True, "boot_id": self.boot_id}, b""
            case "call":
                return await self._call(request), b""
            case "file_write":
                self.files[request["path"]] = await reader.readexactly(request["size"])
                return {"ok": True, "size": request["size"]}, b""
            case "file_read" if request["path"] in self.files:
                content = self.files[request["path"]]
                return {"ok": True, "size": len(content)}, content
            case "skill_list":
                return {"ok": True, "digests": self.skills}, b""
            case "skill_write":
                self.files[request["id"]] = await reader.readexactly(request["size"])
                self.skills[request["id"]] = request["digest"]
                return {"ok": True, "size": request["size"]}, b""
            case "shell_view" if request["name"] == "main":
                return {"ok": True, "result": {"output": "hello", "console_records": []}}, b""
        return {"ok": False, "error": {"code": "not_found", "message": "nothing there"}}, b""

    async def _call(self, request: dict[str, Any]) -> dict[str, Any] | None:
        key = request["key"]
        if request["boot_id"] not in (None, self.boot_id):
            return {"ok": False, "boot_id": self.boot_id, "error": {"code": "rebooted", "message": "another box"}}
        if key not in self.answers:
            self.ran.append(key)
            self.answers[key] = {"ok": True, "boot_id": self.boot_id, "result": {"ran": len(self.ran)}}
        if request["function"] == "slow":
            await self.hold.wait()
        if request["function"] == "fail":
            return {"ok": False, "boot_id": self.boot_id, "error": {"code": "not_found", "message": "no such file"}}
        return None if self.vanish else self.answers[key]


@asynccontextmanager
async def running_gate(directory: Path) -> AsyncIterator[tuple[Gate, FakeBox]]:
    box = FakeBox(directory / "box.sock")
    gate = Gate(directory, Keys.create(directory), box.socket, rfb_socket=directory / "rfb.sock")
    await box.start()
    try:
        await gate.start()
        yield gate, box
    finally:
        await gate.stop()
        await box.stop()
