"""The bodies of the gate's requests and responses. Needs pydantic and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from moorage_sandbox.protocol import Scope


class TrustedKey(BaseModel):
    """A public key (PEM, SubjectPublicKeyInfo) and the scopes it may give."""

    public_key: str
    scopes: list[Scope]


class TrustFile(BaseModel):
    """`{"keys": {key id: …}}`; mounted, and read again when it changes, so keys rotate without a restart."""

    keys: dict[str, TrustedKey]


class BindResponse(BaseModel):
    """`box_boot_id` changes whenever the box is started anew: its shells and its browser are new then."""

    session_id: str
    box_boot_id: str


class CallRequest(BaseModel):
    """`timeout_seconds` bounds the box's work. A shell command that takes longer goes on in its shell."""

    function: str = Field(max_length=64, pattern=r"^[a-z_]+$")
    args: dict[str, Any]
    timeout_seconds: float = Field(default=60, gt=0, le=3600)


class CallError(BaseModel):
    code: str
    message: str


class CallResponse(BaseModel):
    """`unknown`: the call was started and nobody can tell any more how it ended; it is not run again."""

    key: str
    outcome: Literal["succeeded", "failed", "unknown"]
    result: dict[str, Any] = {}
    error: CallError | None = None


class FileWritten(BaseModel):
    path: str
    size: int


class SkillDigests(BaseModel):
    """The skills that are in the sandbox: SHA-256 of each one's archive, in hexadecimal, by id."""

    digests: dict[str, str]


class ConsoleRecord(BaseModel):
    ps1: str
    command: str
    output: str


class ShellView(BaseModel):
    output: str
    console_records: list[ConsoleRecord]


class ErrorResponse(BaseModel):
    """Every refusal of the gate. `error` is one of the codes below and is what clients branch on."""

    error: str
    message: str
