"""The screen of a sandbox: makes room for Xvnc, then becomes it. Standard library only.

Works with a read-only root file system and without privileges. What Xvnc writes is its lock file (/tmp/.X<n>-lock),
the X socket (/tmp/.X11-unix) and the RFB socket; `xkbcomp` falls back to /tmp for anybody but root. So /tmp must be
writable, and /tmp/.X11-unix is the directory that it shares with the box. The socket there needs no shared network
namespace; where there is one, as in a pod, clients also find the abstract socket of the same name.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

SERVERS = ("Xtigervnc", "Xvnc")
X_SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108 - the place is part of the X protocol


def remove_stale(display: str, rfb_socket: Path) -> None:
    """A killed Xvnc leaves its lock and its sockets, and the next one would refuse to start."""
    number = display.removeprefix(":")
    for path in (rfb_socket, X_SOCKETS / f"X{number}", Path(f"/tmp/.X{number}-lock")):  # noqa: S108
        with suppress(FileNotFoundError):
            path.unlink()


def command(server: str, *, display: str, rfb_socket: Path, geometry: str) -> list[str]:
    """Xvnc that listens on Unix sockets alone and never ends by itself.

    Who may connect is decided by who can reach the sockets (directories and the gate), so X's own access control is
    off: it knows users by number, and box and vnc are different ones.
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
        "-UseBlacklist=0",  # all viewers come from one address, the gate: five that left early would lock out everybody
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
    if not re.fullmatch(r":\d{1,4}", given.display):
        parser.error("--display is a colon and a number")
    if not re.fullmatch(r"\d{2,5}x\d{2,5}", given.geometry):
        parser.error("--geometry is WIDTHxHEIGHT")
    server = next((found for name in SERVERS if (found := shutil.which(name))), None)
    if server is None:
        sys.exit("Xvnc is missing: apt-get install tigervnc-standalone-server")
    rfb_socket = Path(given.rfb_socket)
    with suppress(FileExistsError):
        X_SOCKETS.mkdir(mode=0o1777)
    remove_stale(given.display, rfb_socket)
    os.umask(0o007)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/tmp"}  # noqa: S108
    os.execve(  # noqa: S606 - no shell is the point
        server,
        command(server, display=given.display, rfb_socket=rfb_socket, geometry=given.geometry),
        environment,
    )


if __name__ == "__main__":
    main()
