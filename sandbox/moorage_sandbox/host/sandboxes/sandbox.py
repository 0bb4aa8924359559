"""One sandbox: keeps its gate, box and screen running until `stop`."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum

from moorage_common.backoff import Backoff
from moorage_common.keeper import keep_running
from moorage_common.logging_setup import log_context
from moorage_common.tasks import race
from moorage_sandbox.host.confinement import limits
from moorage_sandbox.host.confinement.identities import Identity
from moorage_sandbox.host.confinement.limits import ControlGroup
from moorage_sandbox.host.processes.launcher import LaunchError
from moorage_sandbox.host.sandboxes import layout
from moorage_sandbox.host.sandboxes.layout import SandboxRecord
from moorage_sandbox.host.sandboxes.parts import SandboxParts, SharedResources

logger = logging.getLogger(__name__)

BACKOFF = Backoff(0.1, 30.0)
FAILURES_TO_GIVE_UP = 5
"""A gate or box that ends more often in a row makes the sandbox fail. A screen is reported and started again."""
STEADY_SECONDS = 10.0
"""A process that ran for longer did not fail at its start, so the count of failures begins again."""
READY_SECONDS = 20
SCREEN_DELAY_SECONDS = 0.5
PROBE_SECONDS = 5
MISSED_PROBES = 4
"""A gate or box is restarted after this many missed probes. An answered probe cancels half a missed one."""
PROBE_PAUSE_SECONDS = 0.005
BACKLOG = 256


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


class SandboxNotReadyError(Exception):
    """The sandbox failed, or was not ready in time. The text is for people."""


class HostSandbox:
    """A running sandbox; `record` names its session. It fails without gate or box, but goes on without a screen."""

    def __init__(self, record: SandboxRecord, identity: Identity, shared: SharedResources) -> None:
        self.record = record
        self._identity = identity
        self._shared = shared
        self._runtime = shared.layout.runtime_files(record.slot)
        self._listener: socket.socket | None = None
        self.url = ""
        self._group: ControlGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._notes: dict[str, str] = {}

    @property
    def phase(self) -> Phase:
        if self._failed.done():
            return Phase.FAILED
        return Phase.READY if self._ready.is_set() else Phase.STARTING

    @property
    def reason(self) -> str:
        """Why the sandbox failed, or which part does not work. Empty if everything works."""
        return self._failed.result() if self._failed.done() else "; ".join(self._notes.values())

    def start(self) -> None:
        """Start the processes. Raises OSError when the directories or limits cannot be made."""
        stored = self._shared.layout.stored_files(self.record.session_id)
        layout.make_stored_files(stored, self._identity)
        layout.make_runtime_files(self._runtime, self._identity)
        name = f"moorage-{self._shared.layout.name}-{self.record.slot}"
        self._group = limits.make_group(self._shared.parents, name, self._shared.limits)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        parts = SandboxParts(
            sandbox_uid=self.record.uid,
            identity=self._identity,
            stored=stored,
            runtime=self._runtime,
            shared=self._shared,
            group=self._group,
            listener=self._listener,
            note=self._note,
        )
        with log_context(session_id=str(self.record.session_id)):  # the tasks and their processes keep it
            self._tasks = [
                asyncio.create_task(self._keep("box", parts.run_box, is_essential=True)),
                asyncio.create_task(self._keep("gate", parts.run_gate, is_essential=True)),
                asyncio.create_task(self._keep_screen(parts)),
                asyncio.create_task(self._watch_readiness(parts)),
            ]
        for task in self._tasks:
            task.add_done_callback(self._on_task_ended)

    async def wait_ready(self) -> None:
        """Wait until gate and box answer. Raises SandboxNotReadyError if the sandbox fails or is not ready in time."""
        async with race(self._ready.wait(), self._wait_failed(), timeout_seconds=READY_SECONDS):
            pass
        if self._failed.done():
            raise SandboxNotReadyError(self._failed.result())
        if not self._ready.is_set():
            raise SandboxNotReadyError(f"The sandbox did not answer within {READY_SECONDS} s")

    async def _wait_failed(self) -> str:
        return await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """End every process, then remove their group and directories. Calling it twice is safe."""
        await self._end_tasks()
        if self._group is not None:
            await self._group.remove()
        if self._listener is not None:
            self._listener.close()
        if not self._failed.done():
            self._failed.set_result("The sandbox was ended")
        layout.remove_runtime_files(self._runtime)

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, name: str, run: Callable[[], Awaitable[str]], *, is_essential: bool) -> None:
        """Run it, and again when it ended."""

        async def run_once() -> str:
            try:
                return await run()
            except (LaunchError, OSError) as error:
                return f"the {name} did not start: {error}"

        def on_end(reason: str, failures: int) -> bool:
            if is_essential:
                self._ready.clear()
                self._lost.set()
            logger.warning("A part of the sandbox ended: %s", reason)
            if failures <= FAILURES_TO_GIVE_UP:
                return True
            if is_essential:
                self._fail(reason)
                return False
            self._note(name, reason)
            return True

        await keep_running(run_once, on_end=on_end, backoff=BACKOFF, steady_seconds=STEADY_SECONDS)

    async def _keep_screen(self, parts: SandboxParts) -> None:
        """Run the screen after the box is ready. Xvnc uses a whole CPU at its start and would delay the box."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SCREEN_DELAY_SECONDS):
                await self._ready.wait()
        await self._keep("screen", parts.run_screen, is_essential=False)

    def _fail(self, reason: str) -> None:
        """End every process and close the port. When the sandbox is requested again, a new one is made."""
        if not self._failed.done():
            self._failed.set_result(capitalize(reason))
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        if self._listener is not None:
            self._listener.close()

    def _on_task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            with log_context(session_id=str(self.record.session_id)):
                logger.error("An unexpected error ended the sandbox", exc_info=error)
            self._fail(f"an unexpected error happened in the sandbox host: {error!r}")

    def _note(self, subject: str, text: str) -> None:
        if text:
            logger.warning("A part of the sandbox does not work: %s", text)
            self._notes[subject] = capitalize(text)
        else:
            self._notes.pop(subject, None)

    async def _watch_readiness(self, parts: SandboxParts) -> None:
        """Set readiness when gate and box answer; `_keep` takes it away when one of them ends."""
        while True:
            self._lost.clear()
            # Checking for the socket is cheap. Requests in a loop would slow down the start that we wait for.
            while not (  # noqa: ASYNC110 - it is another process that becomes ready
                self._runtime.box_socket.exists() and await self._is_answering("/readyz")
            ):
                await asyncio.sleep(PROBE_PAUSE_SECONDS)
            if not self._lost.is_set():
                self._ready.set()
                await self._watch_answers(parts)

    async def _watch_answers(self, parts: SandboxParts) -> None:
        """Probe until gate or box ends. Kill the one that does not answer most of the probes.

        In a sandbox with a fork bomb some probes are still answered, so one answer does not count as healthy.
        """
        missed = 0.0
        pause = self._shared.unresponsive_seconds / MISSED_PROBES
        while not self._lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._lost.wait()
                    return
            answers = await self._is_answering("/readyz", seconds=pause)
            missed = max(0.0, missed - 0.5) if answers else missed + 1
            if missed >= MISSED_PROBES and not self._lost.is_set():
                name = "box" if await self._is_answering("/healthz", seconds=pause) else "gate"
                logger.warning("The %s of the sandbox does not answer and is restarted", name)
                parts.kill(name)
                missed = 0.0

    async def _is_answering(self, path: str, *, seconds: float = PROBE_SECONDS) -> bool:
        """Whether the gate answers with 200. /healthz checks the gate, /readyz also the box."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n".encode())
                    return (await reader.readline()).split(b" ")[1:2] == [b"200"]
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return False


def capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
