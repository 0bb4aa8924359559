"""Client of an OpenAI-compatible endpoint: one streamed request, with retries and errors that people can act on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx2
import openai

from moorage_api.agent.answers import Answer, AnswerBuilder, BadStreamError, calls_in_text
from moorage_api.agent.model.usage import ModelCall, Outcome, Usage
from moorage_api.agent.ports import Function, Message
from moorage_api.agent.tokens import count_text_tokens, count_tokens
from moorage_api.errors import OutboundRefusedError
from moorage_api.outbound import Outbound
from moorage_common.backoff import Backoff

CONNECT_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 20.0
MAX_RETRY_AFTER_SECONDS = 60.0
RETRIED_STATUSES = frozenset({408, 409, 425, 429})

OnCall = Callable[[ModelCall], None]
"""Called once for each request that the model began to answer, when it has ended."""

Progress = Callable[[AnswerBuilder], Awaitable[None]]
"""Called as the answer grows."""

STREAM_OPTIONS = ("stream_options", "include_usage")
"""Names in the error of a server that does not know how to send the usage."""

WINDOW_IS_FULL = ("context_length", "context length", "context window", "maximum context", "too many tokens")


class LlmError(Exception):
    """The model cannot be used. `code` is public API. The text says what to change and never contains the API key."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class WindowFullError(LlmError):
    """The request was longer than the model's context window. A shorter request may succeed."""


class _RetryableError(Exception):
    def __init__(self, error: LlmError, *, after_seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_seconds = after_seconds


class LlmClient:
    """One model of one server. Remembers which parameters the server refuses. Close it, or use `async with`."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        temperature: float | None = 0.7,
        max_tokens: int | None = 8192,
        *,
        outbound: Outbound,
        context_tokens: int = 64_000,
        idle_seconds: float = 120.0,
        backoff_seconds: float = 0.5,
        on_call: OnCall | None = None,
    ) -> None:
        self.context_tokens = context_tokens
        """Size of the model's context window: the request and the answer together."""
        self.answer_tokens = min(max_tokens or 8192, context_tokens // 4)
        self._model = model
        self._api_key = api_key
        self._base_url = base_url
        self._outbound = outbound
        self._backoff_seconds = backoff_seconds
        self._on_call = on_call
        self._parameters: dict[str, Any] = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "stream_options": {"include_usage": True},
        }
        self._can_force = True
        self._timeout = httpx2.Timeout(idle_seconds, connect=CONNECT_SECONDS)
        self._opened: openai.AsyncOpenAI | None = None

    @property
    def identity(self) -> str:
        """Name of the model and its server. What we learned about one model does not apply to another."""
        return f"{self._model} at {self._base_url}"

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
            )
        return self._opened

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Function] = (),
        force: bool = False,
        max_retries: int = 3,
        progress: Progress | None = None,
    ) -> Answer:
        """Send one request and wait for the whole answer. `force` requires a tool call, if the server supports that.

        Raises LlmError: immediately if a retry cannot help, otherwise after `max_retries` retries.
        """
        tries = 0
        while True:
            try:
                return await self._ask_adapting(messages, tools=tools, force=force, progress=progress)
            except _RetryableError as failure:
                if tries >= max_retries:
                    raise failure.error from failure
                await asyncio.sleep(self._delay(tries, failure.after_seconds))
                tries += 1

    def _delay(self, tries: int, after_seconds: float | None) -> float:
        if after_seconds is not None:
            return min(after_seconds, MAX_RETRY_AFTER_SECONDS)
        return Backoff(self._backoff_seconds, MAX_BACKOFF_SECONDS, jitter=0.25).pause_seconds(tries + 1)

    async def _ask_adapting(
        self, messages: Sequence[Message], *, tools: Sequence[Function], force: bool, progress: Progress | None
    ) -> Answer:
        """Send the request; when the server refuses a parameter, drop that parameter for good and send it again."""
        while True:
            body = self._body(messages, tools, force)
            try:
                return await self._stream(body, {tool.name for tool in tools}, progress)
            except OutboundRefusedError as error:
                raise self._explain_refusal(error) from error
            except openai.APIStatusError as error:
                if not self._adapt(error, body):
                    raise self._explain_status(error) from error
            except openai.APITimeoutError as error:
                raise _RetryableError(
                    LlmError("llm_unavailable", f"The model at {self._base_url} did not answer in time")
                ) from error
            except openai.APIConnectionError as error:
                raise _RetryableError(
                    LlmError(
                        "llm_unavailable",
                        f"The model's server at {self._base_url} could not be reached; check the base URL",
                    )
                ) from error
            except openai.APIError as error:  # the server reported an error in the middle of a stream
                raise self._explain_error_in_stream(error) from error
            except (BadStreamError, ValueError, TypeError, AttributeError) as error:
                # the SDK does not wrap the exceptions that malformed chunks cause
                raise _RetryableError(
                    LlmError(
                        "llm_failed",
                        f"The model's server at {self._base_url} sent a response that is not a chat completion; "
                        "check that `base_url` is an OpenAI-compatible API",
                    )
                ) from error
            except httpx2.HTTPError as error:
                raise _RetryableError(
                    LlmError("llm_unavailable", f"The connection to the model at {self._base_url} was lost")
                ) from error

    def _body(self, messages: Sequence[Message], tools: Sequence[Function], force: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "messages": list(messages), "stream": True}
        body |= {name: value for name, value in self._parameters.items() if value is not None}
        if tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
                }
                for tool in tools
            ]
            if force and self._can_force:
                body["tool_choice"] = "required"
        return body

    async def _stream(self, body: Mapping[str, Any], names: set[str], progress: Progress | None) -> Answer:
        builder = AnswerBuilder()
        # not `chat.completions.create`: its models double the CPU time and fail on the chunks of some servers
        stream = await self._client().post(
            "/chat/completions", cast_to=object, body=body, stream=True, stream_cls=openai.AsyncStream[object]
        )
        try:
            if stream.response.headers.get("content-type", "").startswith("application/json"):
                self._feed_whole(builder, await stream.response.aread(), stream.response.request)
            else:
                async for chunk in stream:
                    builder.feed(chunk)
                    if progress is not None:
                        await progress(builder)
        except asyncio.CancelledError:
            self._report_call(builder, body, "interrupted")
            raise
        except Exception:
            self._report_call(builder, body, "failed")
            raise
        finally:
            await stream.close()
        self._report_call(builder, body, "answered")
        answer = builder.answer()
        if not answer.calls and (calls := calls_in_text(answer.text, names)):
            return Answer("", calls, answer.is_cut, usage=answer.usage)
        return answer

    def _report_call(self, builder: AnswerBuilder, body: Mapping[str, Any], outcome: Outcome) -> None:
        """Report a request that the server may bill. Its usage is estimated if the server did not say it."""
        if self._on_call is None or not (builder.has_begun or builder.usage):
            return
        usage = builder.usage or _estimate_usage(body, builder.answer())
        self._on_call(ModelCall(self._model, self._base_url, usage, outcome))

    @staticmethod
    def _feed_whole(builder: AnswerBuilder, body: bytes, request: httpx2.Request) -> None:
        """Read the response of a server that does not stream."""
        document = json.loads(body)
        if isinstance(document, dict) and document.get("error"):
            error = document["error"]
            message = str(error.get("message") or error) if isinstance(error, dict) else str(error)
            raise openai.APIError(message, request, body=error)
        builder.feed(document)

    def _adapt(self, error: openai.APIStatusError, body: Mapping[str, Any]) -> bool:
        """Drop or replace the parameter that the server refused. False if the error names none that we can change."""
        if error.status_code not in (400, 422):
            return False
        reason = f"{error.param} {self._server_message(error)}".lower()
        if "thinking" not in body and ("thinking mode" in reason or "reasoning_content" in reason):
            # In DeepSeek's thinking mode every request must repeat all earlier reasoning, and no tool call can be
            # required. We do not store reasoning, so we turn that mode off.
            self._parameters["thinking"] = {"type": "disabled"}
            return True
        if "tool_choice" in body and ("tool_choice" in reason or "tool choice" in reason):
            self._can_force = False
            return True
        if "max_tokens" in body and "max_completion_tokens" in reason:
            self._parameters["max_completion_tokens"] = self._parameters.pop("max_tokens")
            return True
        if "stream_options" in body and any(name in f"{reason} {error.body}" for name in STREAM_OPTIONS):
            self._parameters.pop("stream_options")
            return True
        if "temperature" in body and "temperature" in reason:
            self._parameters.pop("temperature")
            return True
        return False

    def _explain_refusal(self, error: OutboundRefusedError) -> LlmError:
        return LlmError("llm_unavailable", f"`base_url` {self._base_url!r} cannot be used: {error}")

    def _explain_status(self, error: openai.APIStatusError) -> Exception:
        status, said = error.status_code, self._server_message(error)
        if status in (401, 403):
            return LlmError(
                "llm_unauthorized", f"The model's server at {self._base_url} refused the API key: set a valid `api_key`"
            )
        if status == 402 or "insufficient_quota" in (error.code, error.type):
            return LlmError("llm_unauthorized", f"The account at the model's server has no credit left: {said}")
        if status == 404:
            return LlmError(
                "llm_not_found",
                f'{self._base_url} does not have the model "{self._model}" or does not offer chat completions: '
                f"check `base_url` and `model_name` ({said})",
            )
        if status == 413 or any(sign in f"{error.code} {said}".lower() for sign in WINDOW_IS_FULL):
            return WindowFullError("llm_window_full", f"The conversation is too long for the model: {said}")
        if status in RETRIED_STATUSES or status >= 500:
            code = "llm_rate_limited" if status == 429 else "llm_unavailable"
            failure = LlmError(code, f"The model's server at {self._base_url} answered {status}: {said}")
            return _RetryableError(failure, after_seconds=_retry_after(error.response.headers))
        return LlmError("llm_refused", f"The model's server at {self._base_url} refused the request ({status}): {said}")

    def _explain_error_in_stream(self, error: openai.APIError) -> Exception:
        said = self._server_message(error)
        if any(sign in f"{error.code} {said}".lower() for sign in WINDOW_IS_FULL):
            return WindowFullError("llm_window_full", f"The conversation is too long for the model: {said}")
        return _RetryableError(LlmError("llm_unavailable", f"The model's server interrupted its answer: {said}"))

    def _server_message(self, error: openai.APIError) -> str:
        """The server's error message, shortened. The API key is removed, because some servers repeat it."""
        body = error.body
        words = body.get("message") if isinstance(body, dict) else None
        text = " ".join(str(words or error.message).split())
        if self._api_key:
            text = text.replace(self._api_key, "…")
        return text if len(text) <= 300 else f"{text[:300]}…"


def _estimate_usage(body: Mapping[str, Any], answer: Answer) -> Usage:
    texts = [answer.text, answer.foreign]
    texts += [part for call in answer.calls for part in (call.name, call.arguments, call.foreign)]
    sent = count_tokens(body["messages"]) + count_tokens(body.get("tools", ()))
    return Usage(sent, sum(map(count_text_tokens, texts)), is_estimated=True)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None
