"""Files in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moorage_api.agent.ports import Attachments, Gate, Picture, ToolCall
from moorage_api.agent.toolsets.function_schema import flag, function, number, text
from moorage_api.agent.toolsets.sandbox import SandboxToolset

PATH = text("Absolute path of the file, below /home/ubuntu")

FUNCTIONS = [
    function(
        "read_file",
        "Read a text file, all of it or some of its lines; or look at a picture (PNG, JPEG, GIF, WebP).",
        {"filepath": PATH},
        {
            "start_line": number("First line, counted from 0"),
            "end_line": number("Line to stop before"),
            "max_length": number("Most characters to read"),
        },
        read_only=True,
        is_remembered=True,
    ),
    function(
        "write_file",
        "Write a text file, or append to one. Missing directories are created.",
        {"filepath": PATH, "content": text("The text to write")},
        {
            "append": flag("Whether to append to the existing file; false if left out"),
            "leading_newline": flag("Whether to write a line break before the text"),
            "trailing_newline": flag("Whether to write a line break after the text"),
        },
        is_remembered=True,
    ),
    function(
        "replace_in_file",
        "Replace every occurrence of a text in a file.",
        {
            "filepath": PATH,
            "old_str": text("The text to find, exactly as it is in the file"),
            "new_str": text("The text to put in its place"),
        },
        is_remembered=True,
    ),
    function(
        "search_in_file",
        "Find the lines of a file that match a regular expression.",
        {"filepath": PATH, "regex": text("The expression, as in Python")},
        read_only=True,
        is_remembered=True,
    ),
    function(
        "find_files",
        "Find files by name below a directory.",
        {
            "dir_path": text("Absolute path of the directory, below /home/ubuntu"),
            "glob_pattern": text("Such as *.csv or **/*.py"),
        },
        read_only=True,
        is_remembered=True,
    ),
]


class FileToolset(SandboxToolset):
    def __init__(self, gate: Gate, attachments: Attachments) -> None:
        super().__init__(gate, attachments, FUNCTIONS)

    @property
    def name(self) -> Literal["file"]:
        return "file"

    def _render_for_model(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        cut = "\n[there is more]" if result.get("truncated") else ""
        match call.function:
            case "read_file" if "picture" in result:
                return _describe_picture(result["picture"])
            case "read_file":
                total = f"\n[{result['total_lines']} lines in all]" if cut and "total_lines" in result else ""
                return f"{result.get('content', '')}{cut}{total}"
            case "write_file":
                return f"Written: {result.get('filepath')} ({result.get('size')} bytes)"
            case "replace_in_file":
                return f"Replaced {result.get('replacements')} times in {result.get('filepath')}"
            case "search_in_file":
                lines = [f"{match.get('line')}: {match.get('text')}" for match in result.get("matches", ())]
                return ("\n".join(lines) or "No line matches.") + cut
            case _:
                return ("\n".join(result.get("files", ())) or "No files found.") + cut

    def _whole_in(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        return str(call.args.get("filepath", "")) if call.function == "read_file" else ""

    async def _look(self, call: ToolCall, result: Mapping[str, Any]) -> Sequence[Picture]:
        if "picture" not in result:
            return ()
        return (await self._attachments.read_picture(str(call.args["filepath"]), key=f"{call.key}.picture"),)

    async def _event_content(self, call: ToolCall, result: Mapping[str, Any]) -> dict[str, Any]:
        written = call.args.get("content") if call.function == "write_file" else None
        text, key = await self._store_if_long(self._render_for_model(call, result) if written is None else str(written))
        return {"content": text} | ({"content_key": key} if key is not None else {})


def _describe_picture(picture: Mapping[str, Any]) -> str:
    kind = str(picture["media_type"]).rpartition("/")[2].upper()
    size = f" of {picture['width']}x{picture['height']} pixels" if "width" in picture else ""
    return f"A {kind} picture{size}, {picture['size']} bytes."
