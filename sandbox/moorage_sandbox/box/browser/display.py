"""Asks the X server how large its screen is, which also tells whether it answers at all."""

from __future__ import annotations

import re
import socket
import struct
import time
from typing import NamedTuple

from moorage_sandbox.box.deadline import Deadline
from moorage_sandbox.box.errors import BoxError

HELLO = struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0)
"""Little-endian, protocol 11.0, no authorization: the server is ours alone."""

RETRY_SECONDS = 0.05


class Screen(NamedTuple):
    width: int
    height: int


def wait_for_screen(display: str, deadline: Deadline) -> Screen:
    """The size of the screen, as soon as the server at `display` takes connections; else `browser_failed`."""
    while True:
        try:
            return _screen(display, timeout_seconds=max(0.1, deadline.remaining(at_most=2)))
        except OSError as error:
            if deadline.expired():
                raise BoxError("browser_failed", f"The screen {display} is not there: {error}.") from error
            time.sleep(RETRY_SECONDS)


def _screen(display: str, *, timeout_seconds: float) -> Screen:
    with _connected(display, timeout_seconds) as connection:
        connection.sendall(HELLO)
        status, units = struct.unpack("<B5xH", _exactly(connection, 8))
        if status != 1:
            raise ConnectionRefusedError("it refuses the connection")
        setup = _exactly(connection, 4 * units)
        vendor_length, formats = struct.unpack_from("<H", setup, 16)[0], setup[21]
        # Fixed part, vendor padded to 4, pixmap formats, then the first screen with its size at 20.
        first_screen = 32 + (vendor_length + 3) // 4 * 4 + 8 * formats
        return Screen(*struct.unpack_from("<HH", setup, first_screen + 20))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        block = connection.recv(size - len(data))
        if not block:
            raise ConnectionResetError("it closed the connection")
        data += block
    return bytes(data)


def _connected(display: str, timeout_seconds: float) -> socket.socket:
    match = re.fullmatch(r"([^:]*):(\d+)(?:\.\d+)?", display)
    if match is None:
        raise BoxError("browser_failed", f"{display!r} is no X display.")
    host, number = match[1], int(match[2])
    if host:
        return socket.create_connection((host, 6000 + number), timeout_seconds)
    # As libxcb does: first the abstract name, which in a pod is all that the containers share.
    path = f"/tmp/.X11-unix/X{number}"  # noqa: S108 - the protocol's own place
    problem: OSError = ConnectionRefusedError()
    for address in (f"\0{path}", path):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            problem = error
        else:
            return connection
    raise problem
