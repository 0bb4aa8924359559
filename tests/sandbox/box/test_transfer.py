"""Files are transferred over the socket unchanged and completely, or not at all."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from sandbox.box.running import Refused, RunningBox
from support.waiting import block_until

MIB = 1024 * 1024


def contents(folder: Path) -> list[str]:
    return sorted(str(it.relative_to(folder)) for it in folder.rglob("*"))


def beginning_of_upload(path: str) -> bytes:
    """The request for a MiB, and the first kilobyte of it."""
    return json.dumps({"op": "file_write", "path": path, "size": MIB}).encode() + b"\n" + bytes(1000)


@pytest.mark.parametrize("size", [0, 1, 65536, 5 * MIB + 1])
def test_a_file_comes_back_unchanged(box: RunningBox, size: int) -> None:
    content = os.urandom(size)
    assert box.ask(content, op="file_write", path="a/b/c.bin", size=size)[0] == {"ok": True, "size": size}
    assert (box.workspace / "a/b/c.bin").read_bytes() == content
    assert box.ask(op="file_read", path="a/b/c.bin") == ({"ok": True, "size": size}, content)
    assert contents(box.workspace) == ["a", "a/b", "a/b/c.bin"]


def test_a_hundred_mebibytes_pass_and_one_byte_more_does_not(box: RunningBox) -> None:
    content = bytes(100 * MIB)
    box.ask(content, op="file_write", path="big", size=len(content))
    assert (box.workspace / "big").stat().st_size == 100 * MIB
    with pytest.raises(Refused) as refused:
        box.ask(content + b"x", op="file_write", path="bigger", size=len(content) + 1)
    assert refused.value.code == "too_large"
    assert contents(box.workspace) == ["big"]


def test_a_cut_off_upload_leaves_nothing(box: RunningBox) -> None:
    (box.workspace / "old.txt").write_text("old")
    for path in ("new.bin", "old.txt"):
        with box.connect() as connection:
            connection.sendall(
                json.dumps({"op": "file_write", "path": path, "size": MIB}).encode() + b"\n" + bytes(1000)
            )
            block_until(lambda: len(contents(box.workspace)) == 2, "the upload has begun")
        block_until(lambda: contents(box.workspace) == ["old.txt"], "its traces are gone")
    assert (box.workspace / "old.txt").read_text() == "old"


def test_an_upload_cut_off_by_the_end_of_the_box_leaves_nothing(box: RunningBox) -> None:
    with box.connect() as connection:
        connection.sendall(beginning_of_upload("a"))
        block_until(lambda: len(contents(box.workspace)) == 1, "the upload has begun")
        assert box.stop() == 0
    assert contents(box.workspace) == []


def test_readers_see_the_old_file_or_the_new_one(box: RunningBox) -> None:
    path = box.workspace / "a"
    path.write_bytes(b"a" * MIB)
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(10):
        box.ask(bytes([n]) * MIB, op="file_write", path="a", size=MIB)
    stop.set()
    reader.join()
    assert all(len(content) == MIB and len(set(content)) == 1 for content in seen)


def test_directories_devices_and_fifos_are_refused(box: RunningBox) -> None:
    os.mkfifo(box.workspace / "fifo")
    for path in ("fifo", "/dev/zero", "~"):
        for request in ({"op": "file_read", "path": path}, {"op": "file_write", "path": path, "size": 0}):
            with pytest.raises(Refused) as refused:
                box.ask(**request)
            assert refused.value.code == "not_a_file"
    with pytest.raises(Refused) as refused:
        box.ask(op="file_read", path="missing")
    assert refused.value.code == "not_found"


def test_files_of_proc_have_their_content(box: RunningBox) -> None:
    answer, content = box.ask(op="file_read", path="/proc/self/status")
    assert answer["size"] == len(content)
    assert b"VmRSS" in content


def test_a_file_that_cannot_be_read_is_named(box: RunningBox) -> None:
    """A process's memory can be opened, but reading its first page fails."""
    with pytest.raises(Refused) as refused:
        box.ask(op="file_read", path="/proc/self/mem")
    assert "/proc/self/mem" in refused.value.message


def test_a_full_disk_is_named(box: RunningBox) -> None:
    """A limit of the file size replaces a full disk: the kernel refuses the same write."""
    box.output(f"touch a; prlimit --fsize={MIB} --pid {box.process.pid}")
    with pytest.raises(Refused) as refused:
        box.ask(bytes(2 * MIB), op="file_write", path="b", size=2 * MIB)
    assert refused.value.code in ("no_space", "too_large")
    assert contents(box.workspace) == ["a"]


def test_a_file_is_owned_and_readable_as_usual(box: RunningBox) -> None:
    box.ask(b"x", op="file_write", path="a", size=1)
    assert box.output("stat -c '%a %U' a") == f"644 {box.output('id -un')}"
