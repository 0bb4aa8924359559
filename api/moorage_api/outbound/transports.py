"""Transports that connect to the address that was checked, and let no answer grow or last without end.

httpx and httpx2 have classes of the same names and ways that know nothing of each other, so each step is written once,
for a library that is given, and each library gets the classes that it asks for.
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
class Limits:
    """Of one response. `seconds` bounds all of it, from the request to its last byte; None for streams."""

    body_bytes: int
    seconds: float | None = None


def pinned(target: Target, address: Address, extensions: Mapping[str, Any]) -> dict[str, Any]:
    """TLS still asks for, and checks, the name; the connection goes to `address`."""
    named = {} if target.host == str(address) else {"sni_hostname": target.host}
    return {**extensions, **named}


class TooLongError(Exception):
    """A response is longer, or takes longer, than its limit."""


async def bounded(chunks: AsyncIterator[bytes], limits: Limits, *, deadline: float | None) -> AsyncIterator[bytes]:
    """Pass chunks on until there are too many bytes or too little time. Raises TooLongError."""
    seen = 0
    while True:
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise TooLongError(f"The answer took longer than {limits.seconds:g} s") from error
        seen += len(chunk)
        if seen > limits.body_bytes:
            raise TooLongError(f"The answer is longer than {limits.body_bytes} bytes")
        yield chunk


def check_encoding(encoding: str) -> None:
    """We ask for plain bytes: what comes compressed all the same could unfold to any size."""
    if encoding.strip().lower() not in ("", "identity"):
        raise TooLongError("The answer is compressed, although that was not asked for")


@cache
def tls() -> Any:
    """Takes 50 ms to make and serves every client of the process."""
    return httpx2.create_ssl_context(trust_env=False)


class BoundedStream:
    """The body of an answer, within `limits`."""

    _library: ClassVar[Any]

    def __init__(self, stream: Any, limits: Limits, deadline: float | None) -> None:
        self._stream = stream
        self._limits = limits
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in bounded(aiter(self._stream), self._limits, deadline=self._deadline):
                yield chunk
        except TooLongError as error:
            raise self._library.ReadError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class Guarded:
    """Every request, redirects included, passes the guard. One pool a host, so that TLS is checked for each name."""

    _library: ClassVar[Any]
    _body: ClassVar[type[BoundedStream]]

    def __init__(self, guard: Guard, limits: Limits) -> None:
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
        response = await self._first(request, target, addresses, deadline)
        try:
            check_encoding(response.headers.get("content-encoding", ""))
        except TooLongError as error:
            await response.aclose()
            raise library.ReadError(str(error), request=request) from error
        response.stream = self._body(response.stream, self._limits, deadline)
        return response

    async def _first(self, request: Any, target: Target, addresses: list[Address], deadline: float | None) -> Any:
        """From the first address that takes the connection; nothing was sent to those that did not."""
        library = self._library
        if target.host not in self._pools:
            self._pools[target.host] = library.AsyncHTTPTransport(verify=tls(), trust_env=False)
        for address in addresses:
            sent = library.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions=pinned(target, address, request.extensions),
            )
            try:
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    return await self._pools[target.host].handle_async_request(sent)
            except library.ConnectError as error:
                failure = error
            except TimeoutError as error:
                raise library.ReadTimeout("The server did not answer in time", request=request) from error
        raise failure

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Stream(BoundedStream, httpx.AsyncByteStream):
    _library: ClassVar[Any] = httpx


class _Stream2(BoundedStream, httpx2.AsyncByteStream):
    _library: ClassVar[Any] = httpx2


class GuardedTransport(Guarded, httpx.AsyncBaseTransport):
    _library: ClassVar[Any] = httpx
    _body = _Stream


class GuardedTransport2(Guarded, httpx2.AsyncBaseTransport):
    _library: ClassVar[Any] = httpx2
    _body = _Stream2
