"""Transports that connect to the checked address and limit the size and the duration of each response.

httpx and httpx2 have equal but unrelated classes. So the code is written once, in base classes with the library as a
class variable, and each library gets subclasses of its own types.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import httpx
import httpx2

from moorage_api.outbound.addresses import Address, Target
from moorage_api.outbound.policy import Guard


@dataclass(frozen=True)
class ResponseLimits:
    """Limits of one response. `seconds` is the time from the request to the last byte; None for streams."""

    body_bytes: int
    seconds: float | None = None


def with_server_name(target: Target, address: Address, extensions: Mapping[str, Any]) -> dict[str, Any]:
    """Add the host name for TLS: the connection goes to `address`, but the certificate must be for the name."""
    server_name = {} if target.host == str(address) else {"sni_hostname": target.host}
    return {**extensions, **server_name}


class ResponseLimitError(Exception):
    """A response is longer than its limit, takes longer, or is compressed."""


async def limit_chunks(
    chunks: AsyncIterator[bytes], limits: ResponseLimits, *, deadline: float | None
) -> AsyncIterator[bytes]:
    """Yield the chunks. Raises ResponseLimitError after too many bytes or at the deadline."""
    seen = 0
    while True:
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ResponseLimitError(f"The response took longer than {limits.seconds:g} s") from error
        seen += len(chunk)
        if seen > limits.body_bytes:
            raise ResponseLimitError(f"The response is longer than {limits.body_bytes} bytes")
        yield chunk


def check_encoding(encoding: str) -> None:
    """Raise ResponseLimitError for a compressed response: it could decompress to any size, and we ask for none."""
    if encoding.strip().lower() not in ("", "identity"):
        raise ResponseLimitError(f"The response is compressed ({encoding.strip()[:50]}), but we asked for identity")


@cache
def tls_context() -> Any:
    """The TLS context of all clients of this process. It takes 50 ms to create."""
    return httpx2.create_ssl_context(trust_env=False)


class LimitedStream:
    """The body of a response, within `limits`."""

    _library: ClassVar[Any]

    def __init__(self, stream: Any, limits: ResponseLimits, deadline: float | None) -> None:
        self._stream = stream
        self._limits = limits
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in limit_chunks(aiter(self._stream), self._limits, deadline=self._deadline):
                yield chunk
        except ResponseLimitError as error:
            raise self._library.ReadError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class GuardedTransportBase:
    """Checks every request, including redirects, with the guard.

    There is one connection pool for each host name, so that a connection is only reused for the name it was made for.
    """

    _library: ClassVar[Any]
    _body: ClassVar[type[LimitedStream]]

    def __init__(self, guard: Guard, limits: ResponseLimits) -> None:
        self._guard = guard
        self._limits = limits
        self._pools: dict[str, Any] = {}

    async def handle_async_request(self, request: Any) -> Any:
        library = self._library
        target = Target.of(str(request.url.copy_with(fragment=None)))
        deadline = None if self._limits.seconds is None else time.monotonic() + self._limits.seconds
        try:
            addresses = await self._guard.addresses(target)
        except OSError as error:
            raise library.ConnectError(str(error), request=request) from error
        request.headers["Accept-Encoding"] = "identity"
        response = await self._send(request, target, addresses, deadline)
        try:
            check_encoding(response.headers.get("content-encoding", ""))
        except ResponseLimitError as error:
            await response.aclose()
            raise library.ReadError(str(error), request=request) from error
        response.stream = self._body(response.stream, self._limits, deadline)
        return response

    async def _send(self, request: Any, target: Target, addresses: list[Address], deadline: float | None) -> Any:
        """Send the request to the first address that accepts a connection."""
        library = self._library
        if target.host not in self._pools:
            self._pools[target.host] = library.AsyncHTTPTransport(verify=tls_context(), trust_env=False)
        for address in addresses:
            to_address = library.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions=with_server_name(target, address, request.extensions),
            )
            try:
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    return await self._pools[target.host].handle_async_request(to_address)
            except library.ConnectError as error:
                failure = error
            except TimeoutError as error:
                raise library.ReadTimeout("The server did not answer in time", request=request) from error
        raise failure

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Stream(LimitedStream, httpx.AsyncByteStream):
    _library: ClassVar[Any] = httpx


class _Stream2(LimitedStream, httpx2.AsyncByteStream):
    _library: ClassVar[Any] = httpx2


class GuardedTransport(GuardedTransportBase, httpx.AsyncBaseTransport):
    _library: ClassVar[Any] = httpx
    _body = _Stream


class GuardedTransport2(GuardedTransportBase, httpx2.AsyncBaseTransport):
    _library: ClassVar[Any] = httpx2
    _body = _Stream2
