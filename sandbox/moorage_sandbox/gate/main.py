"""Entry point of the gate. Importing it loads all that a gate needs, so the host can fork a process that loaded it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from moorage_common.logging_setup import configure_logging
from moorage_common.process_options import PR_SET_DUMPABLE, set_process_option
from moorage_sandbox.gate.app import GateApp
from moorage_sandbox.gate.box_client import BoxClient
from moorage_sandbox.gate.calls import Calls
from moorage_sandbox.gate.ledger import CallLedger
from moorage_sandbox.gate.tokens import TrustStore
from moorage_sandbox.protocol import KEEP_ALIVE_SECONDS, MAX_RESULT_BYTES

STOP_GRACE_SECONDS = 2


@dataclass(frozen=True)
class GateOptions:
    """`listener` is a listening TCP socket. A restarted gate gets the same one, so callers wait instead of failing."""

    listener: socket.socket
    box_socket: Path
    rfb_socket: Path
    state_dir: Path
    trust_file: Path
    sandbox_uid: str


async def serve(options: GateOptions) -> None:
    """Serve until SIGTERM or SIGINT."""
    ledger = CallLedger(options.state_dir)
    box = BoxClient(options.box_socket)
    app = GateApp(
        box=box,
        calls=Calls(box, ledger),
        ledger=ledger,
        trust=TrustStore(options.trust_file),
        rfb_socket=options.rfb_socket,
        sandbox_uid=options.sandbox_uid,
    )
    config = uvicorn.Config(
        app.asgi,
        http="httptools",
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        lifespan="off",
        ws_per_message_deflate=False,
        ws_max_size=MAX_RESULT_BYTES,
        server_header=False,
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    try:
        await uvicorn.Server(config).serve(sockets=[options.listener])
    finally:
        ledger.close()


def forbid_inspection() -> None:
    """Forbid other processes of the same user to read our memory (prctl(2), PR_SET_DUMPABLE)."""
    set_process_option(PR_SET_DUMPABLE, 0)


def run(options: GateOptions) -> None:
    forbid_inspection()
    with asyncio.Runner(loop_factory=uvicorn.Config("", loop="uvloop").get_loop_factory()) as runner:
        runner.run(serve(options))


def listener_at(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_server(
        (host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=256
    )


def argument_parser() -> argparse.ArgumentParser:
    """Each option has a default from the environment, because a container is configured by variables."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox.gate", description=__doc__)

    def add(flag: str, text: str, default: str | None = None) -> None:
        name = "MOORAGE_GATE_" + flag.removeprefix("--").upper().replace("-", "_")
        value = os.environ.get(name, default)
        parser.add_argument(flag, help=f"{text} (or {name})", default=value)

    add("--listen", "The address to listen on, as HOST:PORT.", "0.0.0.0:8080")
    add("--listen-fd", "The number of an inherited listening socket, instead of --listen.")
    add("--box-socket", "The Unix socket of the box.", "/run/moorage/box/box.sock")
    add("--rfb-socket", "The Unix socket at which the X server speaks RFB.", "/run/moorage/vnc/rfb.sock")
    add("--state-dir", "The gate's own directory, for its binding and its ledger.", "/var/lib/moorage")
    add("--trust-file", "The JSON file with public keys and their scopes.", "/etc/moorage/trust/trust.json")
    parser.add_argument(
        "--sandbox-uid",
        help="The uid of this sandbox. Tokens must name it as their audience. (or MOORAGE_SANDBOX_UID)",
        default=os.environ.get("MOORAGE_SANDBOX_UID"),
    )
    return parser


def parse(arguments: list[str] | None = None) -> GateOptions:
    parser = argument_parser()
    given = parser.parse_args(arguments)
    if not given.sandbox_uid:
        parser.error("--sandbox-uid or MOORAGE_SANDBOX_UID must name this sandbox")
    inherited = given.listen_fd is not None
    return GateOptions(
        listener=socket.socket(fileno=int(given.listen_fd)) if inherited else listener_at(given.listen),
        box_socket=Path(given.box_socket),
        rfb_socket=Path(given.rfb_socket),
        state_dir=Path(given.state_dir),
        trust_file=Path(given.trust_file),
        sandbox_uid=given.sandbox_uid,
    )


def main() -> None:
    configure_logging()
    run(parse())
