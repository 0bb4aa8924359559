"""The Kubernetes API with plain dicts: requests, paged lists and watches over `kubernetes.aio`.

Its generated models are left aside: they change with every version and cost more than the rest of a request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

Manifest = dict[str, Any]

TIMEOUT_SECONDS = 15.0
PAGE = 250
WATCH_SECONDS = 290
"""The server ends a watch after this long; ours is told to before proxies do."""
LONGEST_WATCH_SECONDS = 330
SILENT_SECONDS = 90.0
"""The server says something on every watch once a minute. One that is silent for longer may have lost its connection
on the way, which no error tells."""
LINE_BYTES = 8 * 1024 * 1024

MERGE_PATCH = "application/merge-patch+json"


class KubeError(Exception):
    """The API server refused, or was not there (`status` 0). `reason` is Kubernetes' own word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({reason or status})" if message else reason or str(status))
        self.status = status
        self.reason = reason

    @property
    def is_gone(self) -> bool:
        """A watch or a page began too long ago: list anew."""
        return self.status == 410


class Kube:
    """One connection pool, with the credentials of a kubeconfig or of the pod that we are in."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> Self:
        """Reads credentials and sends nothing. Raises KubeError where there are none."""
        from kubernetes.aio import client, config  # takes 0.5 s, and one machine needs none of it

        settings = client.Configuration()
        try:
            if kubeconfig is not None:
                await config.load_kube_config(str(kubeconfig), client_configuration=settings, persist_config=False)
            else:
                config.load_incluster_config(client_configuration=settings)
        except config.ConfigException as error:
            raise KubeError(0, "NoCredentials", f"No way to the cluster: {error}") from error
        return cls(client.ApiClient(settings))

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def _response(
        self, method: str, path: str, query: Mapping[str, Any], body: Any, content_type: str, timeout: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        prepared = await self._client.param_serialize(
            method=method,
            resource_path=path,
            query_params=[(name, str(value)) for name, value in query.items()],
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = await self._client.call_api(*prepared, _preload_content=False, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            try:
                if response.status >= 400:
                    raise _refusal(response.status, await response.read())
                yield response
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, "Unreachable", f"The API server could not be reached: {type(error).__name__}") from error

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """Raises KubeError."""
        async with self._response(method, path, query or {}, body, content_type, TIMEOUT_SECONDS) as response:
            answer: Manifest = json.loads(await response.read())
            return answer

    async def find(self, path: str) -> Manifest | None:
        """An object, None where there is none. Raises KubeError."""
        try:
            return await self.request("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def pages(self, path: str, *, selector: str = "") -> AsyncIterator[Manifest]:
        """The pages of a list. Raises KubeError, `is_gone` when a later page has expired."""
        more: dict[str, Any] = {"labelSelector": selector} if selector else {}
        while True:
            page = await self.request("GET", path, query={"limit": PAGE, **more})
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            more["continue"] = token

    async def watch(
        self,
        path: str,
        *,
        since: str,
        selector: str = "",
        seconds: int = WATCH_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Manifest]:
        """Events after `since` until the server ends the watch or falls silent; bookmarks included. Raises KubeError.

        `opened` is called once the server has taken the watch, which can be long before it has something to tell.
        """
        query: dict[str, Any] = {
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        if selector:
            query["labelSelector"] = selector
        async with self._response("GET", path, query, None, "application/json", LONGEST_WATCH_SECONDS) as response:
            opened()
            rest = b""
            while chunk := await _next_chunk(response, silent_seconds):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LINE_BYTES:
                    raise KubeError(0, "TooLarge", "The API server sends an object without an end")
                for line in filter(None, lines):
                    event: Manifest = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _refusal_of(event["object"])
                    yield event


async def _next_chunk(response: aiohttp.ClientResponse, seconds: float) -> bytes:
    """Nothing at the end, and when nothing comes for so long."""
    try:
        async with asyncio.timeout(seconds):
            return await response.content.readany()
    except TimeoutError:
        return b""


def _refusal(status: int, body: bytes) -> KubeError:
    with suppress(ValueError, AttributeError):
        return _refusal_of(json.loads(body), status)
    return KubeError(status, "", body[:200].decode(errors="replace"))


def _refusal_of(status: Manifest, code: int = 0) -> KubeError:
    return KubeError(int(status.get("code") or code), str(status.get("reason") or ""), str(status.get("message") or ""))
