"""A remote agent built with the A2A project's own server: it is added, gets tasks, asks questions, and is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from moorage_api.errors import InvalidError, OutboundRefusedError
from moorage_api.outbound import Outbound
from moorage_api.tools.a2a.client import AgentLostError, AgentRefusedError, RemoteAgent, check_card, fetch_card
from support.accounts import Person, data
from support.llm import Call, Finish, Plan, Say, Turn
from support.remote_tools import ToolServer, a2a_agent
from support.sse import Chat
from support.world import ToolsWorld, find_called


async def add(root: Person, url: str) -> dict[str, Any]:
    data(await root.client.post("/api/app-config/a2a-servers", json={"base_url": url}))
    servers = data(await root.client.get("/api/app-config/a2a-servers"))["a2a_servers"]
    assert isinstance(servers[-1], dict)
    return servers[-1]


async def remove(root: Person, server_id: str) -> None:
    data(await root.client.post(f"/api/app-config/a2a-servers/{server_id}/delete"))


async def test_an_agent_is_listed_and_given_a_task(
    world: ToolsWorld, root: Person, alice: Person, agent: ToolServer
) -> None:
    server = await add(root, agent.url)
    assert server == {
        "id": server["id"],
        "name": "Echo",
        "description": "Repeats what it is told",
        "input_modes": ["text/plain"],
        "output_modes": ["text/plain"],
        "streaming": True,
        "push_notifications": False,
        "enabled": True,
    }
    chat = await world.chat(
        alice,
        "use the remote agent",
        Call("get_remote_agent_cards"),
        Call("call_remote_agent", {"id": server["id"], "query": "hello there"}),
    )
    (card,) = json.loads(find_called(chat, "get_remote_agent_cards")["content"]["a2a_result"])
    assert (card["id"], card["name"], card["skills"][0]["name"]) == (server["id"], "Echo", "Echo")
    event = find_called(chat, "call_remote_agent")
    assert (event["name"], event["content"]) == ("a2a", {"a2a_result": "You said: hello there"})
    await remove(root, server["id"])


async def test_a_picture_of_an_agent_is_stored_for_the_model(
    world: ToolsWorld, root: Person, alice: Person, agent: ToolServer
) -> None:
    server = await add(root, agent.url)
    chat = await world.chat(alice, "let it draw", Call("call_remote_agent", {"id": server["id"], "query": "draw it"}))
    assert find_called(chat, "call_remote_agent")["content"]["a2a_result"].startswith("[square.png, image/png, ")
    request_text = str(world.model.requests[-1]["messages"])
    assert "PNG picture of 64x64 pixels: not shown, because this model cannot see pictures" in request_text
    await remove(root, server["id"])


async def test_the_question_of_an_agent_is_answered_in_the_same_task(
    world: ToolsWorld, root: Person, alice: Person, agent: ToolServer
) -> None:
    server = await add(root, agent.url)
    ask = Call("call_remote_agent", {"id": server["id"], "query": "ask me something"})
    reply = Call("call_remote_agent", {"id": server["id"], "query": "blue"})
    turns: list[Turn] = [Plan("Task", "I will.", ["Do it"]), ask, reply, Finish("done"), Say("Over.")]
    world.scripts.append(("let it ask", turns))
    chat = Chat(await alice.create_session(), alice.token, lambda: world.url)
    assert (await chat.say("let it ask")).event == "done"
    asked, answered = [one for one in chat.all("tool", status="called") if one["name"] == "a2a"]
    assert "Which colour?" in asked["content"]["a2a_result"]
    assert answered["content"]["a2a_result"] == "You answered: blue"
    await remove(root, server["id"])


async def test_an_agent_that_a_user_or_an_admin_switched_off_is_not_offered(
    world: ToolsWorld, root: Person, alice: Person, agent: ToolServer
) -> None:
    server = await add(root, agent.url)
    (tool,) = data(await alice.client.get("/api/user/tools/a2a"))["tools"]
    assert tool == {
        "tool_id": server["id"],
        "tool_name": "Echo",
        "description": "Repeats what it is told",
        "enabled_global": True,
        "enabled_user": True,
    }
    data(await alice.client.post(f"/api/user/tools/a2a/{server['id']}/enabled", json={"enabled": False}))
    assert data(await alice.client.get("/api/user/tools/a2a"))["tools"][0]["enabled_user"] is False
    await world.chat(alice, "without agents", Call("search_web", {"query": "x"}))
    assert "call_remote_agent" not in world.offered_functions("without agents")
    data(await alice.client.post(f"/api/user/tools/a2a/{server['id']}/enabled", json={"enabled": True}))
    data(await root.client.post(f"/api/app-config/a2a-servers/{server['id']}/enabled", json={"enabled": False}))
    (tool,) = data(await alice.client.get("/api/user/tools/a2a"))["tools"]
    assert (tool["enabled_global"], tool["enabled_user"]) == (False, True)
    await world.chat(alice, "agents are off", Call("search_web", {"query": "x"}))
    assert "call_remote_agent" not in world.offered_functions("agents are off")
    data(await root.client.post(f"/api/app-config/a2a-servers/{server['id']}/enabled", json={"enabled": True}))
    await remove(root, server["id"])
    assert data(await alice.client.get("/api/user/tools/a2a")) == {"tools": []}


UNREACHABLE = {
    "a closed port": ("http://127.0.0.1:1", "invalid"),
    "no such name": ("http://agent.invalid", "invalid"),
    "metadata": ("http://169.254.169.254", "outbound_refused"),
}


@pytest.mark.parametrize(("url", "code"), UNREACHABLE.values(), ids=UNREACHABLE.keys())
async def test_an_unreachable_agent_is_refused_and_not_stored(root: Person, url: str, code: str) -> None:
    response = await root.client.post("/api/app-config/a2a-servers", json={"base_url": url})
    assert (response.status_code, response.json()["data"]["error"]) == (400, code)
    assert data(await root.client.get("/api/app-config/a2a-servers"))["a2a_servers"] == []


async def test_a_server_that_is_not_an_agent_is_refused(root: Person, streamable: ToolServer) -> None:
    response = await root.client.post("/api/app-config/a2a-servers", json={"base_url": streamable.url})
    assert (response.status_code, response.json()["data"]["error"]) == (400, "invalid")


async def test_the_same_agent_twice_is_a_conflict(root: Person, agent: ToolServer) -> None:
    server = await add(root, agent.url)
    response = await root.client.post("/api/app-config/a2a-servers", json={"base_url": f"{agent.url}/"})
    assert response.status_code == 409
    await remove(root, server["id"])


async def test_only_admins_change_agents_and_unknown_agents_are_not_found(root: Person, alice: Person) -> None:
    body = {"base_url": "http://127.0.0.1:1"}
    assert (await alice.client.post("/api/app-config/a2a-servers", json=body)).status_code == 403
    for server_id in (str(uuid4()), "no-id"):
        for path, extra in (("delete", {}), ("enabled", {"enabled": True})):
            url = f"/api/app-config/a2a-servers/{server_id}/{path}"
            assert (await alice.client.post(url, json=extra)).status_code == 403
            assert (await root.client.post(url, json=extra)).status_code == 404
        url = f"/api/user/tools/a2a/{server_id}/enabled"
        assert (await alice.client.post(url, json={"enabled": False})).status_code == 404
    alice.client.headers.pop("Authorization")
    assert (await alice.client.get("/api/app-config/a2a-servers")).status_code == 200
    assert (await alice.client.get("/api/user/tools/a2a")).status_code == 401


async def remote(url: str) -> RemoteAgent:
    return RemoteAgent(Outbound(), url, await fetch_card(Outbound(), url))


@pytest.mark.parametrize("options", [("--streaming",), (), ("--old",), ("--old", "--streaming")], ids=" ".join)
async def test_agents_of_both_protocol_versions_answer_with_and_without_streaming(options: tuple[str, ...]) -> None:
    with a2a_agent(*options) as server:
        agent = await remote(server.url)
        assert (await agent.send("hello")).text == "You said: hello"
        assert (await agent.send("an artifact")).text == "first half, second half"
        failed = await agent.send("fail")
        assert (failed.state, failed.text) == ("failed", "I cannot do that")
        asked = await agent.send("ask me")
        assert (asked.state, asked.text) == ("input_required", "Which colour?")
        answered = await agent.send("red", context_id=asked.context_id, task_id=asked.task_id)
        assert (answered.state, answered.text, answered.task_id) == ("completed", "You answered: red", "")


async def test_a_message_to_a_stopped_agent_is_an_error(agent: ToolServer) -> None:
    with a2a_agent() as server:
        gone = await remote(server.url)
    with pytest.raises((AgentRefusedError, AgentLostError)):
        await gone.send("hello")


async def test_an_agent_that_dies_during_a_task_leaves_the_outcome_unknown() -> None:
    cards: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(cards[0]) + cards[0])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    cards.append(json.dumps({"name": "X", "url": f"{url}/rpc", "protocolVersion": "0.3.0"}).encode())
    agent = await remote(url)
    with pytest.raises(AgentLostError):
        await agent.send("hello")
    server.close()


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"name": "X\\u0000", "url": "http://127.0.0.1/"}', b"x" * 300_000])
async def test_an_invalid_card_is_refused(body: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    with pytest.raises(InvalidError):
        await fetch_card(Outbound(), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()


CARDS = {
    "an address inside": ({"name": "X", "url": "http://10.0.0.1/"}, OutboundRefusedError),
    "metadata": ({"name": "X", "url": "http://169.254.169.254/"}, OutboundRefusedError),
    "a file": ({"name": "X", "url": "file:///etc/passwd"}, OutboundRefusedError),
    "no address": ({"name": "X"}, InvalidError),
    "only gRPC": ({"name": "X", "url": "http://127.0.0.1/", "preferredTransport": "GRPC"}, InvalidError),
}


@pytest.mark.parametrize(("card", "error"), CARDS.values(), ids=CARDS.keys())
async def test_a_card_with_a_forbidden_or_unsupported_address_is_refused(
    card: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await check_card(Outbound(), "http://127.0.0.1:9", card)
