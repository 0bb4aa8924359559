"""`python -m benchmarks [name …]` runs all benchmarks or the named ones, and prints one table."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

from benchmarks import chats, events, mcp_calls, models, operators, requests, sandboxes, screens, skills, streams
from benchmarks.rows import Row, table
from moorage_api.clock import utc_now
from moorage_api.database import create_database, create_engine
from moorage_api.skills.pins import SessionSkills
from moorage_api.wiring.resources import blobs_of
from moorage_local.data.credentials import RUNNER_KEY_ID
from moorage_sandbox.client import GateClient, TokenSigner
from support.accounts import admin, register
from support.gate import Gate, Keys
from support.llm import Plan, ScriptedModel, by_first_message
from support.machine import Machine
from support.processes import Platform
from support.remote_tools import command_paths, everything
from support.services import Services, run, running_services

Measure = Callable[[Services, Path], Awaitable[list[Row]]]


def signer(services: Services) -> TokenSigner:
    return TokenSigner.from_file(services.keys.runner, key_id=RUNNER_KEY_ID, issuer="runner")


async def platform_on(services: Services, directory: Path, **changes: object) -> Platform:
    return Platform(services, await services.create_database(), directory, changes=changes)


async def measure_sandboxes(services: Services, directory: Path) -> list[Row]:
    platform = await platform_on(services, directory)
    try:
        await platform.start_host()
        return await sandboxes.measure(platform.host_socket, signer(services))
    finally:
        await platform.stop()


async def measure_chats(services: Services, directory: Path) -> list[Row]:
    greet = [Plan("Hello", "Hello!", [])] * (2 * chats.CHATS)
    script = by_first_message([("call", chats.tool_script()), ("hello", greet)])
    with ScriptedModel(script, chunk_chars=10_000) as model:
        platform = await platform_on(services, directory, llm_base_url=model.url, llm_api_key="k", llm_model="m")
        try:
            api = await platform.start_api()
            await asyncio.gather(platform.start_runner(), platform.start_host())
            async with await register(api.url) as alice:
                return [await chats.first_frame(alice), *await chats.tool_overhead(alice)]
        finally:
            await platform.stop()


async def measure_mcp(services: Services, directory: Path) -> list[Row]:
    scripts = by_first_message([(f"call {name}", mcp_calls.script(name)) for name in (mcp_calls.HTTP, mcp_calls.STDIO)])
    with ScriptedModel(scripts, chunk_chars=10_000) as model, everything("streamableHttp") as server:
        platform = await platform_on(services, directory, llm_base_url=model.url, llm_api_key="k", llm_model="m")
        try:
            api = await platform.start_api()
            await asyncio.gather(platform.start_runner(), platform.start_host(command_paths=command_paths()))
            async with await admin(api.url, platform.database_url) as root, await register(api.url) as alice:
                await mcp_calls.configure(root, url=server.url)
                return [await mcp_calls.overhead(alice, name) for name in (mcp_calls.HTTP, mcp_calls.STDIO)]
        finally:
            await platform.stop()


async def measure_requests(services: Services, directory: Path) -> list[Row]:
    database_url = await services.create_database()
    machine = Machine(directory / "data", {**requests.NO_LIMITS, **services.up_environment(database_url)})
    try:
        await machine.start()
        requests.pin(machine.part("moorage_api.main").pid, 0)
        async with await register(machine.url) as lister, await register(machine.url) as creator:
            await requests.fill(lister)
            engine = create_engine(database_url)
            async with engine.begin() as connection:
                await connection.execute(requests.FILL, {"owner": UUID(lister.id)})
            await engine.dispose()
            return await asyncio.to_thread(requests.measure, machine.url, lister, creator)
    finally:
        await machine.discard()


async def measure_streams(services: Services, directory: Path) -> list[Row]:
    platform = await platform_on(services, directory)
    engine = create_engine(platform.database_url)
    try:
        api = await platform.start_api()
        return await streams.measure(api.url, api.pid, engine, platform.settings())
    finally:
        await engine.dispose()
        await platform.stop()


async def measure_screens(services: Services, directory: Path) -> list[Row]:
    platform = await platform_on(services, directory)
    socket = directory / "rfb.sock"
    gate = Gate(directory, Keys(services.keys.trust_file), directory / "box.sock", rfb_socket=socket)
    screen = screens.Screen(socket)
    server = await screen.start()
    try:
        await gate.start()
        api = await platform.start_api()
        async with await register(api.url) as alice:
            session_id = await alice.create_session()
            owner = GateClient(gate.url, signer=signer(services), sandbox_uid=gate.uid, session_id=session_id, epoch=1)
            box = await screens.start_box(directory / "box.sock")
            host = await screens.start_host(platform.host_socket, uid=gate.uid, url=gate.url)
            async with owner:
                await owner.bind()
            url = f"{api.url}/api/sessions/{session_id}/vnc?token={alice.token}".replace("http", "ws", 1)
            try:
                return await screens.measure(url, socket)
            finally:
                for one in (box, host):
                    one.close()
    finally:
        server.close()
        await gate.stop()
        await platform.stop()


async def measure_events(_: Services, __: Path) -> list[Row]:
    return await events.rows()


async def measure_models(_: Services, __: Path) -> list[Row]:
    return await models.measure()


async def measure_operators(_: Services, directory: Path) -> list[Row]:
    return await operators.measure(directory)


async def measure_skills(services: Services, directory: Path) -> list[Row]:
    platform = await platform_on(services, directory)
    engine = create_engine(platform.database_url)
    blobs = blobs_of(platform.settings())
    try:
        await platform.start_host()
        sessions = SessionSkills(create_database(engine), utc_now)
        return await skills.measure(platform.host_socket, signer(services), blobs, sessions, directory)
    finally:
        await blobs.close()
        await engine.dispose()
        await platform.stop()


MEASUREMENTS: dict[str, Measure] = {
    "events": measure_events,
    "sandboxes": measure_sandboxes,
    "chats": measure_chats,
    "mcp": measure_mcp,
    "models": measure_models,
    "requests": measure_requests,
    "streams": measure_streams,
    "screens": measure_screens,
    "skills": measure_skills,
    "operators": measure_operators,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(MEASUREMENTS)}; all by default")
    names = parser.parse_args().names or list(MEASUREMENTS)
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        parser.error(f"there is no measurement {unknown[0]}")
    rows: list[Row] = []
    with running_services() as services:
        for name in names:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            directory = Path(tempfile.mkdtemp(prefix="mb-"))
            try:
                rows += run(_measure_one(MEASUREMENTS[name], services, directory))
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    print(table(rows))


async def _measure_one(measure: Measure, services: Services, directory: Path) -> list[Row]:
    return await measure(services, directory)


if __name__ == "__main__":
    main()
