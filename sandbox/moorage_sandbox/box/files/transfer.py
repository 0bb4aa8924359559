"""The two operations that send a whole file over the socket or receive one, piece by piece."""

from __future__ import annotations

import os
import socket
from typing import BinaryIO

from moorage_sandbox.box.files.opening import open_regular
from moorage_sandbox.box.files.writing import replace_file, write_all
from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors
from moorage_sandbox.protocol import MAX_TRANSFER_BYTES

PIECE_BYTES = 256 * 1024
MAX_SIZELESS_BYTES = 1024 * 1024
"""Files of /proc and /sys report a size of 0. At most this much of such a file is read to find its real size."""


class ConnectionLostError(Exception):
    """The other side closed the connection before all bytes were transferred."""


def open_to_send(path: str, display_path: str) -> tuple[BinaryIO, int, bytes]:
    """Open a file. Returns it, its size, and its content if it had to be read to know the size."""
    file = open_regular(path, display_path)
    size = os.fstat(file.fileno()).st_size
    if size > 0:
        return file, size, b""
    try:
        with translate_os_errors(display_path):
            content = file.read(MAX_SIZELESS_BYTES)  # some files of /proc can be opened but not read
    except BoxError:
        file.close()
        raise
    return file, len(content), content


def send(connection: socket.socket, file: BinaryIO, size: int, content: bytes) -> None:
    """Send exactly `size` bytes. Raises ConnectionLostError if the file became shorter or the client has gone."""
    if content:
        connection.sendall(content)
        return
    sent = 0
    while sent < size:
        count = os.sendfile(connection.fileno(), file.fileno(), sent, min(size - sent, 1 << 30))
        if count == 0:
            raise ConnectionLostError
        sent += count


def receive(connection: socket.socket, early: bytes, path: str, display_path: str, size: int) -> None:
    """Write `size` bytes to `path`. `early` are the first of them, which arrived with the request."""
    if size > MAX_TRANSFER_BYTES:
        raise BoxError("too_large", f"{display_path}: a file may have at most {MAX_TRANSFER_BYTES >> 20} MiB.")
    with replace_file(path, display_path) as file:
        write_all(file, early[:size], display_path)
        left = size - min(size, len(early))
        buffer = bytearray(min(PIECE_BYTES, max(1, left)))
        view = memoryview(buffer)
        while left:
            count = connection.recv_into(view[: min(left, len(view))])
            if count == 0:
                raise ConnectionLostError
            write_all(file, view[:count], display_path)
            left -= count


def receive_bytes(connection: socket.socket, early: bytes, size: int) -> bytes:
    """Return `size` bytes, for small bodies. `early` are the first of them, which arrived with the request."""
    data = bytearray(early[:size])
    while len(data) < size:
        block = connection.recv(min(PIECE_BYTES, size - len(data)))
        if not block:
            raise ConnectionLostError
        data += block
    return bytes(data)
