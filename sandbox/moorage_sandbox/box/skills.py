"""Unpacks skills below the workspace and remembers which versions are there.

What arrives was checked when it was installed; it is checked again here, since whoever unpacks an archive answers for
where its members go. Needs the standard library alone, and imports what takes long to load only when it is used.
"""

from __future__ import annotations

import io
import os
import re
import threading
from typing import TYPE_CHECKING

from moorage_sandbox.box.shared.errors import BoxError, explained

if TYPE_CHECKING:
    import tarfile

MAX_ARCHIVE_BYTES = 16 * 1024 * 1024
MAX_UNPACKED_BYTES = 12 * 1024 * 1024
"""Of the tar: 10 MiB of files and a little for the headers of at most 200 of them."""
MAX_FILES = 200
MAX_ID_CHARS = 100

ID = re.compile(r"[a-z0-9]+(-+[a-z0-9]+)*")
DIGEST = re.compile(r"[0-9a-f]{64}")
MARKS = ".digests"
MARK_PREFIX = "sha256:"


def is_id(text: str) -> bool:
    return len(text) <= MAX_ID_CHARS and ID.fullmatch(text) is not None


class Skills:
    """`root` holds a directory for each skill, and beside them `.digests/<id>`: the archive it was made from.

    Also the init container of a pod is at work here, before the box: `moorage_sandbox.box.fetch_skills`.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._writing = threading.Lock()

    def digests(self) -> dict[str, str]:
        """By id; a skill whose directory is gone is not there, whatever is written about it."""
        found = {}
        marks = os.path.join(self._root, MARKS)
        try:
            names = os.listdir(marks)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        for name in names:
            if is_id(name) and os.path.isdir(os.path.join(self._root, name)):
                digest = _read_mark(os.path.join(marks, name)).removeprefix(MARK_PREFIX)
                if DIGEST.fullmatch(digest):
                    found[name] = digest
        return found

    def put(self, skill_id: str, digest: str, archive: bytes) -> None:
        """Put the archive's files in place of those of an older version. Raises BoxError, and then nothing changed."""
        import hashlib
        import shutil

        if not is_id(skill_id):
            raise BoxError("invalid", "The id of a skill is lower-case letters, digits and hyphens.")
        if hashlib.sha256(archive).hexdigest() != digest:
            raise BoxError("invalid", "The archive is not the one that the digest says.")
        files = unpacked(archive)
        shown = f".skills/{skill_id}"
        with self._writing, explained(shown):
            staged = os.path.join(self._root, f".new-{os.urandom(6).hex()}")
            os.makedirs(os.path.join(self._root, MARKS), exist_ok=True)
            try:
                _write(staged, files)
                self._swap(skill_id, staged)
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
            _write_mark(os.path.join(self._root, MARKS, skill_id), digest)

    def _swap(self, skill_id: str, staged: str) -> None:
        target = os.path.join(self._root, skill_id)
        mark = os.path.join(self._root, MARKS, skill_id)
        if os.path.lexists(mark):
            os.unlink(mark)  # first: a mark must never speak of files that are half replaced
        if os.path.lexists(target):
            aside = f"{staged}.old"
            os.rename(target, aside)
            os.rename(staged, target)
            _remove(aside)
        else:
            os.rename(staged, target)


def unpacked(archive: bytes) -> list[tuple[str, bool, bytes]]:
    """Path, whether it may be run, and content of each file. Raises BoxError for anything but plain files within."""
    import tarfile
    import zlib

    try:
        data = _inflated(archive)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            files = [_file(tar, member) for member in tar.getmembers() if not member.isdir()]
    except (tarfile.TarError, zlib.error, EOFError, OverflowError, ValueError) as error:
        raise BoxError("invalid", f"The archive cannot be read: {error}") from error
    if len(files) > MAX_FILES:
        raise BoxError("too_large", f"A skill has at most {MAX_FILES} files.")
    names = {name for name, _, _ in files}
    if len(names) < len(files):
        raise BoxError("invalid", "The archive holds a file twice.")
    if "SKILL.md" not in names:
        raise BoxError("invalid", "The archive has no SKILL.md.")
    return files


def _inflated(archive: bytes) -> bytes:
    import zlib

    inflater = zlib.decompressobj(wbits=31)
    data = inflater.decompress(archive, MAX_UNPACKED_BYTES)
    if inflater.unconsumed_tail:
        raise BoxError("too_large", f"The archive unfolds to more than {MAX_UNPACKED_BYTES >> 20} MiB.")
    if not inflater.eof or inflater.unused_data:
        raise BoxError("invalid", "The archive is cut off, or something follows it.")
    return data


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, bool, bytes]:
    parts = member.name.split("/")
    if not member.isreg() or member.issparse():
        raise BoxError("invalid", "The archive holds something that is no plain file.")
    if any(part in ("", ".", "..") for part in parts) or "\0" in member.name or "\\" in member.name:
        raise BoxError("invalid", "The archive holds a path that leads out of it.")
    content = tar.extractfile(member)
    if content is None:
        raise BoxError("invalid", "The archive holds something that is no plain file.")
    return member.name, bool(member.mode & 0o100), content.read()


def _write(root: str, files: list[tuple[str, bool, bytes]]) -> None:
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
    """Also a file or a link that the agent has put there. What cannot be removed is only litter."""
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


def _read_mark(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    with open(fd, "rb", buffering=0) as file:
        try:
            return (file.read(128) or b"").decode("ascii", "replace").strip()
        except OSError:
            return ""


def _write_mark(path: str, digest: str) -> None:
    temporary = f"{path}.{os.urandom(6).hex()}"
    with open(temporary, "x", encoding="ascii") as file:
        file.write(f"{MARK_PREFIX}{digest}")
    os.rename(temporary, path)
