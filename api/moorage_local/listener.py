"""The listening socket of the api. It is opened before anything is started, so that a busy port is found at once."""

from __future__ import annotations

import errno
import socket

from moorage_local.errors import StartError
from moorage_local.options import DEFAULT_PORT

PORTS_TO_TRY = 50
BACKLOG = 512
ANY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - recognised, not chosen


def open_listener(host: str, port: int | None) -> socket.socket:
    """Listen on `port`, or without one on the first free port from DEFAULT_PORT on. Raises StartError.

    The api inherits the socket, so connections of clients wait while the api restarts and are not refused.
    """
    for number in [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TO_TRY):
        try:
            return _listen(host, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StartError(f"Cannot listen on {host}, port {number}: {error.strerror}") from None
    if port is not None:
        raise StartError(
            f"Port {port} on {host} is in use: set MOORAGE_PORT to another port, or unset it to use the next free one"
        )
    raise StartError(f"No port from {DEFAULT_PORT} to {number} is free on {host}: set MOORAGE_PORT to another port")


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """URL for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ANY_ADDRESS:
        return f"http://localhost:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_address(listener: socket.socket) -> tuple[str, int]:
    """Address for connections from this machine."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104
