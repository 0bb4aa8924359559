"""Two apis and two runners whose sandboxes are pods: the events of a chat, and the requests to the cluster."""

from __future__ import annotations

from uuid import UUID

import pytest

from moorage_crds import names
from support import report
from support.accounts import register
from support.gate import Keys
from support.kube.sessions import writes_in
from support.llm import Finish, Plan, Say, ScriptedModel, Turn
from support.processes import Platform
from support.services import Services
from support.sse import Chat
from support.waiting import until

from .conftest import ClusterWorld

pytestmark = pytest.mark.timeout(15 * 60)


def turn(command: str) -> list[Turn]:
    return [Plan("A task", "I will try.", ["Try"]), report.shell(command), Finish("done"), Say("That was it.")]


async def test_a_session_survives_a_lost_and_a_suspended_pod(
    platform: Platform, services: Services, world: ClusterWorld
) -> None:
    world.gates.keys = Keys(services.keys.trust_file)
    world.gates.has_real_boxes = True
    with ScriptedModel([*turn("echo first"), *turn("echo second"), *turn("echo third")]) as model:
        platform.changes.update(
            llm_base_url=model.url,
            llm_model="scripted",
            llm_api_key="none",
            sandboxes="cluster",
            kubeconfig=world.kubeconfig,
            cluster_namespace=world.sessions.namespace,
            sweep_seconds=0.5,
        )
        apis = [await platform.start_api(), await platform.start_api()]
        for _ in range(2):
            await platform.start_runner()
        async with await register(apis[0].url) as alice:
            session_id = await alice.create_session()
            name = names.resource_name(UUID(session_id))
            made = await world.sessions.get(name)
            assert made is not None
            assert (made["spec"]["desiredState"], made["spec"]["ownerId"]) == ("Suspended", str(alice.id))

            chat = Chat(session_id, alice.token, lambda: apis[1].url)
            assert (await chat.say("Begin")).event == "done"
            assert [event["phase"] for event in chat.all("sandbox")] == ["starting", "ready"]
            assert "first" in str(chat.all("tool", status="called"))

            # the pod is lost: the next call creates another one, and the model is told
            await world.sessions.delete(name)

            async def has_no_pod() -> bool:
                return await world.sessions.pod(name) is None

            await until(has_no_pod, "the pod goes with its resource")
            assert (await chat.say("Go on")).event == "done"
            assert [event["phase"] for event in chat.all("sandbox")] == ["starting", "ready"] * 2
            assert "The sandbox of this session was lost" in str(model.requests[-1]["messages"])

            # the pod is idle: one of the runners suspends it and stores one event
            platform.changes.update(sandbox_idle_seconds=1)
            await platform.start_runner()
            await world.sessions.wait_for_condition(name, "Suspended")
            assert (await chat.say("And once more")).event == "done"
            assert [event["phase"] for event in chat.all("sandbox")][4:7] == ["suspended", "resuming", "ready"]

            assert (await alice.client.post(f"/api/sessions/{session_id}/delete")).is_success

            async def is_gone() -> bool:
                return await world.sessions.get(name) is None

            await until(is_gone, "the resource goes with its session")
    writes = [
        verb
        for user, verb, _ in writes_in(world.control_plane.audit_log, world.sessions.namespace)
        if user == world.api_user
    ]
    assert writes.count("create") == 2  # the second one was lost
    assert writes.count("delete") == 1
