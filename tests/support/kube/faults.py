"""A proxy before the API server that fails as real ones do: refusals, cut connections, watches that are too old."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from support.kube.control_plane import ControlPlane

Fault = int | str | None
"""A status to answer instead. "cut" ends the connection, a watch's after its first event; "gone" is a watch's 410.
"silent" opens a watch and says nothing on it, "empty" ends it at once. "late" answers after `late_seconds`."""


class FaultyProxy:
    """`fault` decides for each request; `failed` counts what was made to fail, by kind."""

    def __init__(self) -> None:
        self.fault: Callable[[web.Request], Fault] = lambda _: None
        self.failed: dict[str, int] = {}
        self.late_seconds = 1.0
        self.kubeconfig = Path()

    @classmethod
    @asynccontextmanager
    async def before(cls, control_plane: ControlPlane, directory: Path) -> AsyncIterator[FaultyProxy]:
        """Callers need no credentials: the proxy is the administrator."""
        made = cls()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=control_plane.tls, limit=0)) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await made._handle(request, session, control_plane.server)

            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)  # watches would be waited for
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                made.kubeconfig = directory / "proxied.kubeconfig"
                made.kubeconfig.write_text(json.dumps(plain_kubeconfig(f"http://127.0.0.1:{runner.addresses[0][1]}")))
                yield made
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.Request, session: aiohttp.ClientSession, server: str) -> web.StreamResponse:
        fault = self.fault(request)
        is_watch = request.query.get("watch") == "true"
        if fault is not None:
            self.failed[str(fault)] = self.failed.get(str(fault), 0) + 1
        if isinstance(fault, int):
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault, "reason": "Injected"}
            headers = {"Retry-After": "1"} if fault == 429 else {}
            return web.json_response({**body, "message": "made to fail"}, status=fault, headers=headers)
        if fault == "cut" and not is_watch:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "silent" and is_watch:
            await web.StreamResponse(headers={"Content-Type": "application/json"}).prepare(request)
            await asyncio.Event().wait()
        headers = {name: value for name, value in request.headers.items() if name.lower() in ("content-type", "accept")}
        async with session.request(
            request.method, server + request.raw_path, data=await request.read() or None, headers=headers
        ) as answer:
            if fault == "late":
                await asyncio.sleep(self.late_seconds)
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            if is_watch and fault == "empty":
                return response
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
                if is_watch and fault == "gone":
                    gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}
                    await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                    break
                if is_watch and fault == "cut":
                    assert request.transport is not None
                    request.transport.abort()
                    break
            return response


def plain_kubeconfig(server: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "none"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


def token_kubeconfig(control_plane: ControlPlane, token: str) -> dict[str, object]:
    """For one who has a service account's token and nothing else."""
    made = plain_kubeconfig(control_plane.server)
    made["clusters"] = [
        {
            "name": "c",
            "cluster": {"server": control_plane.server, "certificate-authority": str(control_plane.authority)},
        }
    ]
    made["users"] = [{"name": "u", "user": {"token": token}}]
    return made
