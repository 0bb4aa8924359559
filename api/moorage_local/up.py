"""`moorage up`: run the whole platform in the foreground until it is asked to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from moorage_api.config.service import KEY_UNREADABLE
from moorage_common.tasks import race
from moorage_local.data.directory import DataDirectory
from moorage_local.errors import StartError
from moorage_local.listener import ANY_ADDRESS, open_listener, url_of
from moorage_local.options import Options
from moorage_local.prepare import PreparedServices
from moorage_local.supervisor import Supervisor

T = TypeVar("T")

EXIT_KILLED = 130


class StopRequests:
    """Counts the requests to stop: Ctrl-C, SIGTERM, or closing the terminal."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # `nohup moorage up` must survive the end of its terminal
            loop.add_signal_handler(number, self.request)

    def request(self) -> None:
        if self.first.is_set():
            self.second.set()
        self.first.set()


def print_line(line: str) -> None:
    """Print a line for the person at the terminal. A closed terminal is not an error."""
    with suppress(OSError):
        print(line, flush=True)


async def up(options: Options) -> int:
    """Run the platform. Returns the exit status: 0 after a stop, 130 after a second request. Raises StartError."""
    began = time.monotonic()
    directory = DataDirectory.open(options.data_dir)
    stops = StopRequests()
    stops.listen()
    with directory.lock(), open_listener(options.host, options.port) as listener:
        print_line(f"Starting Moorage in {directory.root}")
        supervisor = Supervisor(options, directory, listener, print_line)
        problems: list[Exception] = []
        try:
            if prepared := await _run_until(stops.first, supervisor.start()):
                seconds = time.monotonic() - began
                print_line(summary(options, directory, listener, prepared, supervisor.admin_password, seconds=seconds))
                await _run_until(stops.first, supervisor.watch())
            print_line("Stopping; press Ctrl-C again to stop immediately")
        except* (StartError, OSError) as group:
            problems = flatten_errors(group)
        listener.close()  # the api has its own copy; once it ends, new connections must be refused and not wait
        stopped = await _run_until(stops.second, _stop(supervisor))
        if not stopped:
            await supervisor.kill()
    if problems:
        raise StartError("\n".join(str(problem) for problem in problems))
    return 0 if stopped else EXIT_KILLED


async def _stop(supervisor: Supervisor) -> bool:
    await supervisor.stop()
    return True


async def _run_until(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`, or cancel it and return None if `event` is set first."""
    async with race(work, event.wait()) as (task, _):
        return task.result() if task.done() else None


def flatten_errors(group: ExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found.extend(flatten_errors(error) if isinstance(error, ExceptionGroup) else [error])
    return found


def is_nearby(base_url: str) -> bool:
    """Whether a model is on this machine or in a private network, where models rarely need a key."""
    try:
        host = (urlsplit(base_url).hostname or "").removesuffix(".")
    except ValueError:
        return False  # not a URL; the first request to the model reports it
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host
    return address.is_private or address.is_loopback


def summary(
    options: Options,
    directory: DataDirectory,
    listener: socket.socket,
    prepared: PreparedServices,
    admin_password: SecretStr,
    *,
    seconds: float,
) -> str:
    """Build the text that is printed after the start. A generated password is shown only when the admin is created."""
    url = url_of(listener)
    lines = [
        f"Moorage is ready after {seconds:.1f} s.",
        "",
        f"  Address   {url}   (API documentation: {url}/docs)",
    ]
    if options.host in ANY_ADDRESS:
        lines.append("            Every machine that can reach this one can connect.")
    if not prepared.admin_was_created:
        lines.append("  Admin     exists; to reset a password: moorage admin reset-password --username NAME")
    elif options.admin_password is not None:
        lines.append(f"  Admin     {options.admin_username}, with the password from MOORAGE_ADMIN_PASSWORD")
    else:
        password = admin_password.get_secret_value()
        lines.append(f"  Admin     {options.admin_username}   password {password}   (shown only once)")
    lines.append(f"  Model     {prepared.llm.model_name} at {prepared.llm.base_url}")
    if prepared.llm_key == "unreadable":
        lines.append(f"            {KEY_UNREADABLE}")
        lines.append(f"            with POST {url}/api/app-config/llm as an admin.")
    elif prepared.llm_key == "missing" and not is_nearby(prepared.llm.base_url):
        lines.append("            It has no API key: set MOORAGE_LLM_API_KEY (also _BASE_URL, _MODEL) and start again,")
        lines.append(f"            or store one as an admin with POST {url}/api/app-config/llm.")
        lines.append("            `moorage llm test` tries it.")
    lines.append(f"  Data      {directory.root}   (logs in {directory.logs})")
    lines += ["", "Press Ctrl-C to stop."]
    return "\n".join(lines)
