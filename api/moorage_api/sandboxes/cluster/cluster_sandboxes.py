"""Sandboxes in a cluster: writes what is wanted to AgentSession resources, and reads their status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from moorage_api.errors import UnavailableError
from moorage_api.sandboxes.cluster.agent_sessions import AgentSessions, is_refusal
from moorage_api.sandboxes.cluster.session_resource import (
    KnownResource,
    build_manifest,
    read_resource,
    running_patch,
    suspended_patch,
)
from moorage_api.sandboxes.cluster.watch import SharedWatch
from moorage_api.sandboxes.provider import Report, Sandbox, SandboxState, report_nothing
from moorage_crds.names import resource_name
from moorage_crds.types import DesiredState, SkillPin
from moorage_kube.client import KubeError
from moorage_kube.informer import KUBE_BACKOFF

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Longest wait for a change before checking whether the cluster still answers."""

FAILED_SECONDS = 10.0
"""Time to wait after a pod has failed, because the operator may replace it."""

AWAY = "The cluster does not answer; the sandbox starts when it answers again"


class ClusterSandboxes:
    """Implements `Sandboxes`. Created by `open`, which also runs its watch."""

    def __init__(self, resources: AgentSessions, watch: SharedWatch, *, start_timeout_seconds: float) -> None:
        self._resources = resources
        self._watch = watch
        self._start_timeout_seconds = start_timeout_seconds

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, namespace: str | None, kubeconfig: Path | None, start_timeout_seconds: float
    ) -> AsyncIterator[ClusterSandboxes]:
        async with AgentSessions.connect(namespace=namespace, kubeconfig=kubeconfig) as resources:
            watch = SharedWatch(resources)
            async with asyncio.TaskGroup() as group:
                following = group.create_task(watch.run(), name="watch agentsessions")
                try:
                    yield cls(resources, watch, start_timeout_seconds=start_timeout_seconds)
                finally:
                    following.cancel()

    async def register(self, session_id: UUID, *, owner_id: UUID) -> None:
        """Raises UnavailableError at once if the watch has lost the cluster, so that requests do not wait."""
        if self._watch.is_away:
            raise UnavailableError(AWAY)
        try:
            self._watch.offer(
                await self._resources.create(
                    build_manifest(session_id, owner_id=owner_id, desired_state=DesiredState.SUSPENDED)
                )
            )
        except KubeError as error:
            if error.status != 409:
                raise UnavailableError(f"Could not create the session's resource: {error}") from error

    async def ensure(
        self,
        session_id: UUID,
        *,
        owner_id: UUID,
        skills: Sequence[SkillPin] = (),
        report: Report = report_nothing,
    ) -> Sandbox:
        reporter = StateReporter(report)
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                return await self._ensure(session_id, owner_id=owner_id, skills=skills, reporter=reporter)
        except TimeoutError:
            waited = f"It was not ready after {self._start_timeout_seconds:.0f} s"
            reason = f"{waited}: {reporter.last.reason}" if reporter.last and reporter.last.reason else waited
        except KubeError as error:
            reason = f"The cluster refused the request: {error}"
        except SandboxFailedError as error:
            reason = str(error)
        await reporter.report(SandboxState("failed", reason))
        raise UnavailableError(f"The sandbox could not start: {reason}")

    async def _ensure(
        self, session_id: UUID, *, owner_id: UUID, skills: Sequence[SkillPin], reporter: StateReporter
    ) -> Sandbox:
        failures = 0
        while True:
            try:
                known = await self._want_running(session_id, owner_id=owner_id, skills=skills)
                sandbox = await self._until_ready(resource_name(session_id), known, reporter=reporter)
                if sandbox is not None:
                    return sandbox
            except KubeError as error:
                if is_refusal(error):
                    raise
                failures += 1
                if error.status not in (404, 409):
                    await reporter.report(SandboxState("queued", AWAY))
                await asyncio.sleep(KUBE_BACKOFF.pause_seconds(failures))

    async def _want_running(self, session_id: UUID, *, owner_id: UUID, skills: Sequence[SkillPin]) -> KnownResource:
        """Make sure that the resource exists and asks for a pod. Without errors this is at most one write."""
        name = resource_name(session_id)
        known = self._watch.get(name)
        if known is None:
            stored = await self._resources.get(session_id)
            known = self._watch.offer(stored) if stored is not None else None
        if known is None:
            body = build_manifest(session_id, owner_id=owner_id, desired_state=DesiredState.RUNNING, skills=skills)
            return self._watch.offer(await self._resources.create(body))
        if not known.is_wanted:
            return self._watch.offer(await self._resources.patch(session_id, running_patch(skills)))
        return known

    async def _until_ready(self, name: str, known: KnownResource, *, reporter: StateReporter) -> Sandbox | None:
        """Wait until the sandbox is ready. None if the resource was deleted or suspended and must be written again."""
        current: KnownResource | None = known
        failed_at: float | None = None
        while current is not None and current.is_wanted:
            is_known = current.sandbox is not None or not self._watch.is_away
            await reporter.report(current.state if is_known else SandboxState("queued", AWAY))
            if current.sandbox is not None:
                return current.sandbox
            if current.state.phase != "failed":
                failed_at = None
            elif failed_at is None:
                failed_at = time.monotonic()
            elif time.monotonic() - failed_at > FAILED_SECONDS:
                raise SandboxFailedError(current.state.reason)
            await self._watch.wait_for_change(name, current, within_seconds=LOOK_SECONDS)
            current = self._watch.get(name)
        return None

    async def find(self, session_id: UUID) -> Sandbox | None:
        """Find the sandbox in the watch's memory, so running sessions continue while the cluster does not answer."""
        name = resource_name(session_id)
        known = self._watch.get(name)
        if known is None and not self._watch.has_listed:
            try:
                stored = await self._resources.get(session_id)
            except KubeError as error:
                raise UnavailableError(f"Could not look for the sandbox: {error}. Try again shortly") from error
            known = read_resource(stored) if stored is not None else None
        return known.sandbox if known is not None else None

    async def ping(self) -> None:
        """Read a resource that does not exist: this needs no additional right."""
        try:
            await self._resources.get(UUID(int=0))
        except KubeError as error:
            raise UnavailableError(f"The cluster does not answer: {error}. Try again shortly") from error

    async def suspend(self, session_id: UUID) -> bool:
        try:
            stored = await self._resources.get(session_id)
            if stored is None or not (known := read_resource(stored)).is_wanted:
                return False
            self._watch.offer(await self._resources.patch(session_id, suspended_patch(known.resource_version)))
        except KubeError as error:
            if error.status in (404, 409):  # it was deleted, or another process needs it now
                return False
            raise UnavailableError(f"Could not suspend the sandbox: {error}") from error
        return True

    async def delete(self, session_id: UUID) -> None:
        try:
            await self._resources.delete(session_id)
        except KubeError as error:
            raise UnavailableError(f"Could not delete the session's resource: {error}. Try again later") from error

    async def find_unregistered(self, sessions: Sequence[UUID]) -> Sequence[UUID]:
        if not self._watch.is_current:
            return []
        return [session_id for session_id in sessions if self._watch.get(resource_name(session_id)) is None]


class SandboxFailedError(Exception):
    """The operator reports that this sandbox has failed. The message is the reason."""


class StateReporter:
    """Reports each state once, without repetitions."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.last: SandboxState | None = None
        """The newest state that was reported."""

    async def report(self, state: SandboxState) -> None:
        if state.phase == "suspended":  # an old state: the sandbox was already asked to start
            return
        if state != self.last:
            self.last = state
            await self._report(state)
