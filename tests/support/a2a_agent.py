"""A remote agent built with the A2A project's own server: `python -m support.a2a_agent --port N [--streaming] [--old]`.

It repeats what it is told. "ask me" makes it ask a question first, "fail" makes it fail, "artifact" answers in two
chunks of an artifact, "draw" with a picture. `--old` gives it the card of protocol 0.3, at the place where agents
before 0.3 had theirs.
"""

from __future__ import annotations

import argparse

import uvicorn
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from moorage_api.agent.trial import orange_square


class Echo(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        user_input = context.get_user_input()
        task = context.current_task
        is_answer = task is not None
        if task is None:
            assert context.message is not None
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)

        def message(text: str) -> object:
            return updater.new_agent_message([new_text_part(text)])

        await updater.start_work()
        if "ask me" in user_input and not is_answer:
            await updater.requires_input(message("Which colour?"))  # type: ignore[arg-type]
        elif "fail" in user_input:
            await updater.failed(message("I cannot do that"))  # type: ignore[arg-type]
        elif "artifact" in user_input:
            await updater.add_artifact([new_text_part("first half, ")], artifact_id="a", append=False)
            await updater.add_artifact([new_text_part("second half")], artifact_id="a", append=True, last_chunk=True)
            await updater.complete()
        elif "draw" in user_input:
            drawn = Part(raw=orange_square(), media_type="image/png", filename="square.png")
            await updater.add_artifact([drawn])
            await updater.complete()
        else:
            prefix = "You answered" if is_answer else "You said"
            await updater.complete(message(f"{prefix}: {user_input}"))  # type: ignore[arg-type]

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def app(url: str, *, streaming: bool, is_old: bool) -> Starlette:
    card = AgentCard(
        name="Echo",
        description="Repeats what it is told",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=f"{url}/rpc", protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=streaming, push_notifications=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Say it again", tags=["echo"])],
    )
    handler = DefaultRequestHandler(agent_executor=Echo(), task_store=InMemoryTaskStore(), agent_card=card)

    async def old_card(_: Request) -> JSONResponse:
        return JSONResponse(
            {
                "name": "Old Echo",
                "description": "Repeats what it is told, in protocol 0.3",
                "url": f"{url}/rpc",
                "preferredTransport": "JSONRPC",
                "protocolVersion": "0.3.0",
                "version": "1.0.0",
                "capabilities": {"streaming": streaming},
                "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"],
                "skills": [],
            }
        )

    cards = [Route("/.well-known/agent.json", old_card)] if is_old else create_agent_card_routes(card)
    return Starlette(routes=[*cards, *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--old", action="store_true")
    options = parser.parse_args()
    url = f"http://127.0.0.1:{options.port}"
    uvicorn.run(
        app(url, streaming=options.streaming, is_old=options.old),
        host="127.0.0.1",
        port=options.port,
        log_level="error",
    )


if __name__ == "__main__":
    main()
