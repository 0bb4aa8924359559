"""Starts the box: `python3 -I -m moorage_sandbox.box --socket PATH --home DIR --display :N`."""

from __future__ import annotations

import argparse
import os
import signal
import threading

from moorage_common.logging_setup import configure_logging
from moorage_sandbox.box.box import Box
from moorage_sandbox.box.server import BoxServer
from moorage_sandbox.box.shared.processes import adopt_orphans
from moorage_sandbox.protocol import HOME

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
THREAD_STACK_BYTES = 512 * 1024


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage_sandbox.box", description="The executor of a Moorage sandbox.")
    parser.add_argument("--socket", required=True, help="The Unix socket to listen on.")
    parser.add_argument("--home", default=HOME, help="The home directory of the commands. It holds the workspace.")
    parser.add_argument("--display", default=":0", help="The X display of the browser.")
    return parser


def main() -> None:
    options = argument_parser().parse_args()
    configure_logging()

    # The signals are blocked before any thread starts, so only the loop below receives them. No handler interrupts
    # other code, and SIGTERM also works when the box is PID 1, for which the kernel ignores unhandled signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.stack_size(THREAD_STACK_BYTES)
    adopt_orphans()
    os.umask(0o022)
    box = Box(home=options.home, display=options.display)
    os.makedirs(box.paths.workspace, exist_ok=True)
    BoxServer(box, options.socket).start()
    while True:
        received = signal.sigtimedwait(SIGNALS, 5)
        if received is None or received.si_signo == signal.SIGCHLD:
            box.children.reap()
        else:
            break
    box.end()
    os.unlink(options.socket)
    # Threads may still wait for a program or a client. A normal exit would wait for them.
    os._exit(0)


if __name__ == "__main__":
    main()
