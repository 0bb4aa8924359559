"""Client of an OpenAI-compatible endpoint: one streamed request, with retries and errors that people can act on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import httpx2
import openai

from moorage_api.agent.model.incoming.answers import Answer, AnswerBuilder, BadStreamError
from moorage_api.agent.model.incoming.sse import DOCUMENT, EventTooLargeError, read_events
from moorage_api.agent.model.incoming.text_calls import TextCalls
from moorage_api.agent.model.incoming.usage import ModelCall, Outcome, Usage
from moorage_api.agent.model.outgoing import profiles
from moorage_api.agent.model.outgoing.pictures import PictureCache, ReadPicture
from moorage_api.agent.model.outgoing.request import Offer, RequestSettings, build_body, disobeys, restricts
from moorage_api.agent.model.servers.chunks import is_end, is_progress, read_chunk
from moorage_api.agent.model.servers.errors import LlmError as LlmError
from moorage_api.agent.model.servers.errors import RefusedError, RetryableError, explain
from moorage_api.agent.model.servers.errors import WindowFullError as WindowFullError
from moorage_api.agent.model.servers.learning import learn, select_lasting
from moorage_api.agent.model.servers.listing import ListingFailures, WindowListing
from moorage_api.agent.model.servers.refusals import find_secrets, mask_secrets, read_refusal
from moorage_api.agent.model.servers.waits import describe_seconds
from moorage_api.agent.model.servers.windows import DEFAULT_TOKENS, MOST_LISTED_TOKENS, Source, Window
from moorage_api.agent.ports import Function, Message
from moorage_api.agent.tokens import count_text_tokens, count_tokens
from moorage_api.errors import OutboundRefusedError
from moorage_api.outbound import Outbound, ResponseLimitError
from moorage_common.backoff import Backoff

CONNECT_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 30.0
SHORT_WAIT_SECONDS = 60.0
"""A server that asks for a longer wait, and for more than what is left of the patience, is not waited for."""
LONG_REQUEST_PATIENCE_SECONDS = 30.0
"""How long a 500 is waited out, at most, before a shorter form of a long request is tried."""
TRUSTED_WAITS = 2
SHOW_SECONDS = 5.0
"""While it waits, the user is told so at this interval."""
MAX_CORRECTIONS = 8
"""Times that one request is sent again in another form because the server refused a part of it."""

OnStart = Callable[[ModelCall], Awaitable[None]]
"""Awaited before each request, with an estimate of its tokens."""

OnCall = Callable[[ModelCall], None]
"""Called when a request has ended: for each that the model began to answer, and for each that `OnStart` was told."""

Progress = Callable[[AnswerBuilder], Awaitable[None]]
"""Called as the answer grows."""

Waiting = Callable[[str, float], Awaitable[None]]
"""Called before a wait, with the reason and the seconds until the next attempt."""

Learnt = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Stores new facts about the model, so that other runners know them."""


async def forget_facts(facts: Mapping[str, Any]) -> None:
    """The facts are kept in this client only."""


def _today() -> date:
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class Timing:
    """How long to wait for a server, in seconds.

    `first_byte`: until the answer begins. A local model loads and reads the whole request first.
    `idle`: between two pieces of an answer. What only keeps the connection open is no piece.
    `patience`: how long trouble of the server is waited out, beyond the retries of each request.
    """

    first_byte: float = 120.0
    idle: float = 120.0
    patience: float = 0.0
    backoff: float = 0.5


class LlmClient:
    """One model of one server. Remembers what the server refuses. Close it, or use `async with`."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        temperature: float | None = 0.7,
        max_tokens: int | None = 8192,
        *,
        outbound: Outbound,
        context_tokens: int | None = None,
        idle_seconds: float = 120.0,
        first_byte_seconds: float | None = None,
        patience_seconds: float = 0.0,
        backoff_seconds: float = 0.5,
        on_start: OnStart | None = None,
        on_call: OnCall | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        on_learnt: Learnt = forget_facts,
        read_picture: ReadPicture | None = None,
        listing_failures: ListingFailures | None = None,
        today: Callable[[], date] = _today,
    ) -> None:
        """`context_tokens`: the window that the admin has set. Without it the window is learnt."""
        self._set_window = context_tokens
        self._window = Window.from_facts(facts or {})
        self._today = today
        self._model = model
        self._api_key = api_key
        self._base_url = base_url
        self._outbound = outbound
        self._settings = RequestSettings(model, temperature, max_tokens, dict(extra_body or {}))
        self._headers = dict(headers or {})
        asking = httpx2.Headers({"Authorization": f"Bearer {api_key}"} if api_key else {})
        asking.update(self._headers)  # whatever the case of their names
        self._listing = WindowListing(
            base_url, dict(asking), outbound=outbound, failures=listing_failures or ListingFailures()
        )
        self._secrets = find_secrets(api_key, self._headers)
        self._profile = profiles.correct(profiles.choose(model), facts or {})
        self._on_learnt = on_learnt
        self._on_start = on_start
        self._pictures = PictureCache(read_picture)
        self._on_call = on_call
        self._earlier_tools: dict[str, Function] = {}
        self._was_reached = False
        self._loses_thoughts = False
        """The last answer with calls came without the fields that only its model understands."""
        self._text_calls = TextCalls(is_proven=self._profile.leaves_calls_in_text)
        self._disobeyed = 0
        """The last answers, one behind another, that called a function which `tool_choice` did not allow."""
        self._timing = Timing(first_byte_seconds or idle_seconds, idle_seconds, patience_seconds, backoff_seconds)
        longest_seconds = max(self._timing.first_byte, self._timing.idle)
        self._timeout = httpx2.Timeout(longest_seconds, connect=CONNECT_SECONDS)
        self._opened: openai.AsyncOpenAI | None = None

    @property
    def context_tokens(self) -> int:
        """Size of the model's context window: the request and the answer together."""
        return self._set_window or self._learnt_window or DEFAULT_TOKENS

    @property
    def _learnt_window(self) -> int:
        if self._window is None:
            return 0
        return min(self._window.tokens, MOST_LISTED_TOKENS) if self._window.is_fresh(self._today()) else 0

    @property
    def answer_tokens(self) -> int:
        """Room in the window for the answer."""
        return min(self._settings.max_tokens or 8192, self.context_tokens // 4)

    async def read_window(self) -> None:
        """Learn the window from what the server says about itself, at most once a day. A failure is harmless."""
        old = self._window
        if self._set_window is not None or (old and old.is_fresh(self._today())):
            return
        tokens, is_answered = await self._listing.ask(self._model)
        if is_answered:
            listed = old.tokens if old and old.source == "list" else 0
            await self.learn_window(tokens or listed, "list")
        elif old:
            self._window = replace(old, learnt_on=self._today())  # believed until the server can be asked again

    async def find_window(self) -> int | None:
        """Ask the server for the window."""
        tokens, _ = await self._listing.ask(self._model)
        return tokens

    async def learn_window(self, tokens: int, source: Source) -> None:
        """Remember the window of this model, here and for other runs."""
        self._window = Window(tokens, source, self._today())
        await self._on_learnt({"window": self._window.to_fact()})

    @property
    def identity(self) -> str:
        """Name of the model and its server. What we learned about one model does not apply to another."""
        return f"{self._model} at {self._base_url}"

    @property
    def sees(self) -> bool:
        """Whether the model gets pictures. Otherwise it gets words instead of them."""
        return self._profile.sees

    @property
    def max_pictures(self) -> int:
        """Most pictures that the server takes in one request; 0 if it is not known."""
        return self._profile.max_pictures

    @property
    def can_force(self) -> bool:
        """A call can be required. Otherwise only words make the model call the function that is wanted."""
        return self._profile.can_force

    def select_functions(self, functions: Sequence[Function], allowed: Collection[str]) -> list[Function]:
        """The functions that a request carries when only `allowed` may be called."""
        return [item for item in functions if self._profile.obeys_choice or item.name in allowed]

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
        allowed: Collection[str] | None = None,
        force: bool = False,
        max_tokens: int | None = None,
        max_retries: int = 3,
        progress: Progress | None = None,
        on_wait: Waiting | None = None,
        is_long: bool = False,
    ) -> Answer:
        """Send one request and wait for the whole answer. `force` requires a tool call, if the server supports that.

        `allowed`: names of the `tools` that may be called now. The answer may call others all the same.
        `max_tokens`: a smaller limit of the answer than the configured one.
        `is_long`: the length of the request may be what the server cannot take, so a 500 is waited out less long.
        Raises LlmError: immediately if a retry cannot help, otherwise after `max_retries` retries and `patience`.
        """
        self._earlier_tools |= {tool.name: tool for tool in tools}
        offer = Offer(tools, None if allowed is None else frozenset(allowed), force)
        began = time.monotonic()
        tries = halves = 0
        while True:
            try:
                with self._mask_errors():
                    answer = await self._ask_adapting(messages, offer=offer, max_tokens=max_tokens, progress=progress)
                return await self._read_calls(answer, messages, offer.callable_functions, is_plan=force)
            except RetryableError as failure:
                halves += failure.is_half
                waited_seconds = time.monotonic() - began
                patience = self._timing.patience
                if is_long and failure.error.status == 500:
                    patience = min(patience, LONG_REQUEST_PATIENCE_SECONDS)
                is_patient = waited_seconds < patience and not failure.is_lasting
                if halves > 1 and failure.half is not None:
                    # a server that never says why an answer ends, but does end it
                    return await self._read_calls(failure.half, messages, offer.callable_functions, is_plan=force)
                if halves > 1 or (tries >= max_retries and not is_patient):
                    raise failure.error from failure
                longest = max(patience - waited_seconds, SHORT_WAIT_SECONDS)
                if failure.after_seconds is not None and failure.after_seconds > longest:
                    raise _too_long(failure.error, failure.after_seconds) from failure
                await self._wait(self._delay(tries, failure.after_seconds), str(failure.error), on_wait)
                tries += 1

    @contextmanager
    def _mask_errors(self) -> Iterator[None]:
        """No error that leaves the client shows a secret, whatever part of the answer its words come from."""
        try:
            yield
        except (LlmError, RetryableError) as error:
            for item in (error, error.error) if isinstance(error, RetryableError) else (error,):
                item.args = (mask_secrets(str(item), self._secrets),)
            raise

    def _delay(self, tries: int, after_seconds: float | None) -> float:
        """A server that repeats a short wait without keeping its word is not asked again and again."""
        pause = Backoff(self._timing.backoff, MAX_BACKOFF_SECONDS, jitter=0.25).pause_seconds(tries + 1)
        if after_seconds is None:
            return pause
        return after_seconds if tries < TRUSTED_WAITS else max(after_seconds, pause)

    async def _wait(self, seconds: float, reason: str, on_wait: Waiting | None) -> None:
        """Wait, and say so again and again, because a client that connects later has not seen it."""
        while True:
            if on_wait is not None:
                await on_wait(reason, seconds)
            await asyncio.sleep(min(seconds, SHOW_SECONDS))
            seconds -= SHOW_SECONDS
            if seconds <= 0:
                return

    async def _ask_adapting(
        self, messages: Sequence[Message], *, offer: Offer, max_tokens: int | None, progress: Progress | None
    ) -> Answer:
        """Send the request; when the server refuses a part of it, send it in another form.

        What that form leaves out is remembered only once the server has answered it.
        """
        settings = self._request_settings().with_limit(max_tokens)
        is_restricted = False
        refused: set[str] = set()
        profile = self._profile
        changes: dict[str, Any] = {}
        stored: dict[str, Any] = {}
        pictures = await self._pictures.load(messages) if self._profile.sees else {}
        while True:
            body = build_body(
                settings,
                profile,
                messages,
                offer=offer,
                earlier_tools=self._earlier_tools,
                pictures=pictures,
            )
            try:
                answer = await self._send(body, progress)
            except RefusedError as error:
                facts = learn(profile, error.refusal, body)
                if not facts or json.dumps(facts) in refused or len(refused) >= MAX_CORRECTIONS:
                    raise explain(error.refusal, base_url=self._base_url, model=self._model) from error
                refused.add(json.dumps(facts))
                profile = profiles.correct(profile, facts)
                changes |= facts
                stored |= select_lasting(facts, error.refusal)
                continue
            if offer.allowed is None or not disobeys(body, answer):
                if offer.allowed is not None and restricts(body):
                    self._disobeyed = 0
                if changes:
                    await self._learn(changes, stored=stored)
                # the caller compares the usage with the request that it wanted
                return replace(answer, usage=None) if is_restricted else answer
            is_restricted = True
            self._disobeyed += 1
            if self._disobeyed > 1:
                profile = profiles.correct(profile, {"obeys_choice": False})
                changes["obeys_choice"] = stored["obeys_choice"] = False
            offer = replace(offer, functions=offer.callable_functions, allowed=None)

    def _request_settings(self) -> RequestSettings:
        """An answer may not be longer than its part of a window that we know."""
        if self._settings.max_tokens is None or not (self._set_window or self._learnt_window):
            return self._settings
        return replace(self._settings, max_tokens=self.answer_tokens)

    async def _learn(self, facts: Mapping[str, Any], *, stored: Mapping[str, Any] | None = None) -> None:
        """Correct the profile, and store the facts, or only those in `stored`.

        That thinking is off is stored only for a server that loses its model's thoughts. Otherwise they are missing
        because another model answered before, and that is so in one session only.
        """
        self._profile = profiles.correct(self._profile, facts)
        lasting = dict(facts if stored is None else stored)
        if not self._loses_thoughts:
            lasting.pop("is_thinking_off", None)
        if lasting:
            await self._on_learnt(lasting)

    async def _send(self, body: Mapping[str, Any], progress: Progress | None) -> Answer:
        """Raises RefusedError, RetryableError and LlmError, and nothing that the SDK or the HTTP client raises."""
        try:
            return await self._stream(body, progress)
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
                is_lasting=not (self._was_reached or self._profile.has_native_calls),
            ) from error
        except (BadStreamError, EventTooLargeError, ValueError, TypeError, AttributeError, RecursionError) as error:
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

    async def _stream(self, body: Mapping[str, Any], progress: Progress | None) -> Answer:
        builder = AnswerBuilder()
        call_id = await self._report_start(body)
        try:
            has_end = await self._receive(builder, body, progress)
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
        if not builder.is_finished:
            raise RetryableError(
                LlmError("llm_unavailable", f"The model's server at {self._base_url} ended its answer in the middle"),
                half=answer if has_end else None,
                is_half=True,
            )
        return answer

    async def _receive(self, builder: AnswerBuilder, body: Mapping[str, Any], progress: Progress | None) -> bool:
        """Send the request and feed the answer to `builder`. True if the server marked the end of the stream."""
        clock = _Clock(self._timing.first_byte)
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
                if progress is not None:
                    await progress(builder)
                if is_progress(chunk):
                    clock.restart(self._timing.idle)
            return False
        finally:
            await stream.close()

    async def _read_calls(
        self, answer: Answer, messages: Sequence[Message], tools: Sequence[Function], *, is_plan: bool
    ) -> Answer:
        """Read calls from the text, if this server is proven to leave them there."""
        if answer.calls and not self._profile.is_thinking_off:
            self._loses_thoughts = not (answer.foreign or any(call.foreign for call in answer.calls))
        if answer.calls and not self._profile.has_native_calls:
            await self._learn({"has_native_calls": True})
        if answer.calls or self._profile.has_native_calls:
            return answer
        names = {tool.name for tool in tools}
        calls = self._text_calls.read(answer.text, names=names, messages=messages, is_plan=is_plan)
        if self._text_calls.is_proven and not self._profile.leaves_calls_in_text:
            await self._learn({"leaves_calls_in_text": True})
        return replace(answer, text="", calls=calls) if calls else answer

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


def _too_long(error: LlmError, seconds: float) -> LlmError:
    """The error of a server that wants a longer wait than we have patience for. It says when to try again."""
    when = f"{datetime.now(UTC) + timedelta(seconds=min(seconds, 10**8)):%Y-%m-%d %H:%M} UTC"
    text = f"{error}. Its server asks to wait {describe_seconds(seconds)}: send a message again after {when}"
    return LlmError(error.code, text, status=error.status)


def _estimate_usage(body: Mapping[str, Any], answer: Answer | None = None) -> Usage:
    answer = answer or Answer("")
    texts = [answer.text, answer.foreign]
    texts += [part for call in answer.calls for part in (call.name, call.arguments, call.foreign)]
    sent = count_tokens(body["messages"]) + count_tokens(body.get("tools", ()))
    return Usage(sent, sum(map(count_text_tokens, texts)), is_estimated=True)
