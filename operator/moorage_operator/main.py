"""Entry point of the operator: `python -m moorage_operator.main`.

It serves the probes from the start and waits for the Lease. The leader then watches and reconciles until it loses the
Lease or receives SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import secrets
import signal
import socket
import sys
import time
from datetime import UTC, datetime
from functools import partial

import kopf

from moorage_common.logging_setup import configure_logging
from moorage_common.tasks import get_error, race
from moorage_kube.client import KubeClient, KubeError
from moorage_kube.informer import KUBE_BACKOFF
from moorage_operator import metrics
from moorage_operator.cluster import Cluster
from moorage_operator.health import Heartbeat, serve_health
from moorage_operator.leader_election import ElectionTimes, LeaderElection
from moorage_operator.pod_events import PodEvents
from moorage_operator.reconcile import reconcile
from moorage_operator.session_events import build_kopf_settings, build_registry
from moorage_operator.settings import OperatorSettings
from moorage_operator.work_queue import WorkQueue

logger = logging.getLogger(__name__)

QUIET_LOGGERS = ("aiohttp.access", "kopf.objects", "kopf.activities")
"""These write a line for each request or object."""


class StopSignal:
    """SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.received = asyncio.Event()

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.received.set)


async def run_replica(settings: OperatorSettings, stop: StopSignal) -> None:
    """Serve health and take part in the election. Returns when the Lease is lost; raises what the work raises."""
    kube = await KubeClient.connect(settings.kubeconfig)
    heartbeat = Heartbeat(time.monotonic)
    times = ElectionTimes(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds)
    identity = settings.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    election = LeaderElection(
        kube, namespace=settings.namespace, name=settings.lease_name, identity=identity, times=times
    )
    try:
        async with serve_health(
            host=settings.http_host, port=settings.http_port, is_alive=lambda: heartbeat.is_alive
        ) as port:
            logger.info("Serving probes and metrics", extra={"port": port})
            beating = asyncio.create_task(heartbeat.run())
            try:
                await election.lead(partial(lead, settings, kube, stop))
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
    finally:
        await kube.close()


async def lead(settings: OperatorSettings, kube: KubeClient, stop: StopSignal) -> None:
    """The leader's work: watch, list periodically, and reconcile. It runs until it is cancelled or fails."""
    cluster = Cluster(kube, namespace=settings.namespace)
    work = partial(reconcile, cluster=cluster, settings=settings.pod, now=partial(datetime.now, UTC))
    queue = WorkQueue(work, workers=settings.workers)
    pod_events = PodEvents(cluster.store, queue)
    metrics.LEADING.set(1)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(cluster.follow_pods(pod_events, relist_seconds=settings.relist_seconds))
            await list_sessions(cluster, queue)
            await pod_events.are_listed.wait()
            group.create_task(queue.run())
            group.create_task(watch_sessions(settings, cluster, queue, stop))
            group.create_task(relist_sessions(cluster, queue, every_seconds=settings.relist_seconds))
    finally:
        metrics.LEADING.set(0)


async def watch_sessions(settings: OperatorSettings, cluster: Cluster, queue: WorkQueue, stop: StopSignal) -> None:
    """Run Kopf. It replaces our handler of SIGTERM when it starts, so we set ours again when it has started.

    A SIGTERM that arrives in between ends Kopf, and that ends the operator.
    """
    await kopf.operator(
        registry=build_registry(cluster.store, queue, kubeconfig=settings.kubeconfig, on_started=stop.listen),
        settings=build_kopf_settings(),
        namespaces=[settings.namespace],
        standalone=True,
    )
    stop.received.set()


async def list_sessions(cluster: Cluster, queue: WorkQueue) -> None:
    """Add all sessions to the queue. Tries until it succeeds."""
    for failures in itertools.count(1):
        try:
            queue.add_all(await cluster.list_sessions())
        except KubeError as error:
            metrics.RELISTS.labels(outcome="failed").inc()
            logger.warning("The sessions could not be listed, will try again", extra={"error": str(error)})
            await asyncio.sleep(KUBE_BACKOFF.pause_seconds(failures))
            continue
        metrics.RELISTS.labels(outcome="done").inc()
        metrics.SESSIONS.set(len(cluster.store.sessions))
        metrics.PODS.set(len(cluster.store.pods))
        return


async def relist_sessions(cluster: Cluster, queue: WorkQueue, *, every_seconds: float) -> None:
    """List periodically: a watch does not report a deletion that happened while it was not connected."""
    while True:
        await asyncio.sleep(every_seconds)
        await list_sessions(cluster, queue)


async def run_until_stopped(settings: OperatorSettings) -> int:
    """Returns the exit code: 0 after a stop signal, 1 otherwise, so that Kubernetes restarts the operator."""
    stop = StopSignal()
    stop.listen()
    async with race(run_replica(settings, stop), stop.received.wait()) as (replica, _):
        pass
    if (error := get_error(replica)) is not None:
        logger.error("The operator stops because of an error", exc_info=error)
    return 0 if stop.received.is_set() else 1


def main() -> None:
    argparse.ArgumentParser(
        prog="moorage_operator.main",
        description=__doc__,
        epilog="The settings are MOORAGE_OPERATOR_… environment variables.",
    ).parse_args()
    configure_logging(quiet=QUIET_LOGGERS)
    sys.exit(asyncio.run(run_until_stopped(OperatorSettings())))


if __name__ == "__main__":
    main()
