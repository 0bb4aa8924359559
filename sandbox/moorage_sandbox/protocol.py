"""Values that gate, box, host and clients agree on. Standard library only, since the box imports it."""

from __future__ import annotations

from enum import StrEnum

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


class GateError(Exception):
    """The gate refused, or could not be reached. `code` is the refusal's, or `unreachable`."""

    def __init__(self, code: str, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
