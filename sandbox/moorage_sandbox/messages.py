"""The bodies of the gate's requests and responses, and the trust file. Needs only pydantic."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from moorage_sandbox.protocol import MAX_CALL_SECONDS, Scope


class TrustedKey(BaseModel):
    """A public key (PEM, SubjectPublicKeyInfo) and the scopes that it may give."""

    public_key: str
    scopes: list[Scope]


class TrustFile(BaseModel):
    """`{"keys": {key id: …}}`. The gate reads the file again when it changes, so keys rotate without a restart."""

    keys: dict[str, TrustedKey]


class BindResponse(BaseModel):
    """`box_boot_id` changes each time the box starts. A new box has new shells and a new browser."""

    session_id: str
    box_boot_id: str


class CallRequest(BaseModel):
    """`timeout_seconds` limits how long the box works on the call. A longer shell command goes on in its shell."""

    function: str = Field(max_length=64, pattern=r"^[a-z_]+$")
    args: dict[str, Any]
    timeout_seconds: float = Field(default=60, gt=0, le=MAX_CALL_SECONDS)


class CallError(BaseModel):
    code: str
    message: str


class CallResponse(BaseModel):
    """`unknown`: the call was started, and it cannot be found out how it ended. It is not run again."""

    key: str
    outcome: Literal["succeeded", "failed", "unknown"]
    result: dict[str, Any] = {}
    error: CallError | None = None


class FileWritten(BaseModel):
    path: str
    size: int


class SkillDigests(BaseModel):
    """The skills in the sandbox: by id, the hexadecimal SHA-256 of the archive that each was unpacked from."""

    digests: dict[str, str]


class ConsoleRecord(BaseModel):
    ps1: str
    command: str
    output: str


class ShellView(BaseModel):
    output: str
    console_records: list[ConsoleRecord]


class ErrorResponse(BaseModel):
    """The body of every refusal of the gate. `error` is a code of `gate.errors` or of the box; clients decide by it."""

    error: str
    message: str
