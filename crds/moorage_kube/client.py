"""Requests, paged lists and watches on the Kubernetes API, with plain dicts, over `kubernetes.aio`.

We do not use its generated models: they change with every version and cost more time than the rest of a request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

Manifest = dict[str, Any]
"""A Kubernetes object, or a list or status of the API server, as JSON."""

TIMEOUT_SECONDS = 15.0
PAGE_SIZE = 250
WATCH_SECONDS = 290
"""We ask the server to end a watch after this time, before a proxy on the way cuts it."""
WATCH_TIMEOUT_SECONDS = 330
SILENT_SECONDS = 90.0
"""The server sends a bookmark on every watch once a minute. When a watch is silent for longer, its connection may be
lost without an error, so we open it again."""
LINE_LIMIT_BYTES = 8 * 1024 * 1024

MERGE_PATCH = "application/merge-patch+json"


class KubeError(Exception):
    """The API server refused a request, or it could not be reached (then `status` is 0).

    `reason` is the CamelCase reason of Kubernetes' Status object, or our own when `status` is 0.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({reason or status})" if message else reason or str(status))
        self.status = status
        self.reason = reason

    @property
    def is_expired(self) -> bool:
        """Whether a watch or a list continues from a version that the server no longer has: list again."""
        return self.status == 410


class KubeClient:
    """One connection pool, with the credentials of a kubeconfig or of this pod's service account.

    Its methods raise KubeError.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> Self:
        """Read the credentials; send nothing yet. Raises KubeError when there are no credentials."""
        from kubernetes.aio import client, config  # the import takes 0.5 s, and without a cluster it is not needed

        settings = client.Configuration()
        try:
            if kubeconfig is not None:
                await config.load_kube_config(str(kubeconfig), client_configuration=settings, persist_config=False)
            else:
                config.load_incluster_config(client_configuration=settings)
        except config.ConfigException as error:
            raise KubeError(0, "NoCredentials", f"There are no credentials for the cluster: {error}") from error
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
            result = await self._client.call_api(*prepared, _preload_content=False, _request_timeout=timeout)
            response: aiohttp.ClientResponse = result.response
            try:
                if response.status >= 400:
                    raise _error_from_body(response.status, await response.read())
                yield response
            finally:
                close_at_once(response)
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
        """Send one request and return the object in its response."""
        async with self._response(method, path, query or {}, body, content_type, TIMEOUT_SECONDS) as response:
            content: Manifest = json.loads(await response.read())
            return content

    async def find(self, path: str) -> Manifest | None:
        """Return the object, or None when it does not exist."""
        try:
            return await self.request("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def pages(self, path: str, *, selector: str = "") -> AsyncIterator[Manifest]:
        """Yield the pages of a list. The error `is_expired` when reading took so long that a later page is gone."""
        query: dict[str, Any] = {"limit": PAGE_SIZE}
        if selector:
            query["labelSelector"] = selector
        while True:
            page = await self.request("GET", path, query=query)
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def watch(
        self,
        path: str,
        *,
        since: str,
        selector: str = "",
        seconds: int = WATCH_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Manifest]:
        """Yield the events after version `since`, bookmarks included, until the server ends the watch or is silent.

        Calls `on_open` when the server has accepted the watch; the first event can come much later.
        """
        query: dict[str, Any] = {
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        if selector:
            query["labelSelector"] = selector
        async with self._response("GET", path, query, None, "application/json", WATCH_TIMEOUT_SECONDS) as response:
            on_open()
            rest = b""
            while chunk := await _next_chunk(response, silent_seconds):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LINE_LIMIT_BYTES:
                    raise KubeError(0, "TooLarge", f"One event has more than {LINE_LIMIT_BYTES} bytes")
                for line in filter(None, lines):
                    event: Manifest = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error_from_status(event["object"])
                    yield event


def close_at_once(response: aiohttp.ClientResponse) -> None:
    """Close the connection of a response that was not read to its end, and do not wait for the server.

    aiohttp would end TLS first, and the connection stays open for up to 30 s when the server is slow to answer that.
    """
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def _next_chunk(response: aiohttp.ClientResponse, seconds: float) -> bytes:
    """The next chunk, or b"" at the end of the stream or after `seconds` without data."""
    try:
        async with asyncio.timeout(seconds):
            return await response.content.readany()
    except TimeoutError:
        return b""


def _error_from_body(status: int, body: bytes) -> KubeError:
    with suppress(ValueError, AttributeError):
        return _error_from_status(json.loads(body), status)
    return KubeError(status, "", body[:200].decode(errors="replace"))


def _error_from_status(status: Manifest, code: int = 0) -> KubeError:
    return KubeError(int(status.get("code") or code), str(status.get("reason") or ""), str(status.get("message") or ""))
