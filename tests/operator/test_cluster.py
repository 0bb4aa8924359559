"""What the store holds after a request to a real API server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage_kube.client import KubeError
from moorage_operator.cluster import Cluster
from moorage_operator.sandbox_pod.manifest import build_pod
from moorage_operator.sandbox_pod.settings import PodSettings
from support.kube.kubelet import Kubelet, status
from support.kube.sessions import IMAGES, Sessions
from support.waiting import until

SETTINGS = PodSettings(**{name.lower(): image for name, image in IMAGES.items()})


async def test_a_pod_without_a_node_leaves_the_store_when_it_is_deleted(sessions: Sessions) -> None:
    """Without waiting for an event: reconciling it once more would count its failure twice."""
    cluster, name = await cluster_with_pod(sessions)
    await cluster.delete_pod(cluster.store.pods[name])
    assert cluster.store.pods == {}
    assert await sessions.pod(name) is None


async def test_a_pod_on_a_node_terminates_until_its_deletion_is_forced(sessions: Sessions, kubelet: Kubelet) -> None:
    kubelet.behave = lambda pod: status(pod)
    kubelet.holds_on = True
    cluster, name = await cluster_with_pod(sessions)

    async def is_on_its_node() -> bool:
        await cluster.refresh(name)
        return cluster.store.pods[name].has_screen

    await until(is_on_its_node, "the pod is on its node")
    await cluster.delete_pod(cluster.store.pods[name])
    assert cluster.store.pods[name].deleted_at is not None
    await cluster.delete_pod(cluster.store.pods[name], is_forced=True)
    assert cluster.store.pods == {}
    assert await sessions.pod(name) is None


async def test_a_later_pod_with_the_same_name_is_not_deleted(sessions: Sessions) -> None:
    cluster, name = await cluster_with_pod(sessions)
    later = cluster.store.pods[name]
    with pytest.raises(KubeError) as refused:
        await cluster.delete_pod(replace(later, uid="an-earlier-one"))
    assert refused.value.status == 409
    assert cluster.store.pods == {name: later}


async def cluster_with_pod(sessions: Sessions) -> tuple[Cluster, str]:
    cluster = Cluster(sessions.kube, namespace=sessions.namespace)
    name = await sessions.create(desiredState="Running")
    await cluster.refresh(name)
    await cluster.create_pod(build_pod(cluster.store.sessions[name], settings=SETTINGS))
    return cluster, name
