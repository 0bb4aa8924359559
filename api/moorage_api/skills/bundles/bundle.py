"""The files of a skill in memory, and all rules about the files that a skill may have.

Every bundle is built by `BundleBuilder.add`, so the rules apply to every source.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from moorage_api.errors import SkillRefusedError, SkillTooLargeError
from moorage_api.skills.bundles.limits import (
    MAX_BUNDLE_BYTES,
    MAX_DEPTH,
    MAX_FILES,
    MAX_PATH_CHARS,
    MAX_SKILL_FILE_BYTES,
)
from moorage_api.text import check_storable

SKILL_MD = "SKILL.md"
IGNORED_DIRECTORIES = frozenset({".git", "__pycache__", "__MACOSX"})
IGNORED_FILES = frozenset({".DS_Store", "Thumbs.db"})
"""Files that operating systems create and that do not belong to a skill."""

EXECUTABLE_SUFFIXES = frozenset(
    {".exe", ".dll", ".so", ".dylib", ".msi", ".com", ".scr", ".sys", ".pyc", ".pyo", ".pyd", ".class", ".o", ".ko"}
    | {".deb", ".rpm", ".dmg", ".pkg", ".appimage", ".wasm"}
)
MACH_O = frozenset(
    {b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"}
)


@dataclass(frozen=True)
class Bundle:
    """`folder` is the name of the skill's directory. `files` maps sorted paths within it to their content."""

    folder: str
    files: Mapping[str, bytes]

    @property
    def skill_md(self) -> str:
        return self.files[SKILL_MD].decode()

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def with_skill_md(self, text: str) -> Bundle:
        """A copy with another SKILL.md. Raises SkillRefusedError and SkillTooLargeError."""
        builder = BundleBuilder(self.folder)
        for path, content in {**self.files, SKILL_MD: text.encode()}.items():
            builder.add(path, content)
        return builder.finish()


class BundleBuilder:
    """Collects files one at a time and refuses the first forbidden one."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[str, bytes] = {}
        self._size = 0

    def add(self, path: str, content: bytes) -> None:
        """Raises SkillRefusedError and SkillTooLargeError."""
        path = check_path(path)
        if is_ignored(path):
            return
        if path.lower() == SKILL_MD.lower():
            path = SKILL_MD
        check_size(path, len(content))
        self._size += len(content)
        if len(self._files) == MAX_FILES:
            raise SkillTooLargeError("too_many_files", f"A skill may have at most {MAX_FILES} files")
        if self._size > MAX_BUNDLE_BYTES:
            raise SkillTooLargeError(
                "bundle_too_large", f"All files of a skill together may have at most {MAX_BUNDLE_BYTES >> 20} MiB"
            )
        if path in self._files:
            raise SkillRefusedError("duplicate_path", f"The source contains {path} twice")
        if kind := executable_kind(path, content):
            raise SkillRefusedError(
                "executable", f"{path} is {kind}; a skill may contain scripts, but no compiled programs"
            )
        self._files[path] = content

    def finish(self) -> Bundle:
        """Check the rules that concern several files. Raises SkillRefusedError."""
        if SKILL_MD not in self._files:
            raise SkillRefusedError("no_skill_md", f"The directory does not contain {SKILL_MD}")
        try:
            check_storable(self._files[SKILL_MD].decode())
        except ValueError:  # UnicodeDecodeError is a ValueError
            raise SkillRefusedError("not_utf8", f"{SKILL_MD} must be UTF-8 text without NUL characters") from None
        for path in self._files:
            for parent in list(PurePosixPath(path).parents)[:-1]:
                if str(parent) in self._files:
                    raise SkillRefusedError(
                        "duplicate_path", f"The source contains {parent} as a file and as a directory"
                    )
        return Bundle(self._folder, dict(sorted(self._files.items())))


def check_size(path: str, size: int) -> None:
    """Raises SkillTooLargeError. Call it before reading the file, if the size is known."""
    if size > MAX_SKILL_FILE_BYTES:
        raise SkillTooLargeError(
            "file_too_large", f"{path} is larger than the limit of {MAX_SKILL_FILE_BYTES >> 10} KiB"
        )


def check_path(path: str) -> str:
    """Return the path. Raises SkillRefusedError if it leads out of the skill's directory or is hard to store."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise SkillRefusedError("traversal", f"The path {path[:200]!r} leads out of the skill's directory")
    if not path.isprintable() or any(0xD800 <= ord(character) <= 0xDFFF for character in path):
        raise SkillRefusedError("bad_path", f"The path {path[:200]!r} contains control or other special characters")
    if len(path.encode()) > MAX_PATH_CHARS or len(parts) > MAX_DEPTH:
        raise SkillRefusedError(
            "bad_path",
            f"The path {path[:80]}… has more than {MAX_PATH_CHARS} bytes or {MAX_DEPTH} levels",
        )
    return path


def is_ignored(path: str) -> bool:
    *folders, name = path.split("/")
    return name in IGNORED_FILES or not IGNORED_DIRECTORIES.isdisjoint(folders)


def executable_kind(path: str, content: bytes) -> str | None:
    """The kind of compiled program, by content and then by name; None for all other files, including scripts."""
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
    """Whether the file starts with `#!`."""
    return content.startswith(b"#!")
