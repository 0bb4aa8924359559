"""Fixtures: a box for each test, and for browser tests a screen, web pages and one box for each module."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.box.pages import Site, running_site
from sandbox.box.running import RunningBox, running_box
from support.waiting import HANG_SECONDS

XVNC_FLAGS = ["-nolisten", "tcp", "-SecurityTypes", "None", "-geometry", "1280x1024", "-depth", "24", "-ac"]


def _directory() -> tempfile.TemporaryDirectory[str]:
    """A directory with a short path, for Unix sockets. Chromium may still write to its profile while it is removed."""
    return tempfile.TemporaryDirectory(prefix="mb", ignore_cleanup_errors=True)


@pytest.fixture
def box() -> Iterator[RunningBox]:
    with _directory() as path, running_box(Path(path)) as box:
        yield box


@pytest.fixture(scope="module")
def shared_box() -> Iterator[RunningBox]:
    """One box for many cases that do not affect each other."""
    with _directory() as path, running_box(Path(path)) as box:
        yield box


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A real X server with a screen of 1280 x 1024, on a number that was free."""
    with _directory() as path:
        number, number_write = os.pipe()
        server = subprocess.Popen(
            ["Xvnc", "-displayfd", str(number_write), "-rfbunixpath", f"{path}/rfb.sock", *XVNC_FLAGS],
            pass_fds=[number_write],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(number_write)
        try:
            with os.fdopen(number) as lines:
                yield f":{int(lines.readline())}"
        finally:
            server.terminate()
            server.wait(HANG_SECONDS)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


@pytest.fixture(scope="module")
def browser_box(display: str) -> Iterator[RunningBox]:
    with _directory() as path, running_box(Path(path), display=display) as box:
        yield box
