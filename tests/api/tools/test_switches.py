"""MCP servers, remote agents and skills that are switched off during a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx

from moorage_api.agent import prompts
from moorage_local.data.ports import free_ports
from support.accounts import admin, data, register
from support.llm import Call, Calls, Finish, Plan, Request, Say, ScriptedModel, Turn, play_script
from support.processes import Platform
from support.remote_tools import ROOT, a2a_agent, running
from support.skills import brand_report, write_skill
from support.sse import Chat
from support.world import find_called

REMOTE = {"mcp_counting_act", "skill_brand-report_run", "skill_read", "call_remote_agent", "get_remote_agent_cards"}


async def test_a_tool_that_a_user_or_an_admin_switches_off_is_off_for_a_current_run(
    platform: Platform, tmp_path: Path
) -> None:
    switches: list[tuple[str, str, dict[str, Any]]] = []
    agent_id = ""

    def choose(request: Request) -> Turn:
        place = sum(message["role"] == "assistant" for message in request["messages"])
        if place == 2:  # while the model answers, so its calls come after the switch
            for url, token, body in switches:
                httpx.post(url, json=body, headers={"Authorization": f"Bearer {token}"}).raise_for_status()
        turns: list[Turn] = [
            Plan("Task", "I will.", ["Do it"]),
            Call("mcp_counting_act"),
            Calls(
                Call("mcp_counting_act"),
                Call("skill_brand-report_run", {"args": ["x"]}),
                Call("call_remote_agent", {"id": agent_id, "query": "hello"}),
            ),
            Finish("done"),
            Say("Over."),
            Plan("Task", "Hello", []),
        ]
        return play_script(turns)(request)

    port, log = free_ports(1)[0], tmp_path / "calls.log"
    command = [sys.executable, "-m", "support.counting_mcp", str(log), "--port", str(port)]
    with (
        ScriptedModel(choose) as model,
        running(command, port, PYTHONPATH=str(ROOT / "tests")),
        a2a_agent() as agent,
    ):
        platform.changes.update(
            llm_base_url=model.url, llm_model="m", llm_api_key="k", skills_local_roots=str(tmp_path)
        )
        api = await platform.start_api()
        await platform.start_runner()
        async with await admin(api.url, platform.database_url) as root, await register(api.url) as alice:
            config = {"mcpServers": {"counting": {"url": f"http://127.0.0.1:{port}/mcp"}}}
            data(await root.client.post("/api/app-config/mcp-servers", json=config))
            data(await root.client.post("/api/app-config/a2a-servers", json={"base_url": agent.url}))
            source = write_skill(tmp_path / "brand-report", brand_report())
            body = {"source_type": "local", "source_ref": str(source)}
            data(await root.client.post("/api/v2/skills/install", json=body))
            agent_id = data(await alice.client.get("/api/user/tools/a2a"))["tools"][0]["tool_id"]
            off = {"enabled": False}
            switches += [
                (f"{api.url}/api/user/tools/mcp/counting/enabled", alice.token, off),
                (f"{api.url}/api/user/tools/a2a/{agent_id}/enabled", alice.token, off),
                (f"{api.url}/api/v2/skills/brand-report/enabled", root.token, off),
            ]
            chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
            assert (await chat.say("go")).event == "done"
            assert (await chat.say("hello")).event == "done"
    assert find_called(chat, "mcp_counting_act")["content"]["result"]  # the call before the switch
    assert len(log.read_text().splitlines()) == 1
    names = [{tool["function"]["name"] for tool in model.requests[place]["tools"]} for place in (2, 3, 5)]
    assert [REMOTE & found for found in names] == [REMOTE, REMOTE, set()], "the list changes with the next message"
    results = [str(message["content"]) for message in model.requests[3]["messages"] if message["role"] == "tool"]
    assert results[-3:] == [prompts.SWITCHED_OFF] * 3
