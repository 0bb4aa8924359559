"""A minimal X client: waits for the screen, reads its size and takes a picture of it."""

from __future__ import annotations

import re
import socket
import struct
import time
import zlib
from typing import NamedTuple

from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.protocol import X_SOCKETS

HELLO = struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0)
"""Little-endian, protocol 11.0, no authorization, because only the box can reach the server."""

RETRY_SECONDS = 0.05


ROOT_PIXELS_FORMAT = 2  # ZPixmap
GET_IMAGE = 73
ALL_PLANES = 0xFFFFFFFF


class Screen(NamedTuple):
    root: int
    width: int
    height: int


def wait_for_screen(display: str, deadline: Deadline) -> Screen:
    """Wait until the server at `display` takes connections. Raises BoxError `browser_failed` at the deadline."""
    while True:
        try:
            with _connect(display, max(0.1, deadline.remaining(at_most=2))) as connection:
                return _read_setup(connection)
        except OSError as error:
            if deadline.has_expired():
                raise BoxError("browser_failed", f"The screen {display} cannot be reached: {error}.") from error
            time.sleep(RETRY_SECONDS)


def capture_screen(display: str, deadline: Deadline) -> bytes:
    """Return a PNG of the whole screen. Raises OSError when the server does not answer."""
    with _connect(display, max(0.1, deadline.remaining())) as connection:
        screen = _read_setup(connection)
        request = struct.pack("<BBHI4HI", GET_IMAGE, ROOT_PIXELS_FORMAT, 5, screen.root, 0, 0, *screen[1:], ALL_PLANES)
        connection.sendall(request)
        header = _receive_exactly(connection, 32)
        if header[0] != 1:
            raise ConnectionError("the X server refuses the picture")
        pixels = _receive_exactly(connection, 4 * struct.unpack_from("<I", header, 4)[0])
    return encode_png(pixels, screen.width, screen.height)


def encode_png(pixels: bytes, width: int, height: int) -> bytes:
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


def _read_setup(connection: socket.socket) -> Screen:
    connection.sendall(HELLO)
    status, units = struct.unpack("<B5xH", _receive_exactly(connection, 8))
    if status != 1:
        raise ConnectionRefusedError("the X server refuses the connection")
    setup = _receive_exactly(connection, 4 * units)
    vendor_length, formats = struct.unpack_from("<H", setup, 16)[0], setup[21]
    # A fixed part, the vendor padded to 4 bytes, pixmap formats, then the first screen: root at 0, size at 20.
    first_screen = 32 + (vendor_length + 3) // 4 * 4 + 8 * formats
    root = struct.unpack_from("<I", setup, first_screen)[0]
    return Screen(root, *struct.unpack_from("<HH", setup, first_screen + 20))


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        block = connection.recv(size - len(data))
        if not block:
            raise ConnectionResetError("the X server closed the connection")
        data += block
    return bytes(data)


def _connect(display: str, timeout_seconds: float) -> socket.socket:
    match = re.fullmatch(r"([^:]*):(\d+)(?:\.\d+)?", display)
    if match is None:
        raise BoxError("browser_failed", f"{display!r} is not a valid X display.")
    host, number = match[1], int(match[2])
    if host:
        return socket.create_connection((host, 6000 + number), timeout_seconds)
    # Like libxcb, try the abstract name first. The containers of a pod share only that.
    path = f"{X_SOCKETS}/X{number}"
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
