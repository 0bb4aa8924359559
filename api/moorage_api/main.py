"""Entry point of the api: `python -m moorage_api.main --host … --port …`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from moorage_api.app import create_app
from moorage_api.http.internal import serve_beside
from moorage_api.settings import Settings
from moorage_api.skills.pod_access import create_pod_app
from moorage_api.wiring.loggers import CHATTY_LOGGERS, SILENT_LOGGERS
from moorage_api.wiring.resources import Resources, open_resources
from moorage_api.wiring.services import build_services
from moorage_common.logging_setup import configure_logging

logger = logging.getLogger(__name__)

INTERNAL_CONCURRENCY = 100
"""Most concurrent downloads of pods. Further ones get 503, and the pods retry."""

STOP_GRACE_SECONDS = 2
"""Open streams are closed after this time. Their clients resume at another replica, or here after the restart."""


async def serve(settings: Settings, *, host: str, port: int, fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `fd` is a listening socket from the parent process; it replaces host and port."""
    if settings.open_config:
        logger.warning("MOORAGE_OPEN_CONFIG is on: anyone who reaches this API can change its configuration")
    async with open_resources(settings, issuer="api") as resources:
        config = uvicorn.Config(
            create_app(build_services(resources)),
            host=host,
            port=port,
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_config=None,
            log_level=logging.WARNING,  # at INFO it writes the URLs of WebSockets, and those hold tokens
            ws_per_message_deflate=False,
            ws_max_size=2**24,
            timeout_graceful_shutdown=STOP_GRACE_SECONDS,
            timeout_keep_alive=settings.keep_alive_seconds,
            server_header=False,
            proxy_headers=False,  # MOORAGE_TRUSTED_PROXIES says which proxies may report addresses
        )
        # uvicorn's own `fd` treats every descriptor as a Unix socket, and its connections then get no TCP_NODELAY.
        sockets = None if fd is None else [socket.socket(fileno=fd)]
        async with internal_port(resources, host=host):
            await uvicorn.Server(config).serve(sockets=sockets)


@asynccontextmanager
async def internal_port(resources: Resources, *, host: str) -> AsyncIterator[None]:
    """Serve the internal port for sandbox pods while the block runs, if one is configured."""
    if not resources.settings.internal_port:
        yield
        return
    app, port = create_pod_app(resources.blobs), resources.settings.internal_port
    async with serve_beside(app, host=host, port=port, concurrency=INTERNAL_CONCURRENCY):
        yield


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="The address to listen on.")
    parser.add_argument("--port", type=int, default=8000, help="The port to listen on.")
    parser.add_argument("--fd", type=int, help="The number of an inherited listening socket, instead of host and port.")
    return parser


def main() -> None:
    arguments = argument_parser().parse_args()
    configure_logging(quiet=CHATTY_LOGGERS, silent=SILENT_LOGGERS)
    with asyncio.Runner(loop_factory=uvicorn.Config("", loop="uvloop").get_loop_factory()) as runner:
        runner.run(serve(Settings(), host=arguments.host, port=arguments.port, fd=arguments.fd))


if __name__ == "__main__":
    main()
