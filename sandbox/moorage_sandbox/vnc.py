"""The screen of a sandbox: prepares the directories and then executes Xvnc. Standard library only.

It works with a read-only root file system and without privileges. Xvnc writes its lock file (/tmp/.X<n>-lock), the X
socket (in /tmp/.X11-unix) and the RFB socket; its `xkbcomp` writes to /tmp unless it runs as root. So /tmp must be
writable, and /tmp/.X11-unix is shared with the box. The X socket works across network namespaces. Containers of a pod
share the network namespace, and clients there can also use the abstract socket of the same name.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from moorage_common.logging_setup import configure_logging
from moorage_sandbox.protocol import X_SOCKETS

logger = logging.getLogger(__name__)

SERVERS = ("Xtigervnc", "Xvnc")


def remove_stale(display: str, rfb_socket: Path) -> None:
    """Remove the lock and sockets of an Xvnc that was killed. With them the next one refuses to start."""
    number = display.removeprefix(":")
    for path in (rfb_socket, Path(X_SOCKETS, f"X{number}"), Path(f"/tmp/.X{number}-lock")):  # noqa: S108
        with suppress(FileNotFoundError):
            path.unlink()


def build_command(server: str, *, display: str, rfb_socket: Path, geometry: str) -> list[str]:
    """Return the command line of an Xvnc that listens only on Unix sockets and never ends by itself.

    The access control of X is off, because it compares user ids, and box and vnc are different users. The permissions
    of the sockets' directories, and the gate, decide who may connect.
    """
    return [
        server,
        display,
        "-rfbunixpath",
        str(rfb_socket),
        "-rfbunixmode",
        "0660",
        "-rfbport",
        "-1",
        "-nolisten",
        "tcp",
        "-ac",
        "-noreset",
        "-SecurityTypes",
        "None",
        "-AlwaysShared",
        "-UseBlacklist=0",  # all viewers connect from the gate, so five that disconnect early would block all of them
        "-geometry",
        geometry,
        "-depth",
        "24",
        "-dpi",
        "96",
        "-FrameRate",
        "30",
        "-IdleTimeout",
        "0",
        "-desktop",
        "Moorage",
        "-s",
        "0",
        "-dpms",
    ]


def argument_parser() -> argparse.ArgumentParser:
    """Each option has a default from the environment, because a container is configured by variables."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox.vnc", description=__doc__.partition("\n")[0])

    def add(flag: str, text: str, default: str) -> None:
        name = "MOORAGE_VNC_" + flag.removeprefix("--").upper().replace("-", "_")
        parser.add_argument(flag, default=os.environ.get(name, default), help=f"{text} (or {name})")

    add("--display", "The X display, as a colon and a number.", ":1")
    add("--rfb-socket", "The Unix socket to serve RFB on.", "/run/moorage/vnc/rfb.sock")
    add("--geometry", "The size of the screen, as WIDTHxHEIGHT.", "1280x1024")
    return parser


def main() -> None:
    parser = argument_parser()
    given = parser.parse_args()
    configure_logging()
    if not re.fullmatch(r":\d{1,4}", given.display):
        parser.error(f"--display must be a colon and a number, not {given.display!r}")
    if not re.fullmatch(r"\d{2,5}x\d{2,5}", given.geometry):
        parser.error(f"--geometry must be WIDTHxHEIGHT, not {given.geometry!r}")
    server = next((found for name in SERVERS if (found := shutil.which(name))), None)
    if server is None:
        logger.error("Xvnc is missing. Install it: apt-get install tigervnc-standalone-server")
        sys.exit(1)
    rfb_socket = Path(given.rfb_socket)
    with suppress(FileExistsError):
        os.mkdir(X_SOCKETS, mode=0o1777)
    remove_stale(given.display, rfb_socket)
    os.umask(0o007)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/tmp"}  # noqa: S108
    os.execve(  # noqa: S606 - no shell is the point
        server,
        build_command(server, display=given.display, rfb_socket=rfb_socket, geometry=given.geometry),
        environment,
    )


if __name__ == "__main__":
    main()
