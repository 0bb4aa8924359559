"""The files of a skill in memory, and every rule about which files a skill may have.

A bundle is made by `BundleBuilder.add` alone, whatever its source, so that a rule holds for all of them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from moorage_api.errors import SkillRefusedError, SkillTooLargeError
from moorage_api.skills.bundles.limits import MAX_BUNDLE_BYTES, MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_PATH_CHARS
from moorage_api.text import check_storable

SKILL_MD = "SKILL.md"
IGNORED_DIRECTORIES = frozenset({".git", "__pycache__", "__MACOSX"})
IGNORED_FILES = frozenset({".DS_Store", "Thumbs.db"})
"""What tools leave behind and nobody means to install."""

EXECUTABLE_SUFFIXES = frozenset(
    {".exe", ".dll", ".so", ".dylib", ".msi", ".com", ".scr", ".sys", ".pyc", ".pyo", ".pyd", ".class", ".o", ".ko"}
    | {".deb", ".rpm", ".dmg", ".pkg", ".appimage", ".wasm"}
)
MACH_O = frozenset(
    {b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"}
)


@dataclass(frozen=True)
class Bundle:
    """`folder` is the name of the directory it came from; `files` maps paths within it, sorted, to their bytes."""

    folder: str
    files: Mapping[str, bytes]

    @property
    def skill_md(self) -> str:
        return self.files[SKILL_MD].decode()

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def with_skill_md(self, text: str) -> Bundle:
        """With another SKILL.md, which is then the stored one. Raises SkillRefusedError and SkillTooLargeError."""
        builder = BundleBuilder(self.folder)
        for path, content in {**self.files, SKILL_MD: text.encode()}.items():
            builder.add(path, content)
        return builder.finish()


class BundleBuilder:
    """Takes files one at a time and refuses the first that may not be there."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[str, bytes] = {}
        self._size = 0

    @property
    def has_files(self) -> bool:
        return bool(self._files)

    def add(self, path: str, content: bytes) -> None:
        """Raises SkillRefusedError and SkillTooLargeError."""
        path = checked_path(path)
        if is_ignored(path):
            return
        if path.lower() == SKILL_MD.lower():
            path = SKILL_MD
        check_size(path, len(content))
        self._size += len(content)
        if len(self._files) == MAX_FILES:
            raise SkillTooLargeError("too_many_files", f"A skill has at most {MAX_FILES} files")
        if self._size > MAX_BUNDLE_BYTES:
            raise SkillTooLargeError("bundle_too_large", f"A skill has at most {MAX_BUNDLE_BYTES >> 20} MiB in all")
        if path in self._files:
            raise SkillRefusedError("duplicate_path", f"{path} is there twice")
        if kind := executable_kind(path, content):
            raise SkillRefusedError("executable", f"{path} is {kind}; scripts are fine, compiled programs are not")
        self._files[path] = content

    def finish(self) -> Bundle:
        """Raises SkillRefusedError for what is only seen when all files are there."""
        if SKILL_MD not in self._files:
            raise SkillRefusedError("no_skill_md", f"There is no {SKILL_MD} in this directory")
        try:
            check_storable(self._files[SKILL_MD].decode())
        except ValueError:  # of which a UnicodeDecodeError is one
            raise SkillRefusedError("not_utf8", f"{SKILL_MD} is not plain UTF-8 text") from None
        for path in self._files:
            for parent in list(PurePosixPath(path).parents)[:-1]:
                if str(parent) in self._files:
                    raise SkillRefusedError("duplicate_path", f"{parent} is a file and a directory")
        return Bundle(self._folder, dict(sorted(self._files.items())))


def check_size(path: str, size: int) -> None:
    """Before the file is read, where its size is known. Raises SkillTooLargeError."""
    if size > MAX_FILE_BYTES:
        raise SkillTooLargeError("file_too_large", f"{path} has more than {MAX_FILE_BYTES >> 10} KiB")


def checked_path(path: str) -> str:
    """A path below the skill's directory. Raises SkillRefusedError for one that leads elsewhere or is hard to store."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise SkillRefusedError("traversal", f"The path {path[:200]!r} leads out of the skill")
    if not path.isprintable() or any(0xD800 <= ord(character) <= 0xDFFF for character in path):
        raise SkillRefusedError("bad_path", f"The path {path[:200]!r} holds characters that not every system can store")
    if len(path.encode()) > MAX_PATH_CHARS or len(parts) > MAX_DEPTH:
        raise SkillRefusedError("bad_path", f"The path {path[:80]}… is too long or too deep")
    return path


def is_ignored(path: str) -> bool:
    *folders, name = path.split("/")
    return name in IGNORED_FILES or not IGNORED_DIRECTORIES.isdisjoint(folders)


def executable_kind(path: str, content: bytes) -> str | None:
    """What kind of compiled program a file is, by its content first; None for everything else, scripts included."""
    if content.startswith(b"\x7fELF"):
        return "a Linux program"
    if content.startswith(b"MZ") and len(content) >= 64:
        (offset,) = struct.unpack_from("<I", content, 60)
        if content[offset : offset + 4] == b"PE\0\0":
            return "a Windows program"
    if content[:4] in MACH_O:
        return "a macOS program or Java class"
    if content.startswith(b"\0asm"):
        return "a WebAssembly module"
    name = path.rpartition("/")[2].lower()
    suffix = PurePosixPath(name).suffix
    if suffix in EXECUTABLE_SUFFIXES or ".so." in name:
        return f"a {suffix or '.so'} file"
    return None


def is_script(content: bytes) -> bool:
    """Whether the system would run it by its first line."""
    return content.startswith(b"#!")
