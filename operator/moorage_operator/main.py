"""Entry point of the operator: `python -m moorage_operator.main`.

Serves health from the start, waits for the Lease, then watches and works until the Lease is lost or it is told to stop.
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
from functools import partial

import kopf

from moorage_common.logs import configure_logging
from moorage_common.tasks import get_error, race
from moorage_kube.client import KubeClient, KubeError
from moorage_kube.informer import KUBE_BACKOFF
from moorage_operator import metrics, web
from moorage_operator.clock import utc_now
from moorage_operator.cluster import Cluster
from moorage_operator.followed_pods import FollowedPods
from moorage_operator.handlers import kopf_settings, registry
from moorage_operator.lease import Lease, LeaseTimes
from moorage_operator.reconcile import reconcile
from moorage_operator.settings import OperatorSettings
from moorage_operator.work_queue import WorkQueue

logger = logging.getLogger(__name__)

QUIET_LOGGERS = ("aiohttp.access", "kopf.objects", "kopf.activities")
"""These write a line for each request or object."""


class StopRequest:
    def __init__(self) -> None:
        self.made = asyncio.Event()

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.made.set)


async def serve(settings: OperatorSettings, stop: StopRequest) -> None:
    """Until the Lease is lost, something fails for good, or SIGTERM."""
    kube = await KubeClient.connect(settings.kubeconfig)
    heartbeat = web.Heartbeat(time.monotonic)
    times = LeaseTimes(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds)
    identity = settings.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    lease = Lease(kube, namespace=settings.namespace, name=settings.lease_name, identity=identity, times=times)
    try:
        async with web.served(
            host=settings.http_host, port=settings.http_port, is_alive=lambda: heartbeat.is_alive
        ) as port:
            logger.info("Serving health and metrics", extra={"port": port})
            beating = asyncio.create_task(heartbeat.keep())
            try:
                await lease.lead(partial(lead, settings, kube, stop))
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
    finally:
        await kube.close()


async def lead(settings: OperatorSettings, kube: KubeClient, stop: StopRequest) -> None:
    """The leader's work: watch, list now and then, and make passes. Ends only by being cancelled or failing."""
    cluster = Cluster(kube, namespace=settings.namespace)
    queue = WorkQueue(partial(reconcile, cluster=cluster, settings=settings.pod, now=utc_now), workers=settings.workers)
    pods = FollowedPods(cluster.store, queue)
    metrics.LEADING.set(1)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(cluster.follow_pods(pods, relist_seconds=settings.relist_seconds))
            await relist(cluster, queue)
            await pods.are_listed.wait()
            group.create_task(queue.run())
            group.create_task(watch(settings, cluster, queue, stop))
            group.create_task(relist_again(cluster, queue, every_seconds=settings.relist_seconds))
    finally:
        metrics.LEADING.set(0)


async def watch(settings: OperatorSettings, cluster: Cluster, queue: WorkQueue, stop: StopRequest) -> None:
    """Kopf takes SIGTERM for itself when it starts. We take it back; one that it got meanwhile ends Kopf."""
    await kopf.operator(
        registry=registry(cluster, queue, kubeconfig=settings.kubeconfig, on_started=stop.listen),
        settings=kopf_settings(),
        namespaces=[settings.namespace],
        standalone=True,
    )
    stop.made.set()


async def relist(cluster: Cluster, queue: WorkQueue) -> None:
    """Tries until it is done."""
    for failures in itertools.count(1):
        try:
            queue.add_all(await cluster.list_sessions())
        except KubeError as error:
            metrics.RELISTS.labels(outcome="failed").inc()
            logger.warning("Could not list", extra={"error": str(error)})
            await asyncio.sleep(KUBE_BACKOFF.pause_seconds(failures))
            continue
        metrics.RELISTS.labels(outcome="done").inc()
        metrics.SESSIONS.set(len(cluster.store.sessions))
        metrics.PODS.set(len(cluster.store.pods))
        return


async def relist_again(cluster: Cluster, queue: WorkQueue, *, every_seconds: float) -> None:
    """A watch that was cut, or had not begun, tells of no deletion that it missed; a list does."""
    while True:
        await asyncio.sleep(every_seconds)
        await relist(cluster, queue)


async def until_told(settings: OperatorSettings) -> int:
    """The exit code: 0 when we were told to stop, 1 when the Lease was lost, so that we are started anew."""
    stop = StopRequest()
    stop.listen()
    async with race(serve(settings, stop), stop.made.wait()) as (serving, _):
        pass
    if (error := get_error(serving)) is not None:
        logger.error("The operator ends because of an error", exc_info=error)
    return 0 if stop.made.is_set() else 1


def main() -> None:
    argparse.ArgumentParser(
        prog="moorage_operator.main", description=__doc__, epilog="Settings come from MOORAGE_OPERATOR_… variables."
    ).parse_args()
    configure_logging(quiet=QUIET_LOGGERS)
    sys.exit(asyncio.run(until_told(OperatorSettings())))


if __name__ == "__main__":
    main()
