"""Loads a skill from the tarball of a repository, believing nothing that it says."""

from __future__ import annotations

import tarfile
import zlib
from typing import IO, Any

from moorage_api.errors import SkillRefusedError, SkillTooLargeError
from moorage_api.skills.bundles.bundle import Bundle, BundleBuilder, check_size, checked_path, is_ignored

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Of the whole repository; only the skill's own files are kept."""
MAX_MEMBERS = 50_000
MAX_HEADER_BYTES = 64 * 1024
"""Of one extended header, which tarfile would read into memory whatever its size."""
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
    """The directory `path` of a repository's tarball (tar.gz, everything below one directory). Blocking.

    None when there is no such directory. Raises SkillRefusedError and SkillTooLargeError.
    """
    builder = BundleBuilder(folder)
    prefix = f"{path}/" if path else ""
    is_there = not path
    try:
        inflated = _Inflated(file)
        with tarfile.open(fileobj=inflated, mode="r|", tarinfo=_Header) as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    raise SkillTooLargeError("too_many_files", f"The repository has more than {MAX_MEMBERS} files")
                name = below_top(member.name)
                if name is None or not f"{name}/".startswith(prefix):
                    continue
                is_there = True
                if not member.isdir():
                    _add(builder, tar, member, name.removeprefix(prefix))
        inflated.drain()
    except (tarfile.TarError, zlib.error, EOFError, OverflowError, ValueError) as error:
        raise SkillRefusedError("bad_archive", "The repository's archive cannot be read") from error
    if not is_there:
        return None
    return builder.finish()


def _add(builder: BundleBuilder, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if is_ignored(path):
        return
    for is_kind, reason, shown in REFUSED_KINDS:
        if is_kind(member):
            raise SkillRefusedError(reason, f"{path[:200]!r} is {shown}")
    if not member.isreg():
        raise SkillRefusedError("special_file", f"{path[:200]!r} is no plain file")
    checked_path(path)
    check_size(path, member.size)
    content = tar.extractfile(member)
    if content is None:
        raise SkillRefusedError("special_file", f"{path[:200]!r} is no plain file")
    builder.add(path, content.read())


def below_top(name: str) -> str | None:
    """The member's path without the one directory that all are in; None for that directory.

    Raises SkillRefusedError.
    """
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or "\\" in name or ".." in parts or "." in parts or "" in parts:
        raise SkillRefusedError("traversal", f"The archive holds the path {name[:200]!r}, which leads out of it")
    return "/".join(parts[1:]) or None


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENDED and header.size > MAX_HEADER_BYTES:
            raise SkillTooLargeError("bad_archive", "The archive has a header that is too long")
        return header


class _Inflated:
    """Reads what a gzip file unfolds to, up to a limit, in pieces of a bounded size."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(wbits=31)
        self._tail = b""
        self._size = 0

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted > 0 and (part := self._piece(wanted)):
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def _piece(self, most: int) -> bytes:
        while not self._inflater.eof:
            packed = self._tail or self._file.read(READ_BYTES)
            if not packed:
                raise EOFError("The archive is cut off")
            piece = self._inflater.decompress(packed, most)
            self._tail = self._inflater.unconsumed_tail
            self._size += len(piece)
            if self._size > MAX_UNPACKED_BYTES:
                raise SkillTooLargeError("bomb", f"The repository unfolds to more than {MAX_UNPACKED_BYTES >> 20} MiB")
            if piece:
                return piece
        return b""

    def drain(self) -> None:
        """To the end, where the checksum is compared: a cut-off archive is no shorter skill."""
        while self._piece(READ_BYTES):
            continue
