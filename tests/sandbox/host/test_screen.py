"""The vnc process alone, as in a pod: with a read-only root, an unprivileged user and no TCP port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import moorage_sandbox
from support.ordinary_user import ORDINARY_UID
from support.waiting import HANG_SECONDS, block_until

PACKAGES = [Path(moorage_sandbox.__file__).parents[1] / name for name in ("moorage_common", "moorage_sandbox")]


@contextmanager
def vnc(directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Its /tmp and its socket are in `directory`, which outlives it as a pod's volumes outlive a container.

    The code is copied there: this user may be unable to read the checkout.
    """
    code = directory / "code"
    for package in PACKAGES:
        shutil.copytree(package, code / package.name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for path in (code, *code.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    for name in ("tmp", "rfb"):
        (directory / name).mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(directory / name, ORDINARY_UID, ORDINARY_UID)
    drop = ["setpriv", f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups"]
    mounts = ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/etc", "/etc"]
    for name in ("bin", "lib", "lib64", "sbin"):
        mounts += ["--symlink", f"usr/{name}", f"/{name}"]
    mounts += ["--dir", "/run/moorage/vnc", "--ro-bind", str(code), "/opt"]
    mounts += ["--bind", str(directory / "tmp"), "/tmp", "--bind", str(directory / "rfb"), "/run/moorage/vnc"]
    process = subprocess.Popen(
        [
            *(drop if os.geteuid() == 0 else []),
            *("bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", *mounts, "--remount-ro", "/"),
            *("--chdir", "/opt", "--setenv", "PYTHONPATH", "/opt"),
            *("/usr/bin/python3", "-B", "-m", "moorage_sandbox.vnc", *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def directory(short_directory: Path) -> Path:
    short_directory.chmod(0o755)
    return short_directory


def size_of_screen(path: Path) -> tuple[int, int] | None:
    """Do the RFB handshake without a password, and return the ServerInit message (RFC 6143, section 7)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        if client.connect_ex(str(path)) != 0:
            return None
        stream = client.makefile("rwb")
        stream.write(stream.read(12))
        stream.flush()
        assert 1 in stream.read(stream.read(1)[0])
        stream.write(b"\x01")
        stream.flush()
        assert stream.read(4) == b"\0\0\0\0"
        stream.write(b"\x01")
        stream.flush()
        width, height = stream.read(2), stream.read(2)
        return int.from_bytes(width, "big"), int.from_bytes(height, "big")


def test_a_screen_of_the_wanted_size_is_served_only_on_the_socket(directory: Path) -> None:
    with vnc(directory, "--geometry", "800x600") as process:
        size = block_until(lambda: size_of_screen(directory / "rfb" / "rfb.sock"), "RFB answers")
        assert size == (800, 600)
        [server] = [one for one in psutil.Process(process.pid).children(recursive=True) if "vnc" in one.name()]
        assert Path(f"/proc/{server.pid}/net/tcp").read_text().count("\n") == 1


def test_viewers_that_disconnect_early_do_not_block_others(directory: Path) -> None:
    """All viewers have the same address, so Xvnc's list of failed hosts would block the session's own user."""
    with vnc(directory):
        socket_path = directory / "rfb" / "rfb.sock"
        block_until(lambda: size_of_screen(socket_path), "RFB answers")
        for _ in range(8):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(socket_path))
                assert client.recv(12) == b"RFB 003.008\n"
        assert size_of_screen(socket_path) is not None


def test_a_screen_starts_although_a_killed_one_left_its_files(directory: Path) -> None:
    for _ in range(2):
        with vnc(directory, "--display", ":3"):
            block_until(lambda: size_of_screen(directory / "rfb" / "rfb.sock"), "RFB answers")
        assert (directory / "tmp" / ".X3-lock").exists()
        assert (directory / "rfb" / "rfb.sock").exists()


@pytest.mark.parametrize("options", [["--display", "3"], ["--geometry", "big"], ["--display", ":1 -rfbport 5900"]])
def test_invalid_options_are_refused(directory: Path, options: list[str]) -> None:
    with vnc(directory, *options) as process:
        assert process.wait(timeout=HANG_SECONDS) == 2
