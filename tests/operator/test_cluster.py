"""What the operator knows after it has asked a real API server for something."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage_kube.client import KubeError
from moorage_operator.children.pod import sandbox_pod
from moorage_operator.cluster import Cluster
from moorage_operator.settings import PodSettings
from support.kube.kubelet import Kubelet, status
from support.kube.sessions import IMAGES, Sessions
from support.waiting import until

SETTINGS = PodSettings(**{name.lower(): image for name, image in IMAGES.items()})


async def test_a_pod_that_ended_with_its_deletion_is_gone(sessions: Sessions) -> None:
    """No event has to tell that first: a second pass would count its failure again."""
    cluster, name = await cluster_with_pod(sessions)
    await cluster.delete_pod(cluster.store.pods[name])
    assert cluster.store.pods == {}
    assert await sessions.pod(name) is None


async def test_a_pod_whose_node_has_to_end_it_is_ending(sessions: Sessions, kubelet: Kubelet) -> None:
    kubelet.behave = lambda pod: status(pod)
    kubelet.holds_on = True
    cluster, name = await cluster_with_pod(sessions)

    async def is_on_its_node() -> bool:
        await cluster.look(name)
        return cluster.store.pods[name].has_screen

    await until(is_on_its_node, "the pod is on its node")
    await cluster.delete_pod(cluster.store.pods[name])
    assert cluster.store.pods[name].deleted_at is not None
    await cluster.delete_pod(cluster.store.pods[name], at_once=True)
    assert cluster.store.pods == {}
    assert await sessions.pod(name) is None


async def test_a_later_pod_of_that_name_is_left_alone(sessions: Sessions) -> None:
    cluster, name = await cluster_with_pod(sessions)
    later = cluster.store.pods[name]
    with pytest.raises(KubeError) as refused:
        await cluster.delete_pod(replace(later, uid="an-earlier-one"))
    assert refused.value.status == 409
    assert cluster.store.pods == {name: later}


async def cluster_with_pod(sessions: Sessions) -> tuple[Cluster, str]:
    cluster = Cluster(sessions.kube, namespace=sessions.namespace)
    name = await sessions.create(desiredState="Running")
    await cluster.look(name)
    await cluster.create_pod(sandbox_pod(cluster.store.sessions[name], settings=SETTINGS))
    return cluster, name
