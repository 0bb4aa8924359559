"""The keys of the objects in the platform's bucket. No other module builds or parses a key."""

from __future__ import annotations

import re
from uuid import UUID

from moorage_sandbox.protocol import DIGEST_PATTERN

SKILL_ARCHIVES = "skills/archives/"
SKILL_ARCHIVE = re.compile(rf"{SKILL_ARCHIVES}({DIGEST_PATTERN})\.tar\.gz")

OWN_PREFIXES = ("files/", "sessions/", "skills/")
"""Objects below these prefixes belong to database rows. A manual upload must not overwrite them."""


def user_files_prefix(owner_id: UUID) -> str:
    return f"files/{owner_id}/"


def file_key(owner_id: UUID, file_id: UUID, version: str) -> str:
    """`version` changes with every upload, so a stored object is never overwritten."""
    return f"{user_files_prefix(owner_id)}{file_id}/{version}"


def session_prefix(session_id: UUID) -> str:
    """Below it are the session's own objects (pictures, long outputs). Files are below their owner's prefix."""
    return f"sessions/{session_id}/"


def session_picture_key(session_id: UUID, digest: str, extension: str) -> str:
    """A picture that a model saw. `digest` is the SHA-256 of its bytes, so the same picture is stored once."""
    return f"{session_prefix(session_id)}pictures/{digest}.{extension}"


def is_session_picture_key(session_id: UUID, key: str) -> bool:
    """Whether `session_picture_key` could have made `key` for this session."""
    return re.fullmatch(rf"{session_prefix(session_id)}pictures/{DIGEST_PATTERN}\.[a-z]+", key) is not None


def skill_archive_key(digest: str) -> str:
    """`digest` is the archive's SHA-256 as 64 hexadecimal digits."""
    return f"{SKILL_ARCHIVES}{digest}.tar.gz"


def digest_in_key(key: str) -> str | None:
    """The reverse of `skill_archive_key`; None for any other key."""
    found = SKILL_ARCHIVE.fullmatch(key)
    return found[1] if found else None
