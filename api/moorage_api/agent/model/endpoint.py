"""Send one request to an OpenAI-compatible endpoint, and read the stream of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx2
import openai

from moorage_api.agent.model.incoming.answers import (
    DEFAULT_LIMITS,
    Answer,
    AnswerBuilder,
    AnswerLimitError,
    AnswerLimits,
    BadStreamError,
)
from moorage_api.agent.model.incoming.sse import DOCUMENT, EventTooLargeError, read_events
from moorage_api.agent.model.incoming.usage import ModelCall, Outcome, Usage
from moorage_api.agent.model.servers.chunks import is_end, is_progress, read_chunk
from moorage_api.agent.model.servers.errors import LlmError, RefusedError, RetryableError
from moorage_api.agent.model.servers.refusals import read_refusal
from moorage_api.agent.tokens import count_text_tokens, count_tokens
from moorage_api.errors import OutboundRefusedError
from moorage_api.outbound import Outbound, ResponseLimitError

CONNECT_SECONDS = 10.0

OnStart = Callable[[ModelCall], Awaitable[None]]
"""Awaited before each request, with an estimate of its tokens."""

OnCall = Callable[[ModelCall], None]
"""Called when a request has ended: for each that the model began to answer, and for each that `OnStart` was told."""

OnProgress = Callable[[AnswerBuilder], Awaitable[None]]
"""Called as the answer grows."""


class Endpoint:
    """One address that serves one model. Reports each request to `on_start` and `on_call`. Close it."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        *,
        outbound: Outbound,
        headers: Mapping[str, str],
        secrets: Sequence[str],
        first_byte_seconds: float,
        idle_seconds: float,
        answer_limits: AnswerLimits = DEFAULT_LIMITS,
        on_start: OnStart | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        """`secrets`: no error and no answer shows them."""
        self._base_url = base_url
        self._api_key = api_key
        self._model = model
        self._outbound = outbound
        self._headers = headers
        self._secrets = secrets
        self._first_byte_seconds = first_byte_seconds
        self._idle_seconds = idle_seconds
        self._answer_limits = answer_limits
        self._on_start = on_start
        self._on_call = on_call
        self._was_reached = False
        self._timeout = httpx2.Timeout(max(first_byte_seconds, idle_seconds), connect=CONNECT_SECONDS)
        self._opened: openai.AsyncOpenAI | None = None

    def _client(self) -> openai.AsyncOpenAI:
        """Raises OutboundRefusedError for an invalid base URL."""
        if self._opened is None:
            http_client = self._outbound.client2("llm", self._base_url, timeout=self._timeout)
            # organization and project are set because the SDK would otherwise read them from environment variables
            self._opened = openai.AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key or "none",
                organization="",
                project="",
                max_retries=0,
                timeout=self._timeout,
                http_client=http_client,
                default_headers=self._headers,
            )
        return self._opened

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def send(
        self, body: Mapping[str, Any], *, on_progress: OnProgress | None = None, is_proven: bool = False
    ) -> Answer:
        """Send one request and return the whole answer. `is_proven`: the model is known to answer at this address.

        Raises RefusedError, RetryableError and LlmError, and nothing that the SDK or the HTTP client raises.
        """
        try:
            return await self._stream(body, on_progress)
        except OutboundRefusedError as error:
            raise LlmError("llm_unavailable", f"`base_url` {self._base_url!r} cannot be used: {error}") from error
        except openai.APIStatusError as error:
            response = error.response
            self._was_reached = True
            refusal = read_refusal(error.status_code, response.text, response.headers, secrets=self._secrets)
            raise RefusedError(refusal) from error
        except (openai.APITimeoutError, TimeoutError) as error:
            raise RetryableError(
                LlmError("llm_unavailable", f"The model at {self._base_url} did not answer in time")
            ) from error
        except openai.APIConnectionError as error:
            raise RetryableError(
                LlmError("llm_unavailable", f"The model's server at {self._base_url} {_why_unreachable(error)}"),
                is_lasting=not (self._was_reached or is_proven),
            ) from error
        except (AnswerLimitError, EventTooLargeError) as error:
            raise RetryableError(
                LlmError("llm_failed", f"The answer of the model's server at {self._base_url} was stopped: it {error}"),
                is_half=True,
            ) from error
        except (BadStreamError, ValueError, TypeError, AttributeError, RecursionError) as error:
            server_text = (
                f". It said: {error.server_text}" if isinstance(error, BadStreamError) and error.server_text else ""
            )
            raise RetryableError(
                LlmError(
                    "llm_failed",
                    f"The model's server at {self._base_url} sent a response that is not a chat completion; "
                    f"check that `base_url` is an OpenAI-compatible API{server_text}",
                ),
                is_lasting=True,
            ) from error
        except httpx2.HTTPError as error:
            raise RetryableError(
                LlmError("llm_unavailable", f"The connection to the model at {self._base_url} was lost")
            ) from error

    async def _stream(self, body: Mapping[str, Any], on_progress: OnProgress | None) -> Answer:
        builder = AnswerBuilder(self._answer_limits)
        call_id = await self._report_start(body)
        try:
            has_end = await self._receive(builder, body, on_progress)
        except asyncio.CancelledError:
            self._report_end(call_id, builder, body, "interrupted")
            raise
        except Exception:
            self._report_end(call_id, builder, body, "failed")
            raise
        self._report_end(call_id, builder, body, "answered")
        if builder.trouble:
            raise RetryableError(
                LlmError(
                    "llm_unavailable",
                    f"The model's server at {self._base_url} broke its answer off and gave the reason "
                    f'"{builder.trouble}"',
                ),
                is_half=True,
            )
        answer = builder.answer()
        if not builder.is_whole(has_end=has_end):
            raise RetryableError(
                LlmError("llm_unavailable", f"The model's server at {self._base_url} ended its answer in the middle"),
                half=answer if has_end else None,
                is_half=True,
            )
        return answer

    async def _receive(self, builder: AnswerBuilder, body: Mapping[str, Any], on_progress: OnProgress | None) -> bool:
        """Send the request and feed the answer to `builder`. True if the server marked the end of the stream."""
        clock = _Clock(self._first_byte_seconds)
        async with asyncio.timeout_at(clock.deadline):
            # not `chat.completions.create`: its models double the CPU time and fail on the chunks of some servers
            stream = await self._client().post(
                "/chat/completions", cast_to=object, body=body, stream=True, stream_cls=openai.AsyncStream[object]
            )
        self._was_reached = True
        try:
            async for event in read_events(_read_bytes(stream.response, clock)):
                if is_end(event):
                    return True
                if (chunk := read_chunk(event, secrets=self._secrets)) is None:
                    continue
                builder.feed(chunk)
                builder.is_document = event.name == DOCUMENT
                if on_progress is not None:
                    await on_progress(builder)
                if is_progress(chunk):
                    clock.restart(self._idle_seconds)
            return False
        finally:
            await stream.close()

    async def _report_start(self, body: Mapping[str, Any]) -> UUID:
        if self._on_start is None:
            return uuid4()
        call = ModelCall(self._model, self._base_url, _estimate_usage(body), "started")
        await self._on_start(call)
        return call.id

    def _report_end(self, call_id: UUID, builder: AnswerBuilder, body: Mapping[str, Any], outcome: Outcome) -> None:
        """Report the end of a request. Its usage is estimated if the server did not say it.

        A server may bill what it began to answer, and what we did not wait for.
        """
        if self._on_call is None:
            return
        if builder.has_begun or builder.usage or (outcome == "interrupted" and self._on_start is not None):
            usage = builder.usage or _estimate_usage(body, builder.answer())
            self._on_call(ModelCall(self._model, self._base_url, usage, outcome, call_id))
        elif self._on_start is not None:
            self._on_call(ModelCall(self._model, self._base_url, Usage(0, 0, is_estimated=True), "refused", call_id))


class _Clock:
    """How long the next part of an answer may take. What only keeps the connection open does not restart it."""

    def __init__(self, seconds: float) -> None:
        self.restart(seconds)

    def restart(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds


async def _read_bytes(response: httpx2.Response, clock: _Clock) -> AsyncIterator[bytes]:
    """The chunks of the response. Raises TimeoutError when no part of an answer comes for too long."""
    chunks = response.aiter_bytes()
    while True:
        try:
            async with asyncio.timeout_at(clock.deadline):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        yield chunk


def _why_unreachable(error: BaseException) -> str:
    """The reason at the bottom of a connection error, if it is a limit of ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ResponseLimitError):
            return f"sent a response that we cannot take: {cause}"
        cause = cause.__cause__
    return "could not be reached; check the base URL"


def _estimate_usage(body: Mapping[str, Any], answer: Answer | None = None) -> Usage:
    answer = answer or Answer("")
    texts = [answer.text, answer.foreign]
    texts += [part for call in answer.calls for part in (call.name, call.arguments, call.foreign)]
    sent = count_tokens(body["messages"]) + count_tokens(body.get("tools", ()))
    return Usage(sent, sum(map(count_text_tokens, texts)), is_estimated=True)
