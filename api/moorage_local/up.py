"""`moorage up`: the whole platform in the foreground, until it is asked to stop."""

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
from moorage_local.directory import DataDirectory
from moorage_local.errors import StartError
from moorage_local.listener import ANY_ADDRESS, open_listener, url_of
from moorage_local.options import Options
from moorage_local.prepare import Prepared
from moorage_local.supervisor import Supervisor

T = TypeVar("T")

EXIT_KILLED = 130


class StopRequests:
    """Counts the requests to stop: Ctrl-C, SIGTERM, and the terminal being closed."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # `nohup moorage up` is to outlive its terminal
            loop.add_signal_handler(number, self.request)

    def request(self) -> None:
        if self.first.is_set():
            self.second.set()
        self.first.set()


def tell(line: str) -> None:
    """Say it to the person who started us. Nobody may be there any more: that is no reason to fail."""
    with suppress(OSError):
        print(line, flush=True)


async def up(options: Options) -> int:
    """Returns the exit status: 0 when it was asked to stop, 130 when it was told twice. Raises StartError."""
    began = time.monotonic()
    directory = DataDirectory.open(options.data_dir)
    stops = StopRequests()
    stops.listen()
    with directory.locked(), open_listener(options.host, options.port) as listener:
        tell(f"Starting Moorage in {directory.root}")
        supervisor = Supervisor(options, directory, listener, tell)
        problems: list[Exception] = []
        try:
            if prepared := await _unless(stops.first, supervisor.start()):
                seconds = time.monotonic() - began
                tell(summary(options, directory, listener, prepared, supervisor.admin_password, seconds=seconds))
                await _unless(stops.first, supervisor.watch())
            tell("Stopping; Ctrl-C once more stops at once")
        except* (StartError, OSError) as group:
            problems = leaves(group)
        listener.close()  # the api has it as long as it lives: after that nobody should wait for an answer
        stopped = await _unless(stops.second, _stop(supervisor))
        if not stopped:
            await supervisor.kill()
    if problems:
        raise StartError("\n".join(str(problem) for problem in problems))
    return 0 if stopped else EXIT_KILLED


async def _stop(supervisor: Supervisor) -> bool:
    await supervisor.stop()
    return True


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when `event` was set first: `work` is then cancelled."""
    async with race(work, event.wait()) as (task, _):
        return task.result() if task.done() else None


def leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found.extend(leaves(error) if isinstance(error, ExceptionGroup) else [error])
    return found


def is_nearby(base_url: str) -> bool:
    """Whether a model is one's own: on this machine or in a private network, where keys are rarely asked for."""
    try:
        host = (urlsplit(base_url).hostname or "").removesuffix(".")
    except ValueError:
        return False  # no address at all: that is said where the model is first asked
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host
    return address.is_private or address.is_loopback


def summary(
    options: Options,
    directory: DataDirectory,
    listener: socket.socket,
    prepared: Prepared,
    admin_password: SecretStr,
    *,
    seconds: float,
) -> str:
    """The block that ends a start. The password is shown once, by the start that made the account, if we chose it."""
    url = url_of(listener)
    lines = [
        f"Moorage is ready after {seconds:.1f} s.",
        "",
        f"  Address   {url}   (what it can do: {url}/docs)",
    ]
    if options.host in ANY_ADDRESS:
        lines.append("            open to every machine that reaches this one")
    if not prepared.admin_was_made:
        lines.append("  Admin     made before; password forgotten: moorage admin reset-password --username NAME")
    elif options.admin_password is not None:
        lines.append(f"  Admin     {options.admin_username}, with the password of MOORAGE_ADMIN_PASSWORD")
    else:
        password = admin_password.get_secret_value()
        lines.append(f"  Admin     {options.admin_username}   password {password}   (shown this once)")
    lines.append(f"  Model     {prepared.llm.model_name} at {prepared.llm.base_url}")
    if prepared.llm_key == "unreadable":
        lines.append(f"            {KEY_UNREADABLE},")
        lines.append(f"            as admin POST {url}/api/app-config/llm")
    elif prepared.llm_key == "missing" and not is_nearby(prepared.llm.base_url):
        lines.append("            without a key: set MOORAGE_LLM_API_KEY (also _BASE_URL, _MODEL) and start again,")
        lines.append(f"            or as admin POST {url}/api/app-config/llm")
    lines.append(f"  Data      {directory.root}   (logs in {directory.logs})")
    lines += ["", "Ctrl-C stops it."]
    return "\n".join(lines)
