"""Long outputs of commands are kept as files in the sandbox, and the result names them."""

from __future__ import annotations

import os
from pathlib import Path

from moorage_sandbox.box.shell.kept_output import FOLDER, MAX_FILES
from sandbox.box.running import RunningBox


def test_a_long_output_is_kept_whole_in_a_file(box: RunningBox) -> None:
    result = box.run("seq 1 100000")
    assert result["truncated"] is True
    assert Path(result["output_file"]).read_text() == "".join(f"{number}\n" for number in range(1, 100_001))
    assert Path(result["output_file"]).is_relative_to(box.home / FOLDER)


def test_the_file_holds_what_a_running_command_has_printed_so_far(box: RunningBox) -> None:
    result = box.run("seq 1 5000; read line; echo $line", timeout=5)
    assert result["status"] == "running"
    assert Path(result["output_file"]).read_text().splitlines()[-1] == "5000"


def test_a_short_output_needs_no_file(box: RunningBox) -> None:
    assert "output_file" not in box.run("seq 1 1000")
    assert not (box.home / FOLDER).exists()


def test_only_the_newest_files_are_kept(box: RunningBox) -> None:
    (box.home / FOLDER).mkdir(parents=True)
    for number in range(MAX_FILES + 5):
        path = box.home / FOLDER / f"{number}.txt"
        path.write_text("old")
        os.utime(path, (number, number))
    result = box.run("seq 1 5000")
    names = {path.name for path in (box.home / FOLDER).iterdir()}
    assert len(names) == MAX_FILES
    assert {Path(result["output_file"]).name, f"{MAX_FILES + 4}.txt"} < names
    assert "0.txt" not in names


def test_an_output_that_cannot_be_kept_is_still_answered(box: RunningBox) -> None:
    (box.home / ".cache").write_text("a file where the directory should be")
    result = box.run("seq 1 5000")
    assert result["exit_code"] == 0
    assert "output_file" not in result
    assert result["output"].endswith("5000")
