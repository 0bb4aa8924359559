"""Unpacks skills into the workspace and records which versions are there.

An archive was checked when the skill was installed. It is checked again here, because the code that unpacks it must
make sure where its members are written. Slow modules are imported when they are needed.
"""

from __future__ import annotations

import io
import os
import re
import threading
from typing import TYPE_CHECKING

from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors
from moorage_sandbox.protocol import (
    DIGEST_PATTERN,
    DIGEST_PREFIX,
    MAX_SKILL_FILES,
    SKILLS_FOLDER,
    is_skill_id,
)

if TYPE_CHECKING:
    import tarfile

MAX_UNPACKED_BYTES = 12 * 1024 * 1024
"""The size of the tar: 10 MiB of files, and the headers of at most 200 files."""

DIGESTS_FOLDER = ".digests"


class Skills:
    """`root` holds a folder for each skill, and `.digests/<id>` with the digest of the archive that it came from.

    In a pod, the init container uses this class too, before the box starts: `moorage_sandbox.box.fetch_skills`.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._writing = threading.Lock()

    def digests(self) -> dict[str, str]:
        """The hexadecimal digests of the installed skills by id. A skill whose folder was deleted is not listed."""
        found = {}
        folder = os.path.join(self._root, DIGESTS_FOLDER)
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        for name in names:
            if is_skill_id(name) and os.path.isdir(os.path.join(self._root, name)):
                digest = _read_digest(os.path.join(folder, name)).removeprefix(DIGEST_PREFIX)
                if re.fullmatch(DIGEST_PATTERN, digest):
                    found[name] = digest
        return found

    def put(self, skill_id: str, digest: str, archive: bytes) -> None:
        """Replace an older version of the skill by the files of `archive`. After a BoxError nothing has changed."""
        import hashlib
        import shutil

        if not is_skill_id(skill_id):
            raise BoxError("invalid", "A skill's id consists of lower-case letters, digits and single hyphens.")
        if hashlib.sha256(archive).hexdigest() != digest:
            raise BoxError("invalid", "The SHA-256 of the archive is not the expected digest.")
        files = unpack(archive)
        with self._writing, translate_os_errors(f"{SKILLS_FOLDER}/{skill_id}"):
            staged = os.path.join(self._root, f".new-{os.urandom(6).hex()}")
            os.makedirs(os.path.join(self._root, DIGESTS_FOLDER), exist_ok=True)
            try:
                _write_files(staged, files)
                self._swap(skill_id, staged)
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
            _write_digest(os.path.join(self._root, DIGESTS_FOLDER, skill_id), digest)

    def _swap(self, skill_id: str, staged: str) -> None:
        target = os.path.join(self._root, skill_id)
        digest_file = os.path.join(self._root, DIGESTS_FOLDER, skill_id)
        if os.path.lexists(digest_file):
            os.unlink(digest_file)  # first, so that no digest stands for files that are only half replaced
        if os.path.lexists(target):
            aside = f"{staged}.old"
            os.rename(target, aside)
            os.rename(staged, target)
            _remove(aside)
        else:
            os.rename(staged, target)


def unpack(archive: bytes) -> list[tuple[str, bool, bytes]]:
    """Return path, whether it is executable, and content of each file of a tar.gz.

    Raises BoxError unless the archive holds only plain files whose paths stay inside it.
    """
    import tarfile
    import zlib

    try:
        data = _inflate(archive)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            files = [_read_member(tar, member) for member in tar.getmembers() if not member.isdir()]
    except (tarfile.TarError, zlib.error, EOFError, OverflowError, ValueError) as error:
        raise BoxError("invalid", f"The archive cannot be read: {error}") from error
    if len(files) > MAX_SKILL_FILES:
        raise BoxError("too_large", f"The archive holds {len(files)} files. A skill has at most {MAX_SKILL_FILES}.")
    names = {name for name, _, _ in files}
    if len(names) < len(files):
        raise BoxError("invalid", "The archive holds two files with the same path.")
    if "SKILL.md" not in names:
        raise BoxError("invalid", "The archive has no SKILL.md.")
    return files


def _inflate(archive: bytes) -> bytes:
    import zlib

    inflater = zlib.decompressobj(wbits=31)
    data = inflater.decompress(archive, MAX_UNPACKED_BYTES)
    if inflater.unconsumed_tail:
        raise BoxError("too_large", f"The unpacked archive has more than {MAX_UNPACKED_BYTES >> 20} MiB.")
    if not inflater.eof or inflater.unused_data:
        raise BoxError("invalid", "The archive is incomplete, or other data follows it.")
    return data


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, bool, bytes]:
    parts = member.name.split("/")
    if not member.isreg() or member.issparse():
        raise BoxError("invalid", f"The archive's member {member.name[:200]!r} is not a plain file.")
    if any(part in ("", ".", "..") for part in parts) or "\0" in member.name or "\\" in member.name:
        raise BoxError("invalid", f"The archive's path {member.name[:200]!r} is not a relative path inside it.")
    content = tar.extractfile(member)
    if content is None:
        raise BoxError("invalid", f"The archive's member {member.name[:200]!r} is not a plain file.")
    return member.name, bool(member.mode & 0o100), content.read()


def _write_files(root: str, files: list[tuple[str, bool, bytes]]) -> None:
    made = {root}
    os.mkdir(root)
    for name, may_run, content in files:
        path = os.path.join(root, name)
        folder = os.path.dirname(path)
        if folder not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755 if may_run else 0o644)
        with open(fd, "wb", buffering=0) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]


def _remove(path: str) -> None:
    """Remove the old version, which may also be a file or a link that the agent made. Leftovers do no harm."""
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


def _read_digest(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    with open(fd, "rb", buffering=0) as file:
        try:
            return (file.read(128) or b"").decode("ascii", "replace").strip()
        except OSError:
            return ""


def _write_digest(path: str, digest: str) -> None:
    temporary = f"{path}.{os.urandom(6).hex()}"
    with open(temporary, "x", encoding="ascii") as file:
        file.write(f"{DIGEST_PREFIX}{digest}")
    os.rename(temporary, path)
