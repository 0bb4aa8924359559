"""What the gate and its clients say to each other: bodies, scopes, error codes. Needs pydantic and nothing else."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field

MAX_TOKEN_SECONDS = 120
"""Longest life of a token; the gate refuses one that was made for longer."""

MAX_CALL_BODY_BYTES = 4 * 1024 * 1024
MAX_RESULT_BYTES = 8 * 1024 * 1024
"""A result with its picture, as the box may answer it."""

MAX_FILE_BYTES = 100 * 1024 * 1024

MAX_SKILL_ARCHIVE_BYTES = 16 * 1024 * 1024
"""A skill's archive as it is sent; what is in it has limits of its own."""

HOME = "/home/ubuntu"
WORKSPACE = "/home/ubuntu/workspace"
UPLOADS = "/home/ubuntu/workspace/upload"
SKILLS = "/home/ubuntu/workspace/.skills"
"""Each skill is in a directory named by its id; the digests of their archives are in `.digests/<id>` beside them."""

SKILL_ID_PATTERN = r"[a-z0-9]+(-+[a-z0-9]+)*"
MAX_SKILL_ID_CHARS = 100
DIGEST_PATTERN = r"[0-9a-f]{64}"

ALGORITHM = "EdDSA"


class Scope(StrEnum):
    """What a token allows. Which key may give which is in the trust file."""

    BIND = "bind"
    CALL = "call"
    FILE_READ = "file:read"
    FILE_WRITE = "file:write"
    SKILLS = "skills"
    SHELL_READ = "shell:read"
    VNC = "vnc"


API_SCOPES = frozenset({Scope.VNC, Scope.FILE_READ, Scope.SHELL_READ})
RUNNER_SCOPES = frozenset(Scope)


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


class GateError(Exception):
    """The gate refused, or could not be reached. `code` is the refusal's, or `unreachable`."""

    def __init__(self, code: str, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
