"""A proxy before the API server with the faults of real ones: refusals, cut connections, expired watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from moorage_kube.client import close_at_once
from support.kube.control_plane import ControlPlane

Fault = int | str | None
"""An integer is the status of the response. "cut" closes the connection, for a watch after its first event. "gone"
sends the 410 of an expired watch. "silent" opens a watch and sends nothing on it, "empty" ends it immediately. "late"
sends the response after `late_seconds`."""


class FaultyProxy:
    """`fault` chooses the fault of each request; `failed` counts the requests with a fault, by kind."""

    def __init__(self) -> None:
        self.fault: Callable[[web.Request], Fault] = lambda _: None
        self.failed: dict[str, int] = {}
        self.late_seconds = 1.0
        self.kubeconfig = Path()

    @classmethod
    @asynccontextmanager
    async def before(cls, control_plane: ControlPlane, directory: Path) -> AsyncIterator[FaultyProxy]:
        """Run a proxy. Its clients need no credentials, because the proxy uses those of the administrator."""
        made = cls()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=control_plane.tls, limit=0)) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await made._handle(request, session, control_plane.server)

            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)  # do not wait for open watches
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
            try:
                return await self._copy(answer, request, fault if is_watch else None)
            finally:
                close_at_once(answer)

    async def _copy(self, answer: aiohttp.ClientResponse, request: web.Request, fault: Fault) -> web.StreamResponse:
        """Send the API server's answer on, with the fault of a watch."""
        response = web.StreamResponse(status=answer.status)
        response.content_type = answer.content_type
        await response.prepare(request)
        if fault == "empty":
            return response
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
            if fault == "gone":
                gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}
                await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                break
            if fault == "cut":
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
    """A kubeconfig with only the token of a service account."""
    made = plain_kubeconfig(control_plane.server)
    made["clusters"] = [
        {
            "name": "c",
            "cluster": {"server": control_plane.server, "certificate-authority": str(control_plane.authority)},
        }
    ]
    made["users"] = [{"name": "u", "user": {"token": token}}]
    return made
