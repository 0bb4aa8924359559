"""The functions of files."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from moorage_sandbox.box.files.finding import find_paths
from moorage_sandbox.box.files.opening import open_regular, read_bytes, require_regular, require_text
from moorage_sandbox.box.files.pictures import describe_picture, read_picture
from moorage_sandbox.box.files.writing import replace_file, write_all
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcesses, read_output

SEARCH_PROGRAM = os.path.join(os.path.dirname(__file__), "search.py")
MAX_SEARCH_SECONDS = 10

MAX_READ_BYTES = 256 * 1024 * 1024
MAX_EDIT_BYTES = 32 * 1024 * 1024
DEFAULT_LENGTH = 20_000
MAX_LENGTH = 1_000_000
MAX_FOUND = 1000


class Files:
    def __init__(self, *, children: ChildProcesses, paths: Paths) -> None:
        self._children = children
        self._paths = paths

    def read_file(
        self,
        deadline: Deadline,
        *,
        filepath: str,
        start_line: int = 0,
        end_line: int | None = None,
        max_length: int = DEFAULT_LENGTH,
    ) -> dict[str, Any]:
        """Return lines `start_line` (counted from 0) to `end_line` (excluded), at most `max_length` characters.

        Of a picture it returns the kind and the size.
        """
        if end_line is not None and end_line < start_line:
            raise BoxError("invalid", "read_file: 'end_line' must not be before 'start_line' (both count from 0).")
        wanted = bytearray()
        limit = 4 * min(max_length, MAX_LENGTH) + 4
        line = 0
        size = 0
        ends_in_newline = True
        with open_regular(self._paths.resolve(filepath), filepath) as file, translate_os_errors(filepath):
            while block := file.read(1 << 20):
                if size == 0:
                    if picture := describe_picture(block, os.fstat(file.fileno()).st_size):
                        return {"content": "", "total_lines": 0, "truncated": False, "picture": picture}
                    require_text(block, filepath)
                size += len(block)
                deadline.check("Reading")
                if size > MAX_READ_BYTES:
                    message = (
                        f"{filepath} has more than {MAX_READ_BYTES >> 20} MiB. Use the shell (head, sed, grep, …)."
                    )
                    raise BoxError("too_large", message)
                newlines = block.count(b"\n")
                if len(wanted) < limit and line + newlines >= start_line and (end_line is None or line < end_line):
                    wanted += _cut_lines(block, start_line - line, None if end_line is None else end_line - line)
                    del wanted[limit:]
                line += newlines
                ends_in_newline = block.endswith(b"\n")
        content = wanted.decode("utf-8-sig" if start_line == 0 else "utf-8", "replace")
        cut = content[: min(max_length, MAX_LENGTH)]
        return {
            "content": cut,
            "total_lines": line + (0 if ends_in_newline else 1),
            "truncated": len(cut) < len(content),
        }

    def read_picture(self, deadline: Deadline, *, filepath: str, max_bytes: int, max_pixels: int) -> dict[str, Any]:
        """Return a picture as base64, scaled down to the limits. No model calls this."""
        path = self._paths.resolve(filepath)
        return read_picture(
            path, filepath, deadline, children=self._children, max_bytes=max_bytes, max_pixels=max_pixels
        )

    def write_file(
        self,
        deadline: Deadline,
        *,
        filepath: str,
        content: str,
        append: bool = False,
        leading_newline: bool = False,
        trailing_newline: bool = False,
    ) -> dict[str, Any]:
        path = self._paths.resolve(filepath)
        data = ("\n" * leading_newline + content + "\n" * trailing_newline).encode()
        if not append:
            with replace_file(path, filepath) as file:
                write_all(file, data, filepath)
        else:
            with translate_os_errors(filepath):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
                with open(os.open(path, flags, 0o666), "ab", buffering=0) as file:
                    require_regular(os.fstat(file.fileno()), filepath)
                    write_all(file, data, filepath)
        with translate_os_errors(filepath):
            return {"filepath": path, "size": os.stat(path).st_size}

    def replace_in_file(self, deadline: Deadline, *, filepath: str, old_str: str, new_str: str) -> dict[str, Any]:
        """Replace every occurrence. It compares bytes, so line ends and unknown encodings stay unchanged."""
        if not old_str:
            raise BoxError("invalid", "replace_in_file: 'old_str' must not be empty.")
        path = self._paths.resolve(filepath)
        before = read_bytes(path, filepath, limit=MAX_EDIT_BYTES)
        require_text(before, filepath)
        old, new = old_str.encode(), new_str.encode()
        count = before.count(old)
        if not count:
            raise BoxError(
                "not_found",
                f"{filepath} does not contain 'old_str'. It must match exactly, with spaces and line ends.",
            )
        if len(before) + count * (len(new) - len(old)) > MAX_EDIT_BYTES:
            message = f"{filepath} would have more than {MAX_EDIT_BYTES >> 20} MiB. Use the shell (sed, …)."
            raise BoxError("too_large", message)
        with replace_file(path, filepath) as file:
            write_all(file, before.replace(old, new), filepath)
        return {"filepath": path, "replacements": count}

    def search_in_file(self, deadline: Deadline, *, filepath: str, regex: str) -> dict[str, Any]:
        """Return matching lines, counted from 0. Runs in its own process, because only a kill can stop a regex."""
        path = self._paths.resolve(filepath)
        with open_regular(path, filepath) as file, translate_os_errors("The search"):
            output, output_write = os.pipe()
            try:
                child = self._children.spawn(
                    [sys.executable, "-I", "-S", SEARCH_PROGRAM, regex], env={}, fds={0: file.fileno(), 1: output_write}
                )
            finally:
                os.close(output_write)
        with open(output, "rb", buffering=0) as reader:
            limit = deadline.within(MAX_SEARCH_SECONDS)
            answer = read_output(reader.fileno(), limit)
        child.signal(signal.SIGKILL)
        if answer is None:
            raise BoxError(
                "timeout",
                f"The search took longer than {limit.seconds:g} s. Simplify the regular expression or use grep.",
            )
        try:
            result = json.loads(answer)
        except ValueError as error:
            message = f"{filepath} cannot be searched with the memory that a search may use. Use grep in the shell."
            raise BoxError("limit", message) from error
        if "error" in result:
            raise BoxError(result["error"], f"{filepath}: {result['message']}")
        found: dict[str, Any] = result
        return found

    def find_files(self, deadline: Deadline, *, dir_path: str, glob_pattern: str) -> dict[str, Any]:
        """Return files below `dir_path`. `**` matches any number of folders; hidden names need a literal dot."""
        root = os.path.normpath(self._paths.resolve(dir_path))
        with translate_os_errors(dir_path):
            if not os.path.isdir(root):
                os.stat(root)
                raise BoxError("invalid", f"{dir_path} is not a directory.")
        files, truncated = find_paths(root, glob_pattern, most=MAX_FOUND, deadline=deadline.within(MAX_SEARCH_SECONDS))
        return {"files": files, "truncated": truncated}


def _cut_lines(block: bytes, first: int, end: int | None) -> bytes:
    """Return lines `first` to `end` (excluded) of `block`. Its first line is 0; negative numbers are before it."""
    start = _find_line(block, first)
    return block[start:] if end is None else block[start : _find_line(block, end)]


def _find_line(block: bytes, line: int) -> int:
    """Return the offset where line `line` starts in `block`, or the length of `block` if it starts later."""
    position = 0
    for _ in range(line):
        position = block.find(b"\n", position) + 1
        if position == 0:
            return len(block)
    return position
