"""Which addresses can be reached: a server on every address of this machine, and code that connects to addresses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def listener_everywhere() -> Iterator[int]:
    """Run a TCP server on every address of this machine and yield its port. It sends a greeting to every client."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = int(server.getsockname()[1])
        greeter = subprocess.Popen(
            [sys.executable, "-c", GREETER, str(server.fileno())], pass_fds=[server.fileno()], stdin=subprocess.DEVNULL
        )
        try:
            yield port
        finally:
            greeter.kill()
            greeter.wait()


GREETER = """
import socket, sys
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"reached")
"""

REACH = """
import json, socket
from concurrent.futures import ThreadPoolExecutor
def reach(address, port):
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return type(error).__name__
with ThreadPoolExecutor(8) as pool:
    print(json.dumps(dict(zip([address for address, _ in TARGETS], pool.map(lambda one: reach(*one), TARGETS)))))
"""


def reach(targets: list[tuple[str, int]], run: Callable[[str], str]) -> dict[str, str]:
    """Connect to each target. The result by address is "reached", or the name of the error."""
    answers: dict[str, str] = json.loads(run(f"TARGETS = {targets!r}\n{REACH}"))
    return answers


def run_here(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def own_addresses() -> list[str]:
    """The addresses of this machine, without link-local ones: those need the name of an interface."""
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6) and "%" not in address.address
    ]
