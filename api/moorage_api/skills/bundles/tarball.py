"""Loads a skill from the tarball of a repository. The tarball is untrusted: sizes, paths and types are checked."""

from __future__ import annotations

import tarfile
import zlib
from typing import IO, Any

from moorage_api.errors import SkillRefusedError, SkillTooLargeError
from moorage_api.skills.bundles.bundle import Bundle, BundleBuilder, check_path, check_size, is_ignored

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Limit of the whole repository; only the skill's own files are kept in memory."""
MAX_MEMBERS = 50_000
MAX_HEADER_BYTES = 64 * 1024
"""Limit of one extended header, because tarfile reads headers of any size into memory."""
READ_BYTES = 64 * 1024

EXTENDED = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
REFUSED_KINDS = (
    (tarfile.TarInfo.issym, "link", "a symbolic link"),
    (tarfile.TarInfo.islnk, "link", "a hard link"),
    (tarfile.TarInfo.ischr, "special_file", "a device"),
    (tarfile.TarInfo.isblk, "special_file", "a device"),
    (tarfile.TarInfo.isfifo, "special_file", "a pipe"),
    (tarfile.TarInfo.issparse, "special_file", "a sparse file"),
)


def load_tarball(file: IO[bytes], *, folder: str, path: str) -> Bundle | None:
    """Read the directory `path` of a repository's tarball (tar.gz with one top directory). Blocking.

    None if the directory does not exist. Raises SkillRefusedError and SkillTooLargeError.
    """
    builder = BundleBuilder(folder)
    prefix = f"{path}/" if path else ""
    path_exists = not path
    try:
        inflated = _GzipReader(file)
        with tarfile.open(fileobj=inflated, mode="r|", tarinfo=_Header) as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    raise SkillTooLargeError("too_many_files", f"The repository has more than {MAX_MEMBERS} files")
                name = strip_top_directory(member.name)
                if name is None or not f"{name}/".startswith(prefix):
                    continue
                path_exists = True
                if not member.isdir():
                    _add(builder, tar, member, name.removeprefix(prefix))
        inflated.drain()
    except (tarfile.TarError, zlib.error, EOFError, OverflowError, ValueError) as error:
        raise SkillRefusedError("bad_archive", "The repository's archive is damaged or is not a tar.gz file") from error
    if not path_exists:
        return None
    return builder.finish()


def _add(builder: BundleBuilder, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if is_ignored(path):
        return
    for is_kind, reason, description in REFUSED_KINDS:
        if is_kind(member):
            raise SkillRefusedError(reason, f"{path[:200]!r} is {description}, which a skill must not contain")
    if not member.isreg():
        raise SkillRefusedError("special_file", f"{path[:200]!r} is not a regular file")
    check_path(path)
    check_size(path, member.size)
    content = tar.extractfile(member)
    if content is None:
        raise SkillRefusedError("special_file", f"{path[:200]!r} is not a regular file")
    builder.add(path, content.read())


def strip_top_directory(name: str) -> str | None:
    """Remove the first directory of a member's path; None for that directory itself. Raises SkillRefusedError."""
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or "\\" in name or ".." in parts or "." in parts or "" in parts:
        raise SkillRefusedError("traversal", f"The archive contains the path {name[:200]!r}, which leads out of it")
    return "/".join(parts[1:]) or None


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENDED and header.size > MAX_HEADER_BYTES:
            raise SkillTooLargeError("bad_archive", f"The archive has a header of more than {MAX_HEADER_BYTES} bytes")
        return header


class _GzipReader:
    """Decompresses a gzip file in small pieces, up to a limit."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(wbits=31)
        self._tail = b""
        self._size = 0

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing > 0 and (part := self._piece(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _piece(self, most: int) -> bytes:
        while not self._inflater.eof:
            compressed = self._tail or self._file.read(READ_BYTES)
            if not compressed:
                raise EOFError("The archive is incomplete")
            piece = self._inflater.decompress(compressed, most)
            self._tail = self._inflater.unconsumed_tail
            self._size += len(piece)
            if self._size > MAX_UNPACKED_BYTES:
                raise SkillTooLargeError("bomb", f"The repository is larger than {MAX_UNPACKED_BYTES >> 20} MiB")
            if piece:
                return piece
        return b""

    def drain(self) -> None:
        """Read to the end, where zlib checks the checksum, so that an incomplete archive is an error."""
        while self._piece(READ_BYTES):
            continue
