"""The cost of one MCP tool call, with a model that answers immediately.

Method: one api, one runner and one host process. The server is `@modelcontextprotocol/server-everything` of others,
once as a command under bubblewrap, once over streamable HTTP. The overhead is what lies between the `calling` and
the `called` frame of its `echo`, the server's own work included.
"""

from __future__ import annotations

from benchmarks.chats import timed_chat
from benchmarks.rows import Row
from support.accounts import Person, data
from support.llm import Call, Finish, Plan, Say, Turn

CALLS = 80
HTTP, STDIO = "http", "stdio"


def script(server: str) -> list[Turn]:
    """Each call differs from the one before: a run whose calls repeat is ended."""
    calls = [Call(f"mcp_{server}_echo", {"message": str(number)}) for number in range(CALLS)]
    return [Plan("Calls", "I call.", ["Call"]), *calls, Finish("done"), Say("Done.")]


async def configure(root: Person, *, url: str) -> None:
    servers = {
        HTTP: {"url": f"{url}/mcp"},
        STDIO: {"transport": "stdio", "command": "mcp-server-everything"},
    }
    data(await root.client.post("/api/app-config/mcp-servers", json={"mcpServers": servers}))


async def overhead(alice: Person, server: str) -> Row:
    seen = await timed_chat(alice, await alice.create_session(), f"call {server}")
    assert seen[-1][1].event == "done", seen[-1][1]
    calling = [at for at, frame in seen if frame.data.get("status") == "calling"]
    called = [at for at, frame in seen if frame.data.get("status") == "called"]
    assert len(calling) == len(called) == CALLS
    samples = [(after - before) * 1000 for before, after in zip(calling, called, strict=True)][1:]
    how = "under bubblewrap" if server == STDIO else "streamable HTTP"
    return Row(f"one MCP tool call, {server}", "ms", samples, "", f"{how}, calling to called frame, without the first")
