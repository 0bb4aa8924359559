"""The functions of files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sandbox.box.running import Refused, RunningBox


def write(box: RunningBox, name: str, content: str | bytes) -> Path:
    path = box.workspace / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(box: RunningBox, function: str, **args: Any) -> str:
    with pytest.raises(Refused) as refused:
        box.call(function, **args)
    return refused.value.code


LINES = "zero\none\ntwo\nthree\n"
READS: dict[str, tuple[str, dict[str, Any], str, int, bool]] = {
    "whole": (LINES, {}, LINES, 4, False),
    "from a line": (LINES, {"start_line": 2}, "two\nthree\n", 4, False),
    "up to but without a line": (LINES, {"end_line": 2}, "zero\none\n", 4, False),
    "between": (LINES, {"start_line": 1, "end_line": 3}, "one\ntwo\n", 4, False),
    "none": (LINES, {"start_line": 1, "end_line": 1}, "", 4, False),
    "behind the end": (LINES, {"start_line": 9}, "", 4, False),
    "beyond the end": (LINES, {"start_line": 3, "end_line": 9}, "three\n", 4, False),
    "cut": (LINES, {"max_length": 6}, "zero\no", 4, True),
    "without a last newline": ("a\nb", {}, "a\nb", 2, False),
    "empty": ("", {}, "", 0, False),
    "byte order mark": ("\ufeffa\n", {}, "a\n", 1, False),
    "line ends of DOS": ("a\r\nb\r\n", {"start_line": 1}, "b\r\n", 2, False),
    "characters, not bytes": ("你好世界\n", {"max_length": 2}, "你好", 1, True),
    "a line over many blocks": ("x" * 3_000_000 + "\nend\n", {"start_line": 1}, "end\n", 2, False),
    "a line far behind": ("x\n" * 2_000_000 + "end\n", {"start_line": 2_000_000}, "end\n", 2_000_001, False),
}


@pytest.mark.parametrize(("content", "args", "shown", "lines", "truncated"), READS.values(), ids=READS)
def test_a_file_is_read_by_lines(
    shared_box: RunningBox, content: str, args: dict[str, Any], shown: str, lines: int, truncated: bool
) -> None:
    write(shared_box, "a.txt", content)
    assert shared_box.call("read_file", filepath="a.txt", **args) == {
        "content": shown,
        "total_lines": lines,
        "truncated": truncated,
    }


def test_a_long_file_is_cut_at_the_default_length(shared_box: RunningBox) -> None:
    write(shared_box, "a.txt", "word " * 100_000)
    read = shared_box.call("read_file", filepath="a.txt")
    assert (len(read["content"]), read["truncated"]) == (20_000, True)


def test_text_that_is_not_utf8_is_read_with_replacement_characters(shared_box: RunningBox) -> None:
    write(shared_box, "a.txt", b"caf\xe9\n")
    assert shared_box.call("read_file", filepath="a.txt")["content"] == "caf\ufffd\n"


def test_a_range_that_ends_before_it_begins_is_refused(shared_box: RunningBox) -> None:
    write(shared_box, "a.txt", LINES)
    assert refusal(shared_box, "read_file", filepath="a.txt", start_line=3, end_line=1) == "invalid"


def test_a_binary_file_is_refused_with_a_hint(shared_box: RunningBox) -> None:
    write(shared_box, "a.bin", b"\x7fELF\x02\x01\x01\0\0\0")
    with pytest.raises(Refused) as refused:
        shared_box.call("read_file", filepath="a.bin")
    assert refused.value.code == "invalid"
    assert "binary" in refused.value.message
    assert refusal(shared_box, "replace_in_file", filepath="a.bin", old_str="ELF", new_str="x") == "invalid"
    assert refusal(shared_box, "search_in_file", filepath="a.bin", regex="ELF") == "invalid"


def test_devices_and_fifos_neither_block_nor_fill_the_memory(box: RunningBox) -> None:
    os.mkfifo(box.workspace / "fifo")
    (box.workspace / "folder").mkdir()
    box.output("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("read_file", {}),
        ("write_file", {"content": "x"}),
        ("write_file", {"content": "x", "append": True}),
        ("replace_in_file", {"old_str": "a", "new_str": "b"}),
        ("search_in_file", {"regex": "a"}),
    ]
    for path in ("fifo", "folder", "socket", "/dev/zero", "/dev/full"):
        for function, more in calls:
            assert refusal(box, function, filepath=path, timeout=5, **more) == "not_a_file", (function, path)


@pytest.mark.parametrize("path", ["missing", "~/missing", "a.txt/below", "missing/below"])
def test_a_missing_file_is_not_found(shared_box: RunningBox, path: str) -> None:
    write(shared_box, "a.txt", "")
    assert refusal(shared_box, "read_file", filepath=path) == "not_found"
    assert refusal(shared_box, "search_in_file", filepath=path, regex="x") == "not_found"
    assert refusal(shared_box, "replace_in_file", filepath=path, old_str="x", new_str="y") == "not_found"


def test_links_that_lead_in_a_circle_are_refused(shared_box: RunningBox) -> None:
    (shared_box.workspace / "loop").symlink_to("loop")
    assert refusal(shared_box, "read_file", filepath="loop") == "invalid"


def test_a_file_is_written_with_its_folders_and_read_back(shared_box: RunningBox) -> None:
    written = shared_box.call("write_file", filepath="new/folder/a.txt", content="ä\n")
    assert written == {"filepath": str(shared_box.workspace / "new/folder/a.txt"), "size": 3}
    assert shared_box.call("read_file", filepath="~/workspace/new/folder/a.txt")["content"] == "ä\n"


def test_newlines_are_added_where_asked(shared_box: RunningBox) -> None:
    shared_box.call("write_file", filepath="a", content="1", trailing_newline=True)
    shared_box.call("write_file", filepath="a", content="2", append=True)
    shared_box.call("write_file", filepath="a", content="3", append=True, leading_newline=True, trailing_newline=True)
    assert (shared_box.workspace / "a").read_text() == "1\n2\n3\n"
    shared_box.call("write_file", filepath="a", content="")
    assert (shared_box.workspace / "a").read_text() == ""


def test_an_overwritten_file_keeps_its_mode_and_its_links(shared_box: RunningBox) -> None:
    script = write(shared_box, "run.sh", "old")
    script.chmod(0o750)
    (shared_box.workspace / "link").symlink_to("run.sh")
    shared_box.call("write_file", filepath="link", content="new")
    assert (shared_box.workspace / "link").is_symlink()
    assert (script.read_text(), stat.S_IMODE(script.stat().st_mode)) == ("new", 0o750)
    shared_box.call("replace_in_file", filepath="run.sh", old_str="new", new_str="newer")
    assert (script.read_text(), stat.S_IMODE(script.stat().st_mode)) == ("newer", 0o750)


def test_every_occurrence_is_replaced_and_nothing_else_changes(shared_box: RunningBox) -> None:
    path = write(shared_box, "a.txt", b"one two\r\none\xff\r\n")
    assert shared_box.call("replace_in_file", filepath="a.txt", old_str="one", new_str="1") == {
        "filepath": str(path),
        "replacements": 2,
    }
    assert path.read_bytes() == b"1 two\r\n1\xff\r\n"


def test_an_impossible_replacement_is_an_error_with_its_reason(shared_box: RunningBox) -> None:
    path = write(shared_box, "a.txt", "text")
    with pytest.raises(Refused) as refused:
        shared_box.call("replace_in_file", filepath="a.txt", old_str="Text", new_str="x")
    assert refused.value.code == "not_found"
    assert "exactly" in refused.value.message
    assert refusal(shared_box, "replace_in_file", filepath="a.txt", old_str="", new_str="x") == "invalid"
    assert path.read_text() == "text"


def test_a_replacement_that_makes_the_file_too_large_is_refused(shared_box: RunningBox) -> None:
    path = write(shared_box, "a.txt", "x" * 1000)
    assert refusal(shared_box, "replace_in_file", filepath="a.txt", old_str="x", new_str="y" * 100_000) == "too_large"
    assert path.stat().st_size == 1000


def test_lines_that_match_are_found(shared_box: RunningBox) -> None:
    write(shared_box, "a.py", "import os\n\ndef größe(x):\n    return x\ndef other():\n")
    assert shared_box.call("search_in_file", filepath="a.py", regex=r"def (\w+)") == {
        "matches": [{"line": 2, "text": "def größe(x):"}, {"line": 4, "text": "def other():"}],
        "truncated": False,
    }
    assert shared_box.call("search_in_file", filepath="a.py", regex="größe$|nothing")["matches"] == []


def test_matches_are_bounded_in_number_and_length(shared_box: RunningBox) -> None:
    write(shared_box, "a.txt", ("y" * 5000 + "x" + "z" * 5000 + "\n") * 300)
    found = shared_box.call("search_in_file", filepath="a.txt", regex="x")
    assert (len(found["matches"]), found["truncated"]) == (200, True)
    assert len(found["matches"][7]["text"]) == 500
    assert "x" in found["matches"][7]["text"]


def test_a_bad_regular_expression_is_explained(shared_box: RunningBox) -> None:
    write(shared_box, "a.txt", "x")
    with pytest.raises(Refused) as refused:
        shared_box.call("search_in_file", filepath="a.txt", regex="(unclosed")
    assert refused.value.code == "invalid"
    assert "unterminated" in refused.value.message


def test_a_regular_expression_that_never_ends_is_stopped(shared_box: RunningBox) -> None:
    write(shared_box, "a.txt", "a" * 40 + "!\n")
    assert refusal(shared_box, "search_in_file", filepath="a.txt", regex="^(a+)+$", timeout=1) == "timeout"
    assert shared_box.output("ps -eo args | grep -c '[s]earch.py' || true") == "0"


def test_an_endless_line_is_searched_in_parts(shared_box: RunningBox) -> None:
    write(shared_box, "a.txt", "x" * 30_000_000 + "needle\nneedle\n")
    found = shared_box.call("search_in_file", filepath="a.txt", regex="needle")
    assert [it["line"] for it in found["matches"]] == [0, 1]


TREE = ["a.py", "b.txt", "src/c.py", "src/deep/er/d.py", "src/.hidden/e.py", ".git/f.py", "[x].py"]
PATTERNS = {
    "*.py": ["[x].py", "a.py"],
    "**/*.py": ["[x].py", "a.py", "src/c.py", "src/deep/er/d.py"],
    "src/**": ["src/c.py", "src/deep/er/d.py"],
    "src/*/*/*.py": ["src/deep/er/d.py"],
    "**/deep/**/d.*": ["src/deep/er/d.py"],
    "src/.hidden/*": ["src/.hidden/e.py"],
    "?.[pt]*": ["a.py", "b.txt"],
    "[[]x].py": ["[x].py"],
    "./src//c.py": ["src/c.py"],
    "**/**/**/**/d.py": ["src/deep/er/d.py"],
    "nothing": [],
}


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS.items(), ids=PATTERNS)
def test_files_are_found_by_pattern(shared_box: RunningBox, pattern: str, expected: list[str]) -> None:
    for name in TREE:
        path = shared_box.workspace / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    link = shared_box.workspace / "tree" / "src" / "up"
    if not link.is_symlink():
        link.symlink_to("..")
    found = shared_box.call("find_files", dir_path="~/workspace/tree", glob_pattern=pattern)
    names = [str(Path(it).relative_to(shared_box.workspace / "tree")) for it in found["files"]]
    assert [name for name in names if name != "src/up"] == expected
    assert not found["truncated"]


@pytest.mark.parametrize("pattern", ["/etc/*", "../*", "", "a/../../b"])
def test_a_pattern_that_leaves_the_folder_is_refused(shared_box: RunningBox, pattern: str) -> None:
    assert refusal(shared_box, "find_files", dir_path=".", glob_pattern=pattern) == "invalid"


def test_found_files_are_bounded_and_odd_names_survive(box: RunningBox) -> None:
    for n in range(1200):
        (box.workspace / f"{n}.txt").touch()
    found = box.call("find_files", dir_path=".", glob_pattern="*.txt")
    assert (len(found["files"]), found["truncated"]) == (1000, True)
    Path(os.fsdecode(bytes(box.workspace) + b"/odd\xff\n.md")).touch()
    assert box.call("find_files", dir_path=".", glob_pattern="*.md")["files"] == [f"{box.workspace}/odd\ufffd\n.md"]


def test_a_missing_folder_is_not_found(shared_box: RunningBox) -> None:
    assert refusal(shared_box, "find_files", dir_path="missing", glob_pattern="*") == "not_found"
    write(shared_box, "a.txt", "")
    assert refusal(shared_box, "find_files", dir_path="a.txt", glob_pattern="*") == "invalid"
