"""The two operations that move whole files over the socket, a piece at a time."""

from __future__ import annotations

import os
import socket
from typing import BinaryIO

from moorage_sandbox.box.files.opening import open_regular
from moorage_sandbox.box.files.writing import replaced, write_all
from moorage_sandbox.box.shared.errors import BoxError, explained

MAX_FILE_BYTES = 100 * 1024 * 1024
PIECE_BYTES = 256 * 1024
MAX_SIZELESS_BYTES = 1024 * 1024
"""Files of /proc and /sys say that they have no bytes; this much of one is read to find out."""


class ConnectionLostError(Exception):
    """The other side went away in the middle."""


def open_for_sending(path: str, shown: str) -> tuple[BinaryIO, int, bytes]:
    """The file, its size, and its content where the size could only be had by reading it."""
    file = open_regular(path, shown)
    size = os.fstat(file.fileno()).st_size
    if size > 0:
        return file, size, b""
    try:
        with explained(shown):
            content = file.read(MAX_SIZELESS_BYTES)  # some files of /proc can be opened and not read
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


def receive(connection: socket.socket, early: bytes, path: str, shown: str, size: int) -> None:
    """Write `size` bytes, of which `early` came with the request, to `path`."""
    if size > MAX_FILE_BYTES:
        raise BoxError("too_large", f"{shown}: a file may have at most {MAX_FILE_BYTES >> 20} MiB.")
    with replaced(path, shown) as file:
        write_all(file, early[:size], shown)
        left = size - min(size, len(early))
        buffer = bytearray(min(PIECE_BYTES, max(1, left)))
        view = memoryview(buffer)
        while left:
            count = connection.recv_into(view[: min(left, len(view))])
            if count == 0:
                raise ConnectionLostError
            write_all(file, view[:count], shown)
            left -= count


def receive_bytes(connection: socket.socket, early: bytes, size: int) -> bytes:
    """`size` bytes, of which `early` came with the request, in memory: for what is small."""
    data = bytearray(early[:size])
    while len(data) < size:
        block = connection.recv(min(PIECE_BYTES, size - len(data)))
        if not block:
            raise ConnectionLostError
        data += block
    return bytes(data)
