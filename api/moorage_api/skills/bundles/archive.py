"""Packs a bundle as a reproducible tar.gz: the same files always have the same digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
from dataclasses import dataclass

from moorage_api.skills.bundles.bundle import Bundle, is_script
from moorage_sandbox.protocol import DIGEST_PREFIX, PIN_PATTERN

PIN = re.compile(PIN_PATTERN)


@dataclass(frozen=True)
class Archive:
    """`digest` is the SHA-256 of `data` in hexadecimal. It is part of the object's key and is checked after reading."""

    digest: str
    data: bytes


def to_pin(digest: str) -> str:
    """Write the digest as in a session's resource and in URLs for sandboxes, with the prefix "sha256:"."""
    return f"{DIGEST_PREFIX}{digest}"


def digest_in_pin(pin: str) -> str | None:
    """The digest in a text that `to_pin` wrote; None for any other text."""
    found = PIN.fullmatch(pin)
    return found[1] if found else None


def digest_of(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def pack(bundle: Bundle) -> Archive:
    """Pack the files without owners and times. Scripts (`#!`) are executable, all other files are not."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in bundle.files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = 0o755 if is_script(content) else 0o644
            tar.addfile(member, io.BytesIO(content))
    data = gzip.compress(plain.getvalue(), compresslevel=6, mtime=0)
    return Archive(digest_of(data), data)


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of an archive that `pack` has made. The caller has checked its digest."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        files = {}
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None, "`pack` stores only regular files"
            files[member.name] = content.read()
        return files
