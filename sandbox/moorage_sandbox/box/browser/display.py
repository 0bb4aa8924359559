"""The little of the X protocol that is needed: is there a screen, how large is it, what does it show."""

from __future__ import annotations

import re
import socket
import struct
import time
import zlib
from typing import NamedTuple

from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError

HELLO = struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0)
"""Little-endian, protocol 11.0, no authorization: the server is ours alone."""

RETRY_SECONDS = 0.05


ROOT_PIXELS_FORMAT = 2  # ZPixmap
GET_IMAGE = 73
ALL_PLANES = 0xFFFFFFFF


class Screen(NamedTuple):
    root: int
    width: int
    height: int


def wait_for_screen(display: str, deadline: Deadline) -> Screen:
    """The size of the screen, as soon as the server at `display` takes connections; else `browser_failed`."""
    while True:
        try:
            with _connected(display, max(0.1, deadline.remaining(at_most=2))) as connection:
                return _greet(connection)
        except OSError as error:
            if deadline.expired():
                raise BoxError("browser_failed", f"The screen {display} is not there: {error}.") from error
            time.sleep(RETRY_SECONDS)


def picture_of_screen(display: str, deadline: Deadline) -> bytes:
    """A PNG of all that a person sees. Raises OSError when the server does not answer."""
    with _connected(display, max(0.1, deadline.remaining())) as connection:
        screen = _greet(connection)
        request = struct.pack("<BBHI4HI", GET_IMAGE, ROOT_PIXELS_FORMAT, 5, screen.root, 0, 0, *screen[1:], ALL_PLANES)
        connection.sendall(request)
        header = _exactly(connection, 32)
        if header[0] != 1:
            raise ConnectionError("it gives no picture")
        pixels = _exactly(connection, 4 * struct.unpack_from("<I", header, 4)[0])
    return png(pixels, screen.width, screen.height)


def png(pixels: bytes, width: int, height: int) -> bytes:
    """Encode pixels of four bytes (blue, green, red, unused)."""
    rgb = bytearray(3 * width * height)
    for channel in range(3):
        rgb[channel::3] = pixels[2 - channel : 4 * width * height : 4]
    rows = b"".join(b"\0" + rgb[start : start + 3 * width] for start in range(0, len(rgb), 3 * width))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _greet(connection: socket.socket) -> Screen:
    connection.sendall(HELLO)
    status, units = struct.unpack("<B5xH", _exactly(connection, 8))
    if status != 1:
        raise ConnectionRefusedError("it refuses the connection")
    setup = _exactly(connection, 4 * units)
    vendor_length, formats = struct.unpack_from("<H", setup, 16)[0], setup[21]
    # Fixed part, vendor padded to 4, pixmap formats, then the first screen: its root at 0, its size at 20.
    first_screen = 32 + (vendor_length + 3) // 4 * 4 + 8 * formats
    root = struct.unpack_from("<I", setup, first_screen)[0]
    return Screen(root, *struct.unpack_from("<HH", setup, first_screen + 20))


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
