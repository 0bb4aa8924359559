"""What the kernel knows of the sockets of another process."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import time
from pathlib import Path

import httpx
import psutil

SYS_PIDFD_GETFD = 438
"""The same number on every architecture (include/uapi/asm-generic/unistd.h). Python has no function for it."""

libc = ctypes.CDLL(None, use_errno=True)


def has_no_delay(pid: int, *, client_port: int) -> bool:
    """Whether the process has TCP_NODELAY on the connection that it accepted from `client_port` of this machine."""
    [connection] = [
        one for one in psutil.Process(pid).net_connections("tcp") if one.raddr and one.raddr.port == client_port
    ]
    process = os.pidfd_open(pid)
    try:
        number = libc.syscall(SYS_PIDFD_GETFD, process, connection.fd, 0)
        if number < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(process)
    with socket.socket(fileno=number) as accepted:
        return bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


DELAYED_ACK_SECONDS = 0.04
"""Linux delays an acknowledgement at least this long (TCP_DELACK_MIN). An answer in two parts waits for one."""


async def fastest_answer(url: str, *, requests: int = 60) -> float:
    """Seconds that the fastest of the later answers on one kept-alive connection took.

    The kernel acknowledges the first packets of a connection at once, so the first half of the answers does not count.
    """
    taken = []
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(requests):
            began = time.perf_counter()
            (await client.get(url)).raise_for_status()
            taken.append(time.perf_counter() - began)
    return min(taken[requests // 2 :])


async def answers_after(seconds: float, path: str, *, port: int = 0, socket_path: Path | None = None) -> list[bytes]:
    """The status lines of two requests on one connection that is not used for `seconds` between them."""
    if socket_path:
        reader, writer = await asyncio.open_unix_connection(socket_path)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    try:
        for pause in (0, seconds):
            await asyncio.sleep(pause)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            [length] = [
                line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            ]
            await reader.readexactly(int(length))
            found.append(head.split(b"\r\n")[0])
    finally:
        writer.close()
    return found
