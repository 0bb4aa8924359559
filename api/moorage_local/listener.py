"""The socket that people connect to: opened before anything is started, so a busy port is found at once."""

from __future__ import annotations

import errno
import socket

from moorage_local.errors import StartError
from moorage_local.options import DEFAULT_PORT

PORTS_TO_TRY = 50
BACKLOG = 512
ANY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - recognised, not chosen


def open_listener(host: str, port: int | None) -> socket.socket:
    """Listen on `port`, or without one on the first free from the default up. Raises StartError.

    The api inherits it. So clients wait while the api is started again, instead of being refused.
    """
    for number in [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TO_TRY):
        try:
            return _listen(host, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StartError(f"Cannot listen on {host}, port {number}: {error.strerror}") from None
    if port is not None:
        raise StartError(
            f"Port {port} on {host} is in use: set MOORAGE_PORT to another, or unset it to have one chosen"
        )
    raise StartError(f"No port from {DEFAULT_PORT} up is free on {host}: set MOORAGE_PORT")


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
    """How a browser on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    if host in ANY_ADDRESS:
        return f"http://localhost:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_address(listener: socket.socket) -> tuple[str, int]:
    """Where this machine itself connects to."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104
